//! A DHCPv6 client (RFC 8415) for what routers leave to it: name servers, or an address too.
//!
//! Like its IPv4 sister it takes only what is listed here, from the first server that answers.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt};

use super::dhcp4::{Wire, random};
use super::names;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const OPTION_REQUEST: u16 = 6;
const ELAPSED_TIME: u16 = 8;
const STATUS: u16 = 13;
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const SNTP: u16 = 31;
const NTP: u16 = 56;

const SERVERS_MAX: usize = 8;
/// One link, one address: any number will do, and this one stays the same over reboots.
const IAID: u32 = 1;

/// What a server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub address: Option<Ipv6Addr>,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
    pub ntp: Vec<Ipv6Addr>,
    server: Vec<u8>,
}

/// Asks for everything but an address.
pub fn inform(mac: [u8; 6], wire: &mut dyn Wire, patience: Duration) -> io::Result<Option<Reply>> {
    let begun = Instant::now();
    exchange(mac, wire, INFORMATION_REQUEST, REPLY, None, begun, begun + patience)
}

/// Asks for an address and everything else.
pub fn acquire(mac: [u8; 6], wire: &mut dyn Wire, patience: Duration) -> io::Result<Option<Reply>> {
    let begun = Instant::now();
    let deadline = begun + patience;
    let Some(offer) = exchange(mac, wire, SOLICIT, ADVERTISE, None, begun, deadline)? else { return Ok(None) };
    exchange(mac, wire, REQUEST, REPLY, Some(&offer), begun, deadline)
}

/// Sends until the wanted kind of answer comes, each time with a longer wait.
fn exchange(
    mac: [u8; 6],
    wire: &mut dyn Wire,
    kind: u8,
    wanted: u8,
    offer: Option<&Reply>,
    begun: Instant,
    deadline: Instant,
) -> io::Result<Option<Reply>> {
    let mut pause = Duration::from_secs(1);
    let transaction = random() & 0x00ff_ffff;
    while Instant::now() < deadline {
        wire.send(&message(kind, transaction, mac, offer, begun))?;
        let until = (Instant::now() + pause).min(deadline);
        while let Some(bytes) = wire.receive(until)? {
            let reply = parse(&bytes, wanted, transaction, mac);
            // A request for an address is answered by an address.
            if let Some(reply) = reply.filter(|reply| kind == INFORMATION_REQUEST || reply.address.is_some()) {
                return Ok(Some(reply));
            }
        }
        pause = (pause * 2).min(Duration::from_secs(8));
    }
    Ok(None)
}

/// The identifier made of the link's address (DUID-LL, RFC 8415, 11.4).
fn client_id(mac: [u8; 6]) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac].concat()
}

fn message(kind: u8, transaction: u32, mac: [u8; 6], offer: Option<&Reply>, begun: Instant) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(&transaction.to_be_bytes()[1..]);
    let mut option = |code: u16, value: &[u8]| {
        bytes.extend(code.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
    };
    option(CLIENT_ID, &client_id(mac));
    if let Some(offer) = offer {
        option(SERVER_ID, &offer.server);
    }
    if kind != INFORMATION_REQUEST {
        let mut association = [IAID.to_be_bytes(), [0; 4], [0; 4]].concat();
        if let Some(address) = offer.and_then(|offer| offer.address) {
            association.extend(IA_ADDRESS.to_be_bytes());
            association.extend(24_u16.to_be_bytes());
            association.extend(address.octets());
            association.extend([0; 8]);
        }
        option(IA_NA, &association);
    }
    let wanted = [DNS, SEARCH, SNTP, NTP].map(u16::to_be_bytes).concat();
    option(OPTION_REQUEST, &wanted);
    let hundredths = u16::try_from(begun.elapsed().as_millis() / 10).unwrap_or(u16::MAX);
    option(ELAPSED_TIME, &hundredths.to_be_bytes());
    bytes
}

/// An answer of the wanted kind to this transaction of ours, without a complaint in it.
fn parse(bytes: &[u8], wanted: u8, transaction: u32, mac: [u8; 6]) -> Option<Reply> {
    let (header, rest) = bytes.split_at_checked(4)?;
    if header[0] != wanted || header[1..] != transaction.to_be_bytes()[1..] {
        return None;
    }
    let mut reply = Reply::default();
    let mut ours = false;
    for (code, value) in options(rest) {
        match code {
            CLIENT_ID => ours = value == client_id(mac),
            SERVER_ID => reply.server = value.to_vec(),
            STATUS if !is_success(value) => return None,
            IA_NA => reply.address = association(value).or(reply.address),
            DNS => reply.dns.extend(addresses(value)),
            SNTP => reply.ntp.extend(addresses(value)),
            NTP => {
                let servers = options(value).filter(|(code, _)| *code == 1);
                reply.ntp.extend(servers.flat_map(|(_, value)| addresses(value)));
            }
            SEARCH => reply.search.extend(names::parse_list(value).into_iter().take(SERVERS_MAX)),
            _ => {}
        }
    }
    (ours && !reply.server.is_empty()).then_some(reply)
}

/// The first address that is lent for more than no time.
fn association(bytes: &[u8]) -> Option<Ipv6Addr> {
    if bytes.get(..4)? != IAID.to_be_bytes() {
        return None;
    }
    let mut found = None;
    for (code, value) in options(bytes.get(12..)?) {
        match code {
            STATUS if !is_success(value) => return None,
            IA_ADDRESS if value.get(20..24).is_some_and(|valid| valid != [0; 4]) => {
                found = found.or_else(|| addresses(&value[..16]).next());
            }
            _ => {}
        }
    }
    found
}

fn is_success(status: &[u8]) -> bool {
    status.starts_with(&[0, 0])
}

/// Code and value of each option; a cut one ends the list.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((u16::from_be_bytes([header[0], header[1]]), value))
    })
}

fn addresses(bytes: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let all = bytes.chunks_exact(16).filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok()).map(Ipv6Addr::from);
    let usable = |address: &Ipv6Addr| !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    all.filter(usable).take(SERVERS_MAX)
}

/// UDP on one link, to all servers and relays there.
pub struct MulticastWire {
    socket: UdpSocket,
    to: SocketAddrV6,
}

impl MulticastWire {
    pub fn open(name: &str, link: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        let from = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0));
        bind(socket.as_raw_fd(), &from)?;
        Ok(Self { socket: UdpSocket::from(socket), to: SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, link) })
    }
}

impl Wire for MulticastWire {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, self.to).map(drop)
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => return Ok(Some(buffer[..length].to_vec())),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    fn lent(address: &str, valid: u32) -> Vec<u8> {
        let address: Ipv6Addr = address.parse().unwrap();
        let inner = option(IA_ADDRESS, &[&address.octets()[..], &[0; 4], &valid.to_be_bytes()].concat());
        option(IA_NA, &[&IAID.to_be_bytes()[..], &[0; 8], &inner].concat())
    }

    /// Answers Solicit and Request as a server would, with these further options.
    struct Server {
        extra: Vec<u8>,
        answers: VecDeque<Vec<u8>>,
        asked: Vec<u8>,
    }

    impl Wire for Server {
        fn send(&mut self, message: &[u8]) -> io::Result<()> {
            self.asked.push(message[0]);
            let kind = if message[0] == SOLICIT { ADVERTISE } else { REPLY };
            let mut answer = vec![kind];
            answer.extend(&message[1..4]);
            answer.extend(option(CLIENT_ID, &client_id(MAC)));
            answer.extend(option(SERVER_ID, b"server"));
            answer.extend(&self.extra);
            self.answers.push_back(answer);
            Ok(())
        }
        fn receive(&mut self, _until: Instant) -> io::Result<Option<Vec<u8>>> {
            Ok(self.answers.pop_front())
        }
    }

    fn server(extra: Vec<u8>) -> Server {
        Server { extra, answers: VecDeque::new(), asked: Vec::new() }
    }

    const PATIENCE: Duration = Duration::from_millis(20);

    #[test]
    fn an_address_and_what_comes_with_it() {
        let dns: Ipv6Addr = "2001:db8::53".parse().unwrap();
        let mut server =
            server([lent("2001:db8::7", 60), option(DNS, &dns.octets()), option(SEARCH, b"\x01a\0")].concat());
        let reply = acquire(MAC, &mut server, PATIENCE).unwrap().unwrap();
        assert_eq!(reply.address, Some("2001:db8::7".parse().unwrap()));
        assert_eq!((reply.dns, reply.search), (vec![dns], vec!["a".to_owned()]));
        assert_eq!(server.asked, [SOLICIT, REQUEST]);
    }

    #[test]
    fn information_needs_no_address() {
        let ntp: Ipv6Addr = "2001:db8::123".parse().unwrap();
        let mut server = server(option(NTP, &option(1, &ntp.octets())));
        let reply = inform(MAC, &mut server, PATIENCE).unwrap().unwrap();
        assert_eq!((reply.address, reply.ntp), (None, vec![ntp]));
    }

    #[test]
    fn complaints_and_empty_offers_are_no_answers() {
        for extra in [
            vec![],
            lent("2001:db8::7", 0),
            [lent("2001:db8::7", 60), option(STATUS, &[0, 2])].concat(),
            option(IA_NA, &[&IAID.to_be_bytes()[..], &[0; 8], &option(STATUS, &[0, 2])].concat()),
            option(IA_NA, &[9, 9]),
        ] {
            assert_eq!(acquire(MAC, &mut server(extra.clone()), PATIENCE).unwrap(), None, "{extra:?}");
        }
    }

    #[test]
    fn answers_for_others_are_dropped() {
        let ours = [&[REPLY, 0, 0, 7][..], &option(CLIENT_ID, &client_id(MAC)), &option(SERVER_ID, b"s")].concat();
        assert!(parse(&ours, REPLY, 7, MAC).is_some());
        assert!(parse(&ours, REPLY, 8, MAC).is_none());
        assert!(parse(&ours, ADVERTISE, 7, MAC).is_none());
        assert!(parse(&ours, REPLY, 7, [0; 6]).is_none());
        for length in 0..ours.len() {
            assert!(parse(&ours[..length], REPLY, 7, MAC).is_none(), "cut to {length}");
        }
    }
}
