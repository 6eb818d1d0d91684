//! UDP over a link that has no address yet: whole IPv4 packets on a packet(7) socket.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sends to and receives from everybody on one link.
pub struct PacketSocket {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl PacketSocket {
    pub fn open(link: u32) -> io::Result<Self> {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call; the descriptor it returns belongs to nobody else.
        let socket = unsafe {
            let descriptor = libc::socket(libc::AF_PACKET, kind, i32::from(protocol));
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        // SAFETY: all zero is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = link as i32;
        address.sll_halen = 6;
        address.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        // SAFETY: the pointer and the length describe `address`.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), mem::size_of_val(&address) as libc::socklen_t)
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { socket, address }) }
    }

    /// Sends one IPv4 packet to the link's broadcast address.
    pub fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        // SAFETY: pointers and lengths describe `packet` and `self.address`.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const self.address).cast(),
                mem::size_of_val(&self.address) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next IPv4 packet, or `None` once `until` has come.
    pub fn receive(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let wait = until.saturating_duration_since(Instant::now());
        let milliseconds = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(milliseconds)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = vec![0; 65536];
        let length =
            nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
        buffer.truncate(length);
        Ok(Some(buffer))
    }
}

const PROTOCOL_UDP: u8 = 17;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// An IPv4 packet with a UDP datagram in it (RFC 791, RFC 768).
pub fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let mut udp = Vec::with_capacity(usize::from(udp_length));
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut pseudo = Vec::with_capacity(12 + udp.len());
    pseudo.extend(from.ip().octets());
    pseudo.extend(to.ip().octets());
    pseudo.extend([0, PROTOCOL_UDP]);
    pseudo.extend(udp_length.to_be_bytes());
    pseudo.extend(&udp);
    // A checksum of zero would mean that there is none.
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let mut packet = vec![0x45, 0x10];
    packet.extend((IPV4_HEADER as u16 + udp_length).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    packet
}

/// Sender and payload of a UDP datagram for `port` in an IPv4 packet. Fragments and other protocols
/// are `None`. The UDP checksum is not looked at: virtual links leave it to hardware that is not there.
pub fn parse_udp_packet(packet: &[u8], port: u16) -> Option<(SocketAddrV4, &[u8])> {
    let header = usize::from(*packet.first()? & 0x0f) * 4;
    let version = packet[0] >> 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x3fff;
    if version != 4 || header < IPV4_HEADER || fragment != 0 || packet.get(9) != Some(&PROTOCOL_UDP) {
        return None;
    }
    let udp = packet.get(header..total)?;
    let field = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    if field(2)? != port {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let payload = udp.get(UDP_HEADER..usize::from(field(4)?))?;
    Some((SocketAddrV4::new(Ipv4Addr::from(source), field(0)?), payload))
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        udp_packet("10.0.2.2:67".parse().unwrap(), "255.255.255.255:68".parse().unwrap(), b"hello")
    }

    #[test]
    fn what_is_built_is_read_back() {
        let packet = packet();
        assert_eq!(parse_udp_packet(&packet, 68), Some(("10.0.2.2:67".parse().unwrap(), &b"hello"[..])));
        assert_eq!(parse_udp_packet(&packet, 69), None);
        assert_eq!(checksum(&packet[..IPV4_HEADER]), 0, "a header with its checksum sums to zero");
    }

    #[test]
    fn padding_after_the_packet_is_no_payload() {
        let mut padded = packet();
        padded.extend([0xaa; 13]);
        assert_eq!(parse_udp_packet(&padded, 68).unwrap().1, b"hello");
    }

    #[test]
    fn cut_and_mangled_packets_are_no_datagrams() {
        let whole = packet();
        for length in 0..whole.len() {
            assert_eq!(parse_udp_packet(&whole[..length], 68), None, "cut to {length}");
        }
        for (place, value) in [(0, 0x65), (0, 0x44), (6, 0x20), (9, 6), (25, 200), (25, 3)] {
            let mut mangled = whole.clone();
            mangled[place] = value;
            assert_eq!(parse_udp_packet(&mangled, 68), None, "byte {place} is {value}");
        }
    }

    #[test]
    fn an_odd_payload_is_summed_with_a_zero() {
        assert_eq!(checksum(&[0x01]), !0x0100);
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
