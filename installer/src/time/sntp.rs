//! The client side of SNTP (RFC 4330): one question, one answer, over a wire nobody should trust.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

const PORT: u16 = 123;
const LENGTH: usize = 48;
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// NTP's seconds start again after this many.
const ERA_SECONDS: i64 = 1 << 32;
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A server's time and when it was that.
#[derive(Clone, Debug)]
pub struct Answer {
    pub server: String,
    pub time: Timestamp,
    pub at: Instant,
}

impl Answer {
    pub fn time_now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::ZERO);
        self.time.saturating_add(passed).unwrap_or(self.time)
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SntpError {
    #[error("is not an answer of a time server")]
    NotAnAnswer,
    #[error("answers a question that was not asked")]
    NotOurs,
    #[error("says that its own clock is not right")]
    Unsynchronised,
    #[error("does not want to be asked ({code})")]
    KissOfDeath { code: String },
}

/// Asks each server in turn, again and again, until one gives a time that is `possible` or `wait` is over.
/// `floor` tells which of NTP's eras it is.
pub fn ask(
    servers: &[String],
    floor: Timestamp,
    wait: Duration,
    possible: &dyn Fn(Timestamp) -> bool,
    complain: &mut dyn FnMut(String),
) -> Option<Answer> {
    let deadline = Instant::now() + wait;
    let mut left: Vec<&String> = servers.iter().collect();
    while !left.is_empty() && Instant::now() < deadline {
        let round = Instant::now();
        for server in left.clone() {
            let until = (Instant::now() + ANSWER_WAIT).min(deadline);
            match ask_one(server, floor, until) {
                Ok(Some((time, at))) if possible(time) => return Some(Answer { server: server.clone(), time, at }),
                Ok(Some((time, _))) => {
                    complain(format!("the time server {server} says {time}, which is impossible"));
                    left.retain(|name| *name != server);
                }
                Ok(None) => {}
                Err(Failure::Answer(error)) => {
                    complain(format!("the time server {server} {error}"));
                    left.retain(|name| *name != server);
                }
                // The name may not resolve yet, or the route may be missing still.
                Err(Failure::Io(error)) => tracing::debug!(server, %error, "cannot ask the time server"),
            }
        }
        if round.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    None
}

enum Failure {
    Io(io::Error),
    Answer(SntpError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn ask_one(server: &str, floor: Timestamp, until: Instant) -> Result<Option<(Timestamp, Instant)>, Failure> {
    let address = resolve(server)?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(address)?;
    let nonce = u64::from(crate::net::dhcp4::random()) << 32 | u64::from(crate::net::dhcp4::random());
    let sent = Instant::now();
    socket.send(&question(nonce))?;
    let mut buffer = [0; 512];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let received = Instant::now();
        match read_answer(&buffer[..length], nonce, floor) {
            Ok(answer) => return Ok(Some((answer.at_receipt(received - sent), received))),
            // Anybody can send us a packet; only the real answer knows the nonce.
            Err(SntpError::NotOurs | SntpError::NotAnAnswer) => {}
            Err(error) => return Err(Failure::Answer(error)),
        }
    }
}

/// `host`, `host:port`, `address` or `[address]:port`.
fn resolve(server: &str) -> io::Result<SocketAddr> {
    let mut found = match server.parse::<IpAddr>() {
        Err(_) if server.contains(':') => server.to_socket_addrs()?,
        Ok(_) | Err(_) => (server, PORT).to_socket_addrs()?,
    };
    found.next().ok_or_else(|| io::Error::other("the name has no address"))
}

/// Version 4, mode client. The nonce stands where our time would, which nobody needs to know.
fn question(nonce: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = 4 << 3 | 3;
    packet[40..48].copy_from_slice(&nonce.to_be_bytes());
    packet
}

#[derive(Debug, PartialEq, Eq)]
struct Times {
    received: Timestamp,
    sent: Timestamp,
}

impl Times {
    /// The server's time when its answer arrived: half of the way there and back has passed since it was sent.
    fn at_receipt(&self, round_trip: Duration) -> Timestamp {
        let round_trip = SignedDuration::try_from(round_trip).unwrap_or(SignedDuration::ZERO);
        let on_the_way = round_trip - self.sent.duration_since(self.received).max(SignedDuration::ZERO);
        self.sent.saturating_add(on_the_way.max(SignedDuration::ZERO) / 2).unwrap_or(self.sent)
    }
}

fn read_answer(packet: &[u8], nonce: u64, floor: Timestamp) -> Result<Times, SntpError> {
    let packet: &[u8; LENGTH] =
        packet.get(..LENGTH).and_then(|start| start.try_into().ok()).ok_or(SntpError::NotAnAnswer)?;
    let long = |at: usize| u64::from_be_bytes(packet[at..at + 8].try_into().expect("eight bytes"));
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 7, packet[1]);
    if mode != 4 {
        return Err(SntpError::NotAnAnswer);
    }
    if long(24) != nonce {
        return Err(SntpError::NotOurs);
    }
    if stratum == 0 {
        let code = packet[12..16].iter().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(*byte));
        return Err(SntpError::KissOfDeath { code: code.collect() });
    }
    if leap == 3 || stratum > 15 || long(40) == 0 {
        return Err(SntpError::Unsynchronised);
    }
    let times = || Some(Times { received: timestamp(long(32), floor)?, sent: timestamp(long(40), floor)? });
    times().ok_or(SntpError::NotAnAnswer)
}

/// Seconds since 1900 and a fraction, in the era that makes it the first such time that is not before
/// the floor, less some slack, so that a server that is years slow is shown as what it is.
fn timestamp(value: u64, floor: Timestamp) -> Option<Timestamp> {
    const SLACK_SECONDS: i64 = 86_400 * 365 * 30;
    let seconds = i64::from((value >> 32) as u32) - NTP_TO_UNIX;
    let earliest = floor.as_second() - SLACK_SECONDS;
    let eras =
        (earliest - seconds).div_euclid(ERA_SECONDS) + i64::from((earliest - seconds).rem_euclid(ERA_SECONDS) > 0);
    let nanoseconds = ((value & 0xffff_ffff) * 1_000_000_000) >> 32;
    Timestamp::new(seconds + eras * ERA_SECONDS, nanoseconds as i32).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 0x1122_3344_5566_7788;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn floor() -> Timestamp {
        at("2026-06-01T00:00:00Z")
    }

    fn ntp(time: &str) -> u64 {
        let time = at(time);
        ((((time.as_second() + NTP_TO_UNIX) as u64) & 0xffff_ffff) << 32)
            | (((time.subsec_nanosecond() as u64) << 32) / 1_000_000_000)
    }

    fn answer(time: &str) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        packet[32..40].copy_from_slice(&ntp(time).to_be_bytes());
        packet[40..48].copy_from_slice(&ntp(time).to_be_bytes());
        packet
    }

    #[test]
    fn a_good_answer() {
        let times = read_answer(&answer("2026-11-23T14:00:00.5Z"), NONCE, floor()).unwrap();
        assert_eq!(times.sent, at("2026-11-23T14:00:00.5Z"));
        assert_eq!(times.at_receipt(Duration::from_millis(200)), at("2026-11-23T14:00:00.6Z"));
    }

    #[test]
    fn the_era_follows_the_floor() {
        for time in ["2026-05-01T00:00:00Z", "2036-02-07T06:28:17Z", "2040-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
            assert_eq!(timestamp(ntp(time), floor()), Some(at(time)), "{time}");
        }
        let late = at("2200-01-01T00:00:00Z");
        assert_eq!(timestamp(ntp("2200-06-01T00:00:00Z"), late), Some(at("2200-06-01T00:00:00Z")));
    }

    #[test]
    fn bad_answers_have_names() {
        let check = |place: usize, value: u8, expected: SntpError| {
            let mut packet = answer("2026-11-23T14:00:00Z");
            packet[place] = value;
            assert_eq!(read_answer(&packet, NONCE, floor()), Err(expected), "byte {place} is {value}");
        };
        check(0, 4 << 3 | 3, SntpError::NotAnAnswer);
        check(24, 0, SntpError::NotOurs);
        check(0, 3 << 6 | 4 << 3 | 4, SntpError::Unsynchronised);
        check(1, 16, SntpError::Unsynchronised);
        check(1, 0, SntpError::KissOfDeath { code: String::new() });
        for length in 0..LENGTH {
            let packet = answer("2026-11-23T14:00:00Z");
            assert_eq!(read_answer(&packet[..length], NONCE, floor()), Err(SntpError::NotAnAnswer));
        }
    }

    #[test]
    fn servers_may_carry_a_port() {
        assert_eq!(resolve("127.0.0.1").unwrap().to_string(), "127.0.0.1:123");
        assert_eq!(resolve("127.0.0.1:1123").unwrap().to_string(), "127.0.0.1:1123");
        assert_eq!(resolve("::1").unwrap().to_string(), "[::1]:123");
        assert_eq!(resolve("[::1]:1123").unwrap().to_string(), "[::1]:1123");
    }
}
