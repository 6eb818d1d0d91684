//! The few words of rtnetlink(7) that a client needs: set a link up, add and remove an address, add a route.
//!
//! Each request is one message and is acknowledged by the kernel before the call returns. The bytes
//! are ours because the whole vocabulary is three fixed headers and nine attributes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// A socket to the kernel's routing tables.
pub struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A route of the main table. No `via`: the network is on the link itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: IpAddr,
    pub prefix: u8,
    pub via: Option<IpAddr>,
    pub link: u32,
    pub metric: u32,
    /// Largest packet for this route, in bytes.
    pub mtu: Option<u32>,
}

impl Rtnetlink {
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        self.request(libc::RTM_NEWLINK, 0, &link_up(link))
    }

    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> io::Result<()> {
        self.request(libc::RTM_NEWLINK, 0, &link_mtu(link, mtu))
    }

    /// Adds the address; one that is there already is left as it is.
    pub fn add_address(&mut self, link: u32, address: IpAddr, prefix: u8, peer: Option<IpAddr>) -> io::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.request(libc::RTM_NEWADDR, flags, &address_message(link, address, prefix, peer))
    }

    pub fn remove_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.request(libc::RTM_DELADDR, 0, &address_message(link, address, prefix, None))
    }

    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &route_message(route))
    }

    fn request(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let message = message(kind, flags, self.sequence, body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = [0; 8192];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if let Some(code) = acknowledgement(&buffer[..length], self.sequence) {
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
        }
    }
}

/// `struct nlmsghdr` and what follows.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// The code of the NLMSG_ERROR that answers `sequence`: zero or a negative error number.
fn acknowledgement(bytes: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let answered = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    (kind == libc::NLMSG_ERROR as u16 && answered == sequence).then_some(code)
}

/// `struct rtattr`, padded to four bytes.
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// `struct ifinfomsg`.
fn link_message(link: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    bytes.extend(link.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(change.to_ne_bytes());
    bytes
}

fn link_up(link: u32) -> Vec<u8> {
    let up = libc::IFF_UP as u32;
    link_message(link, up, up)
}

fn link_mtu(link: u32, mtu: u32) -> Vec<u8> {
    let mut bytes = link_message(link, 0, 0);
    attribute(&mut bytes, libc::IFLA_MTU, &mtu.to_ne_bytes());
    bytes
}

/// `struct ifaddrmsg`. IPv4 gets its broadcast address, and IPv6 that a person chose skips the wait of
/// duplicate address detection.
fn address_message(link: u32, address: IpAddr, prefix: u8, peer: Option<IpAddr>) -> Vec<u8> {
    let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut bytes = vec![family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE];
    bytes.extend(link.to_ne_bytes());
    attribute(&mut bytes, libc::IFA_LOCAL, &octets(address));
    attribute(&mut bytes, libc::IFA_ADDRESS, &octets(peer.unwrap_or(address)));
    if let (IpAddr::V4(v4), None, 1..=30) = (address, peer, prefix) {
        let broadcast = u32::from(v4) | (u32::MAX >> prefix);
        attribute(&mut bytes, libc::IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    bytes
}

/// Protocol number of routes made by a DHCP client, from `linux/rtnetlink.h`.
const RTPROT_DHCP: u8 = 16;
/// The gateway counts as reachable on the link even if no prefix covers it.
const RTNH_F_ONLINK: u32 = 4;
/// `RTAX_MTU` inside `RTA_METRICS`.
const RTAX_MTU: u16 = 2;

/// `struct rtmsg`.
fn route_message(route: &Route) -> Vec<u8> {
    let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let table = libc::RT_TABLE_MAIN;
    let mut bytes = vec![family(route.to), route.prefix, 0, 0, table, RTPROT_DHCP, scope, libc::RTN_UNICAST];
    bytes.extend(if route.via.is_some() { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
    if route.prefix > 0 {
        attribute(&mut bytes, libc::RTA_DST, &octets(route.to));
    }
    if let Some(via) = route.via {
        attribute(&mut bytes, libc::RTA_GATEWAY, &octets(via));
    }
    attribute(&mut bytes, libc::RTA_OIF, &route.link.to_ne_bytes());
    attribute(&mut bytes, libc::RTA_PRIORITY, &route.metric.to_ne_bytes());
    if let Some(mtu) = route.mtu {
        let mut metrics = Vec::new();
        attribute(&mut metrics, RTAX_MTU, &mtu.to_ne_bytes());
        attribute(&mut bytes, libc::RTA_METRICS, &metrics);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_message_has_the_kernels_layout() {
        let bytes = address_message(3, "10.0.2.15".parse().unwrap(), 24, None);
        assert_eq!(
            bytes,
            [
                2, 24, 0, 0, 3, 0, 0, 0, // ifaddrmsg
                8, 0, 2, 0, 10, 0, 2, 15, // IFA_LOCAL
                8, 0, 1, 0, 10, 0, 2, 15, // IFA_ADDRESS
                8, 0, 4, 0, 10, 0, 2, 255, // IFA_BROADCAST
            ]
        );
    }

    #[test]
    fn a_default_route_names_no_destination() {
        let route = Route {
            to: "0.0.0.0".parse().unwrap(),
            prefix: 0,
            via: Some("10.0.2.2".parse().unwrap()),
            link: 3,
            metric: 100,
            mtu: Some(1400),
        };
        assert_eq!(
            route_message(&route),
            [
                2, 0, 0, 0, 254, 16, 0, 1, 4, 0, 0, 0, // rtmsg
                8, 0, 5, 0, 10, 0, 2, 2, // RTA_GATEWAY
                8, 0, 4, 0, 3, 0, 0, 0, // RTA_OIF
                8, 0, 6, 0, 100, 0, 0, 0, // RTA_PRIORITY
                12, 0, 8, 0, 8, 0, 2, 0, 0x78, 5, 0, 0, // RTA_METRICS { RTAX_MTU }
            ]
        );
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let answer = |kind: u16, sequence: u32| message(kind, 0, sequence, &(-17i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer(2, 7), 7), Some(-17));
        assert_eq!(acknowledgement(&answer(2, 6), 7), None);
        assert_eq!(acknowledgement(&answer(16, 7), 7), None);
        assert_eq!(acknowledgement(&[1, 2, 3], 7), None);
    }
}
