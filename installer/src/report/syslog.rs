//! Events to a syslog server by UDP (RFC 5424, RFC 5426). In: events. Out: datagrams; what gets lost is lost.

use std::io;
use std::net::{ToSocketAddrs as _, UdpSocket};

use castiron_engine::event::{Event, EventResult, EventSink, Level};

use super::ReportError;

/// Sends events to a syslog server, one datagram each.
pub struct Syslog {
    socket: UdpSocket,
    hostname: String,
    /// Events below are not sent.
    level: Level,
}

/// What every receiver should take (RFC 5426, 3.2).
const MESSAGE_BYTES_MAX: usize = 2048;
const SYSLOG_PORT: u16 = 514;
/// The facility `local0`.
const FACILITY: u8 = 16;

impl Syslog {
    /// `server` is `HOST` or `HOST:PORT`.
    pub fn new(server: &str, hostname: &str, level: Level) -> Result<Self, ReportError> {
        let open = || -> io::Result<UdpSocket> {
            let with_port = server.to_socket_addrs().or_else(|_| (server, SYSLOG_PORT).to_socket_addrs());
            let address = with_port?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| ReportError::Syslog { server: server.to_owned(), source })?;
        let hostname: String = hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
        Ok(Self { socket, hostname: if hostname.is_empty() { "-".to_owned() } else { hostname }, level })
    }
}

impl EventSink for Syslog {
    fn emit(&mut self, event: &Event) {
        if event.level < self.level {
            return;
        }
        // Losing a line is better than stopping for one.
        let _ = self.socket.send(syslog_line(event, &self.hostname).as_bytes());
    }
}

pub(super) fn syslog_line(event: &Event, hostname: &str) -> String {
    let severity = match (event.level, event.result) {
        (_, Some(EventResult::Fail)) | (Level::Error, _) => 3,
        (Level::Warn, _) => 4,
        (Level::Info, _) => 6,
        (Level::Debug, _) => 7,
    };
    let time = jiff::Timestamp::from_microsecond((event.timestamp * 1e6) as i64);
    let time = time.map_or_else(|_| "-".to_owned(), |time| format!("{time:.6}"));
    let text: String = event.description.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = format!("<{}>1 {time} {hostname} castiron - - - {}: {text}", FACILITY * 8 + severity, event.name);
    let mut end = line.len().min(MESSAGE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}
