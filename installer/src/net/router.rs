//! What IPv6 routers say. [`parse`] reads an advertisement (RFC 4861, 4.2; name servers: RFC 8106), and
//! [`RouterSocket`] asks for one and hears them. Addresses and routes are made by the kernel; only
//! the name servers and the flags are ours to read.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recvmsg, sendto,
    setsockopt, socket, sockopt,
};

use super::names;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Neighbour discovery is believed only if no router has forwarded it.
const HOP_LIMIT: i32 = 255;
const SERVERS_MAX: usize = 8;

/// One router's advertisement, or what several say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// It is a default router.
    pub is_router: bool,
    /// Addresses come from DHCPv6.
    pub managed: bool,
    /// Other configuration comes from DHCPv6.
    pub other: bool,
    /// There is a prefix from which machines make their own addresses.
    pub autonomous: bool,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
}

impl Advertisement {
    /// Adds what another router says, or the same one later.
    pub fn merge(&mut self, other: Self) {
        self.is_router |= other.is_router;
        self.managed |= other.managed;
        self.other |= other.other;
        self.autonomous |= other.autonomous;
        for server in other.dns {
            if !self.dns.contains(&server) && self.dns.len() < SERVERS_MAX {
                self.dns.push(server);
            }
        }
        for name in other.search {
            if !self.search.contains(&name) && self.search.len() < SERVERS_MAX {
                self.search.push(name);
            }
        }
    }
}

/// Reads an ICMPv6 message. An option with a length of zero makes the whole message void (RFC 4861, 4.6).
pub fn parse(bytes: &[u8]) -> Option<Advertisement> {
    let (header, mut options) = bytes.split_at_checked(16)?;
    if header[0] != ADVERTISEMENT || header[1] != 0 {
        return None;
    }
    let mut found = Advertisement {
        is_router: header[6..8] != [0, 0],
        managed: header[5] & 0x80 != 0,
        other: header[5] & 0x40 != 0,
        ..Advertisement::default()
    };
    while let Some((kind, rest)) = options.split_first() {
        let length = usize::from(*rest.first()?) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty())?;
        let lifetime = option.get(4..8).map(|bytes| bytes != [0; 4]).unwrap_or_default();
        match (kind, length) {
            // Prefix information: autonomous, valid for some time, and of the only length that works.
            (3, 32) => found.autonomous |= option[3] & 0x40 != 0 && lifetime && option[2] == 64,
            (25, 24..) if lifetime => {
                let servers = option[8..].chunks_exact(16).filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok());
                let usable =
                    servers.map(Ipv6Addr::from).filter(|server| !server.is_unspecified() && !server.is_multicast());
                found.dns.extend(usable.take(SERVERS_MAX));
            }
            (31, 16..) if lifetime => {
                found.search.extend(names::parse_list(&option[8..]).into_iter().take(SERVERS_MAX))
            }
            _ => {}
        }
        options = &options[length..];
    }
    Some(found)
}

/// Hears router advertisements on one link.
pub struct RouterSocket {
    socket: OwnedFd,
    link: u32,
    mac: [u8; 6],
}

impl RouterSocket {
    pub fn open(name: &str, link: u32, mac: [u8; 6]) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOP_LIMIT)?;
        only_advertisements(&socket)?;
        Ok(Self { socket, link, mac })
    }

    /// Asks every router to speak now.
    pub fn solicit(&self) -> io::Result<()> {
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        message.extend(self.mac);
        let to = SockaddrIn6::from(SocketAddrV6::new(ALL_ROUTERS, 0, 0, self.link));
        sendto(self.socket.as_raw_fd(), &message, &to, MsgFlags::empty())?;
        Ok(())
    }

    /// The next advertisement of a router on this link, or `None` once `until` has come.
    pub fn receive(&self, until: Instant) -> io::Result<Option<(Ipv6Addr, Advertisement)>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let milliseconds = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::from(milliseconds)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let mut buffer = [0; 4096];
            let mut slices = [io::IoSliceMut::new(&mut buffer)];
            let mut control = nix::cmsg_space!(i32);
            let message = recvmsg::<SockaddrIn6>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let near = message.cmsgs()?.any(|item| matches!(item, ControlMessageOwned::Ipv6HopLimit(HOP_LIMIT)));
            let (source, length) = (message.address.map(|address| address.ip()), message.bytes);
            let from = source.filter(|address| near && address.is_unicast_link_local());
            if let (Some(from), Some(advertisement)) = (from, parse(&buffer[..length])) {
                return Ok(Some((from, advertisement)));
            }
        }
    }
}

/// `ICMP6_FILTER` (RFC 3542, 3.2): a bit for each type, set for those that are not wanted.
fn only_advertisements(socket: &OwnedFd) -> io::Result<()> {
    const ICMP6_FILTER: libc::c_int = 1;
    let mut filter = [u32::MAX; 8];
    filter[usize::from(ADVERTISEMENT >> 5)] &= !(1 << (ADVERTISEMENT & 31));
    // SAFETY: pointer and length describe `filter`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMP6_FILTER,
            filter.as_ptr().cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertisement(flags: u8, lifetime: u16, options: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, 64, flags];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend([0; 8]);
        options.iter().for_each(|option| bytes.extend(*option));
        bytes
    }

    fn prefix(flags: u8, valid: u32, length: u8) -> Vec<u8> {
        let mut option = vec![3, 4, length, flags];
        option.extend(valid.to_be_bytes());
        option.extend([0; 8]);
        option.extend("2001:db8::".parse::<Ipv6Addr>().unwrap().octets());
        option
    }

    fn dns(lifetime: u32, servers: &[&str]) -> Vec<u8> {
        let mut option = vec![25, 1 + 2 * servers.len() as u8, 0, 0];
        option.extend(lifetime.to_be_bytes());
        servers.iter().for_each(|server| option.extend(server.parse::<Ipv6Addr>().unwrap().octets()));
        option
    }

    #[test]
    fn a_router_with_everything() {
        let search = b"\x1f\x03\0\0\0\0\x0e\x10\x07example\x03org\0\0\0\0";
        let bytes = advertisement(
            0x40,
            1800,
            &[&[1, 1, 2, 0, 0, 0, 0, 1], &prefix(0xc0, 3600, 64), &dns(600, &["fe80::1", "2001:db8::53"]), search],
        );
        assert_eq!(
            parse(&bytes),
            Some(Advertisement {
                is_router: true,
                managed: false,
                other: true,
                autonomous: true,
                dns: vec!["fe80::1".parse().unwrap(), "2001:db8::53".parse().unwrap()],
                search: vec!["example.org".into()],
            })
        );
    }

    #[test]
    fn what_has_run_out_does_not_count() {
        let bytes = advertisement(
            0x80,
            0,
            &[&prefix(0xc0, 0, 64), &prefix(0xc0, 60, 48), &prefix(0x80, 60, 64), &dns(0, &["fe80::1"])],
        );
        assert_eq!(parse(&bytes), Some(Advertisement { managed: true, ..Advertisement::default() }));
    }

    #[test]
    fn broken_messages_are_void() {
        let whole = advertisement(0, 1800, &[&prefix(0xc0, 3600, 64), &dns(600, &["fe80::1"])]);
        for length in 0..whole.len() {
            let options_end_there = [16, 16 + 32].contains(&length);
            assert_eq!(parse(&whole[..length]).is_some(), options_end_there, "cut to {length}");
        }
        assert_eq!(parse(&advertisement(0, 1800, &[&[3, 0]])), None, "a length of zero");
        assert_eq!(parse(&[SOLICITATION; 16]), None);
    }

    #[test]
    fn a_flood_stays_bounded() {
        let mut all = Advertisement::default();
        for number in 0..1000_u16 {
            all.merge(parse(&advertisement(0, 1, &[&dns(9, &[&format!("2001:db8::{number:x}1")])])).unwrap());
        }
        assert_eq!(all.dns.len(), SERVERS_MAX);
    }
}
