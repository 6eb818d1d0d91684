//! The two ways DHCP messages travel: to everybody while there is no address, and by UDP with one.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use super::Wire;
use crate::net::packet::{PacketSocket, parse_udp_packet, udp_packet};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// Broadcasts without an address of our own.
pub struct RawWire(PacketSocket);

impl RawWire {
    pub fn open(link: u32) -> io::Result<Self> {
        PacketSocket::open(link).map(Self)
    }
}

impl Wire for RawWire {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
        self.0.broadcast(&udp_packet(from, to, message))
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        while Instant::now() < until {
            let packet = self.0.receive(until)?;
            let datagram = packet.as_deref().and_then(|packet| parse_udp_packet(packet, CLIENT_PORT));
            if let Some((_, payload)) = datagram {
                return Ok(Some(payload.to_vec()));
            }
        }
        Ok(None)
    }
}

/// Ordinary UDP from our address, to one server or to all.
pub struct BoundWire {
    socket: UdpSocket,
    to: SocketAddrV4,
}

impl BoundWire {
    /// `server`: renewing; `None`: rebinding, which asks whoever is there. The socket hears broadcasts
    /// too, because that is how a server refuses; only this link's, so that every link can have one.
    pub fn open(link: &str, server: Option<Ipv4Addr>) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &link.into())?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)))?;
        let socket = UdpSocket::from(socket);
        socket.set_broadcast(true)?;
        Ok(Self { socket, to: SocketAddrV4::new(server.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT) })
    }
}

impl Wire for BoundWire {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, self.to).map(drop)
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65536];
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) if from.port() == SERVER_PORT => return Ok(Some(buffer[..length].to_vec())),
                Ok(_) => {}
                // Interrupted, timed out, or a server that says nobody listens there.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
