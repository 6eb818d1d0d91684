//! Messages of the kernel about devices that come and go.
//!
//! In: datagrams of `NETLINK_KOBJECT_UEVENT`. Out: [`Uevent`]. Invariant: only messages of the kernel itself count;
//! udev's own (`libudev` in front) and those of other programs are dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};

/// Room for the burst of a large machine's cold start; the kernel accounts the pages only when they are used.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The kernel's messages are below 2048 bytes of environment (`UEVENT_BUFFER_SIZE`) plus the path.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Multicast group of the kernel; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind`, …
    pub action: String,
    /// Below `/sys`, with a leading slash.
    pub devpath: String,
    /// All `KEY=VALUE` pairs, `ACTION` and `DEVPATH` included.
    pub properties: BTreeMap<String, String>,
}

impl Uevent {
    /// `add@/devices/…\0ACTION=add\0DEVPATH=…\0…`; `None` for anything else.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut parts = message.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let header = parts.next()?;
        let (action, devpath) = header.split_once('@').filter(|(_, path)| path.starts_with('/'))?;
        let properties = parts
            .filter_map(|part| part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect();
        Some(Self { action: action.to_owned(), devpath: devpath.to_owned(), properties })
    }

    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(String::as_str)
    }
}

/// What the socket had.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Event(Uevent),
    /// Not a message of the kernel's.
    Foreign,
    /// The kernel dropped messages: look at everything again.
    Overrun,
}

pub struct Listener {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Beyond the system's limit with CAP_NET_ADMIN; without it the ordinary size has to do.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket, buffer: vec![0; MESSAGE_BYTES_MAX] })
    }

    /// Waits for the next message.
    pub fn receive(&mut self) -> io::Result<Received> {
        loop {
            // MSG_TRUNC is not asked for: a message that did not fit is cut, and its tail is of no interest.
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    let message = &self.buffer[..length.min(MESSAGE_BYTES_MAX)];
                    return Ok(Uevent::parse(message).map_or(Received::Foreign, Received::Event));
                }
                Ok(_) => return Ok(Received::Foreign),
                Err(Errno::ENOBUFS) => {
                    self.discard();
                    return Ok(Received::Overrun);
                }
                Err(Errno::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Empties the queue before a look at everything, which covers whatever it held.
    fn discard(&mut self) {
        while nix::sys::socket::recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_messages_are_read() {
        let message = b"add@/devices/pci0000:00/0000:00:04.0/virtio1\0ACTION=add\0\
            DEVPATH=/devices/pci0000:00/0000:00:04.0/virtio1\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0SEQNUM=1234\0";
        let event = Uevent::parse(message).unwrap();
        assert_eq!(
            (event.action.as_str(), event.devpath.as_str()),
            ("add", "/devices/pci0000:00/0000:00:04.0/virtio1")
        );
        assert_eq!(event.property("MODALIAS"), Some("virtio:d00000002v00001AF4"));
        assert_eq!(event.property("DEVNAME"), None);
    }

    #[test]
    fn other_messages_are_not() {
        for message in [&b"libudev\0\xfe\xed\xca\xfe\0\0"[..], b"", b"\0\0", b"add@devices", b"add", b"\xff\xfe@\xff"] {
            assert_eq!(Uevent::parse(message), None, "{message:?}");
        }
    }

    #[test]
    fn odd_properties_do_no_harm() {
        let event = Uevent::parse(b"change@/x\0NOVALUE\0A=b=c\0=empty\0\xff=\xff\0").unwrap();
        assert_eq!(event.property("A"), Some("b=c"));
        assert_eq!(event.property("NOVALUE"), None);
    }
}
