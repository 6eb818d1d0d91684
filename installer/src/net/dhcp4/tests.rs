//! The state machine against servers that behave and servers that do not.

use std::collections::VecDeque;

use super::*;

const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A server is a function from a client's message to answers; waiting takes no time.
struct Scripted<F> {
    server: F,
    answers: VecDeque<Vec<u8>>,
    sent: Vec<Asked>,
}

/// What the client said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    kind: MessageType,
    xid: u32,
    wanted: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    length: usize,
}

impl<F: FnMut(&Asked) -> Vec<Vec<u8>>> Scripted<F> {
    fn new(server: F) -> Self {
        Self { server, answers: VecDeque::new(), sent: Vec::new() }
    }
}

impl<F: FnMut(&Asked) -> Vec<Vec<u8>>> Wire for Scripted<F> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        use dhcproto::Decodable as _;
        let decoded = Message::decode(&mut dhcproto::Decoder::new(message)).unwrap();
        let address = |code| match decoded.opts().get(code) {
            Some(DhcpOption::RequestedIpAddress(address) | DhcpOption::ServerIdentifier(address)) => Some(*address),
            _ => None,
        };
        let asked = Asked {
            kind: decoded.opts().msg_type().unwrap(),
            xid: decoded.xid(),
            wanted: address(OptionCode::RequestedIpAddress),
            server: address(OptionCode::ServerIdentifier),
            length: message.len(),
        };
        self.answers.extend((self.server)(&asked));
        self.sent.push(asked);
        Ok(())
    }

    fn receive(&mut self, _until: Instant) -> io::Result<Option<Vec<u8>>> {
        Ok(self.answers.pop_front())
    }
}

fn answer(asked: &Asked, kind: MessageType, server: [u8; 4], address: [u8; 4]) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(asked.xid, none, Ipv4Addr::from(address), none, none, &CLIENT);
    message.set_opcode(dhcproto::v4::Opcode::BootReply);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(server.into()));
    options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
    options.insert(DhcpOption::AddressLeaseTime(60));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

const SERVER: [u8; 4] = [10, 0, 2, 2];
const RIVAL: [u8; 4] = [10, 0, 2, 3];
const OURS: [u8; 4] = [10, 0, 2, 15];

fn client() -> Client {
    Client { mac: CLIENT, hostname: None }
}

fn ask(wire: &mut dyn Wire) -> Result<Acquired, DhcpError> {
    acquire(&client(), wire, None, Duration::from_millis(200))
}

fn willing(asked: &Asked) -> Vec<Vec<u8>> {
    match asked.kind {
        MessageType::Discover => vec![answer(asked, MessageType::Offer, SERVER, OURS)],
        _ => vec![answer(asked, MessageType::Ack, SERVER, OURS)],
    }
}

#[test]
fn discover_offer_request_ack() {
    let mut wire = Scripted::new(willing);
    let acquired = ask(&mut wire).unwrap();
    assert_eq!(acquired.lease.address, Ipv4Addr::from(OURS));
    assert_eq!(wire.sent.len(), 2);
    assert_eq!(wire.sent[1].wanted, Some(OURS.into()));
    assert_eq!(wire.sent[1].server, Some(SERVER.into()));
    assert_eq!(wire.sent[0].xid, wire.sent[1].xid);
    assert!(wire.sent.iter().all(|asked| asked.length >= 300));
}

#[test]
fn the_first_offer_wins_and_rivals_are_named() {
    let mut wire = Scripted::new(|asked: &Asked| match asked.kind {
        MessageType::Discover => {
            vec![
                answer(asked, MessageType::Offer, SERVER, OURS),
                answer(asked, MessageType::Offer, RIVAL, [10, 9, 9, 9]),
            ]
        }
        _ => vec![
            answer(asked, MessageType::Nak, RIVAL, [0; 4]),
            answer(asked, MessageType::Ack, RIVAL, [10, 9, 9, 9]),
            answer(asked, MessageType::Ack, SERVER, OURS),
        ],
    });
    let acquired = ask(&mut wire).unwrap();
    assert_eq!(acquired.lease.server, Ipv4Addr::from(SERVER), "a forged NAK or ACK of another server does not count");
    assert_eq!(acquired.rivals, [Ipv4Addr::from(RIVAL)]);
}

#[test]
fn lost_messages_are_sent_again() {
    let mut left = 3;
    let mut wire = Scripted::new(|asked: &Asked| {
        left -= 1;
        if left >= 0 { vec![] } else { willing(asked) }
    });
    assert!(ask(&mut wire).is_ok());
}

#[test]
fn a_lost_ack_repeats_the_request_only() {
    let mut acks = 0;
    let mut wire = Scripted::new(|asked: &Asked| match asked.kind {
        MessageType::Discover => willing(asked),
        _ => {
            acks += 1;
            if acks < 3 { vec![] } else { willing(asked) }
        }
    });
    assert!(ask(&mut wire).is_ok());
    let kinds: Vec<_> = wire.sent.iter().map(|asked| asked.kind).collect();
    assert_eq!(kinds, [MessageType::Discover, MessageType::Request, MessageType::Request, MessageType::Request]);
}

#[test]
fn a_refusal_is_told_and_tried_again() {
    let mut naks = 0;
    let mut wire = Scripted::new(|asked: &Asked| match asked.kind {
        MessageType::Discover => willing(asked),
        _ if naks == 0 => {
            naks += 1;
            vec![answer(asked, MessageType::Nak, SERVER, OURS)]
        }
        _ => willing(asked),
    });
    assert!(ask(&mut wire).is_ok());

    let mut wire = Scripted::new(|asked: &Asked| match asked.kind {
        MessageType::Discover => willing(asked),
        _ => vec![answer(asked, MessageType::Nak, SERVER, OURS)],
    });
    let error = ask(&mut wire).unwrap_err().to_string();
    assert!(error.starts_with("the DHCP server 10.0.2.2 refused"), "{error}");
}

#[test]
fn silence_ends() {
    let mut wire = Scripted::new(|_: &Asked| vec![vec![0; 5]]);
    assert_eq!(ask(&mut wire).unwrap_err().to_string(), "no DHCP server answered in 0 s");
}

#[test]
fn renewals() {
    let lease = ask(&mut Scripted::new(willing)).unwrap().lease;
    let check = |kind: MessageType, address: [u8; 4]| {
        let mut wire = Scripted::new(|asked: &Asked| vec![answer(asked, kind, SERVER, address)]);
        let renewal = renew(&client(), &mut wire, &lease, Instant::now()).unwrap();
        assert_eq!((wire.sent[0].wanted, wire.sent[0].server), (None, None));
        renewal
    };
    assert_eq!(check(MessageType::Ack, OURS), Renewal::Extended(lease.clone()));
    assert!(matches!(check(MessageType::Nak, OURS), Renewal::Lost(_)));
    assert_eq!(check(MessageType::Ack, [10, 0, 2, 16]), Renewal::Lost("10.0.2.16 was given instead".into()));
    assert_eq!(check(MessageType::Offer, OURS), Renewal::Silence);
}
