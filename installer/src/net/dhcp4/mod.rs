//! A DHCPv4 client (RFC 2131). In: a [`Wire`] and who we are. Out: a [`Lease`].
//!
//! Invariant: the state machine knows neither sockets nor links, so its tests need neither.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Encodable as _, Encoder};
use thiserror::Error;

mod lease;
mod wire;

pub use lease::{ClasslessRoute, Lease, Reply, parse_reply};
pub use wire::{BoundWire, RawWire};

/// How messages travel. `receive` gives the payload of the next datagram for a DHCP client.
pub trait Wire {
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    /// `None` once `until` has come.
    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>>;
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Client {
    pub mac: [u8; 6],
    pub hostname: Option<String>,
}

#[derive(Debug, Error)]
pub enum DhcpError {
    #[error("no DHCP server answered in {} s", waited.as_secs())]
    Silence { waited: Duration },
    #[error("the DHCP server {server} refused: {message}")]
    Refused { server: String, message: String },
    #[error("cannot speak DHCP on this link")]
    Io(#[from] io::Error),
}

/// The pauses before asking again, in seconds; the last one repeats. RFC 2131 begins with four, but a
/// switch that learns spanning tree may let the first frames drop and the next ones through.
const DISCOVER_PAUSES: [u64; 4] = [1, 2, 4, 8];
const REQUEST_PAUSES: [u64; 3] = [1, 2, 4];

/// What came of asking, and what a person may want to know about it.
#[derive(Debug)]
pub struct Acquired {
    pub lease: Lease,
    /// Other servers that offered something and were not taken.
    pub rivals: Vec<Ipv4Addr>,
}

/// Asks until a server has lent us an address or `patience` is over. `wanted` is an address we had before.
pub fn acquire(
    client: &Client,
    wire: &mut dyn Wire,
    wanted: Option<Ipv4Addr>,
    patience: Duration,
) -> Result<Acquired, DhcpError> {
    let begun = Instant::now();
    let deadline = begun + patience;
    let mut refusal = None;
    let mut wanted = wanted;
    let mut pauses = DISCOVER_PAUSES.iter().chain(std::iter::repeat(&DISCOVER_PAUSES[3]));
    let mut rivals = Vec::new();
    while let Some(pause) = pauses.next().filter(|_| Instant::now() < deadline) {
        let xid = random();
        let until = (Instant::now() + jittered(Duration::from_secs(*pause))).min(deadline);
        send(wire, &client.discover(xid, wanted, begun))?;
        let offered = listen(client, wire, xid, until, |reply| match reply {
            Reply::Offer(lease) => Some(lease),
            Reply::Ack(_) | Reply::Nak { .. } => None,
        })?;
        let Some(offer) = offered else { continue };
        match request(client, wire, xid, &offer, begun, &mut rivals)? {
            Answer::Granted(lease) => return Ok(Acquired { lease, rivals }),
            Answer::Refused(message) => {
                refusal = Some(DhcpError::Refused { server: offer.server.to_string(), message });
                wanted = None;
                // RFC 2131, 3.1.5: a client that is refused at once must not ask at once again.
                listen(client, wire, xid, until.min(Instant::now() + Duration::from_secs(1)), |_| None::<()>)?;
            }
            Answer::Silence => {}
        }
    }
    Err(refusal.unwrap_or(DhcpError::Silence { waited: patience }))
}

enum Answer {
    Granted(Lease),
    Refused(String),
    Silence,
}

fn request(
    client: &Client,
    wire: &mut dyn Wire,
    xid: u32,
    offer: &Lease,
    begun: Instant,
    rivals: &mut Vec<Ipv4Addr>,
) -> Result<Answer, DhcpError> {
    for pause in REQUEST_PAUSES {
        send(wire, &client.request(xid, offer, begun))?;
        let until = Instant::now() + jittered(Duration::from_secs(pause));
        let answer = listen(client, wire, xid, until, |reply| match reply {
            Reply::Offer(lease) => {
                if lease.server != offer.server && !rivals.contains(&lease.server) {
                    rivals.push(lease.server);
                }
                None
            }
            Reply::Ack(lease) => (lease.server == offer.server).then_some(Answer::Granted(lease)),
            Reply::Nak { server, message } => (server == Some(offer.server)).then_some(Answer::Refused(message)),
        })?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    Ok(Answer::Silence)
}

/// What came of asking for more time.
#[derive(Debug, PartialEq, Eq)]
pub enum Renewal {
    Extended(Lease),
    /// The address must not be used any more.
    Lost(String),
    Silence,
}

/// Asks once for the same address again (RFC 2131, 4.4.5), and waits until `until`.
pub fn renew(client: &Client, wire: &mut dyn Wire, lease: &Lease, until: Instant) -> Result<Renewal, DhcpError> {
    let xid = random();
    send(wire, &client.renewal(xid, lease.address))?;
    let answer = listen(client, wire, xid, until, |reply| match reply {
        Reply::Ack(granted) if granted.address == lease.address => Some(Renewal::Extended(granted)),
        Reply::Ack(granted) => Some(Renewal::Lost(format!("{} was given instead", granted.address))),
        Reply::Nak { message, .. } => Some(Renewal::Lost(message)),
        Reply::Offer(_) => None,
    })?;
    Ok(answer.unwrap_or(Renewal::Silence))
}

/// Hands replies to `choose` until it takes one or `until` has come.
fn listen<T>(
    client: &Client,
    wire: &mut dyn Wire,
    xid: u32,
    until: Instant,
    mut choose: impl FnMut(Reply) -> Option<T>,
) -> Result<Option<T>, DhcpError> {
    while let Some(bytes) = wire.receive(until)? {
        match parse_reply(&bytes, xid, client.mac) {
            Ok(reply) => {
                if let Some(chosen) = choose(reply) {
                    return Ok(Some(chosen));
                }
            }
            Err(reason) => tracing::debug!(reason, "dropped a DHCP message"),
        }
    }
    Ok(None)
}

fn send(wire: &mut dyn Wire, message: &Message) -> Result<(), DhcpError> {
    let mut bytes = Vec::with_capacity(400);
    message
        .encode(&mut Encoder::new(&mut bytes))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    // Some relays drop what is shorter than a BOOTP message (RFC 1542, 2.1).
    bytes.resize(bytes.len().max(300), 0);
    Ok(wire.send(&bytes)?)
}

/// The vendor class by which a server can tell us from other clients.
const VENDOR_CLASS: &[u8] = b"castiron";

impl Client {
    fn message(&self, xid: u32, kind: MessageType) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(xid, none, none, none, none, &self.mac);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        // Hardware type and address, so that the lease the firmware or iPXE had is found again.
        let identifier = [&[1][..], &self.mac].concat();
        message.opts_mut().insert(DhcpOption::ClientIdentifier(identifier));
        message.opts_mut().insert(DhcpOption::MaxMessageSize(1400));
        message.opts_mut().insert(DhcpOption::ClassIdentifier(VENDOR_CLASS.to_vec()));
        message.opts_mut().insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::ClasslessStaticRoute,
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::Hostname,
            OptionCode::DomainName,
            OptionCode::InterfaceMtu,
            OptionCode::NtpServers,
            OptionCode::DomainSearch,
            OptionCode::AddressLeaseTime,
            OptionCode::Renewal,
            OptionCode::Rebinding,
            OptionCode::Unknown(lease::code::CONFIG_URL),
        ]));
        if let Some(name) = &self.hostname {
            message.opts_mut().insert(DhcpOption::Hostname(name.clone()));
        }
        message
    }

    fn discover(&self, xid: u32, wanted: Option<Ipv4Addr>, begun: Instant) -> Message {
        let mut message = self.message(xid, MessageType::Discover);
        message.set_secs(seconds_since(begun)).set_flags(Flags::default().set_broadcast());
        if let Some(address) = wanted {
            message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
        }
        message
    }

    fn request(&self, xid: u32, offer: &Lease, begun: Instant) -> Message {
        let mut message = self.message(xid, MessageType::Request);
        message.set_secs(seconds_since(begun)).set_flags(Flags::default().set_broadcast());
        message.opts_mut().insert(DhcpOption::RequestedIpAddress(offer.address));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(offer.server));
        message
    }

    /// Neither requested address nor server: the address stands in `ciaddr` (RFC 2131, table 4).
    fn renewal(&self, xid: u32, address: Ipv4Addr) -> Message {
        let mut message = self.message(xid, MessageType::Request);
        message.set_ciaddr(address);
        message
    }
}

fn seconds_since(begun: Instant) -> u16 {
    u16::try_from(begun.elapsed().as_secs()).unwrap_or(u16::MAX)
}

/// Between nine tenths and eleven tenths, so that a rack that was switched on at once does not ask at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + f64::from(random() % 1000) / 5000.0)
}

/// A number nobody can guess; a clock that no one can read from afar stands in where the kernel has none yet.
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => {
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            nanos.subsec_nanos() ^ (nanos.as_secs() as u32).rotate_left(16) ^ std::process::id()
        }
    }
}

#[cfg(test)]
mod tests;
