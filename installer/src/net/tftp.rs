//! A TFTP client that only reads (RFC 1350), with block size, transfer size and window options
//! (RFC 2347, 2348, 2349, 7440).
//!
//! [`Transfer`] is the protocol without a network; [`get`] lends it a socket. Invariant: a transfer
//! holds at most `max` bytes, answers one peer only, and every wait ends.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use castiron_engine::units::Bytes;
use thiserror::Error;
use url::Url;

/// Fits an Ethernet frame after IPv6 and UDP headers, also through a tunnel.
const BLOCK_WANTED: usize = 1408;
const BLOCK_DEFAULT: usize = 512;
const WINDOW_WANTED: u16 = 8;
const PORT: u16 = 69;
/// The waits for an answer before the last packet is sent again, in seconds.
const PATIENCE: [u64; 5] = [1, 2, 4, 8, 8];

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

const NOT_FOUND: u16 = 1;
const DISK_FULL: u16 = 3;
const UNKNOWN_PEER: u16 = 5;
const BAD_OPTIONS: u16 = 8;

#[derive(Debug, Error)]
pub enum TftpError {
    #[error("{url} is no TFTP URL: write tftp://HOST/PATH")]
    NotAUrl { url: String },
    #[error("{url}: the server has no such file")]
    NotFound { url: String },
    #[error("{url}: the server says: {message} (code {code})")]
    Server { url: String, code: u16, message: String },
    #[error("{url}: the server does not answer")]
    Silence { url: String },
    #[error("{url}: longer than the {} bytes allowed", max.0)]
    TooLong { url: String, max: Bytes },
    #[error("{url}: the server breaks the protocol: {rule}")]
    Protocol { url: String, rule: &'static str },
    #[error("{url}: cannot be asked")]
    Io {
        url: String,
        #[source]
        source: io::Error,
    },
}

impl TftpError {
    /// Whether another try may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Silence { .. } | Self::Io { .. })
    }
}

/// Reads a whole file of at most `max` bytes.
pub fn get(url: &str, max: Bytes) -> Result<Vec<u8>, TftpError> {
    let not_a_url = || TftpError::NotAUrl { url: url.to_owned() };
    let parsed = Url::parse(url).map_err(|_| not_a_url())?;
    let host = parsed.host_str().filter(|_| parsed.scheme() == "tftp").ok_or_else(not_a_url)?;
    let path = decode_path(parsed.path()).filter(|path| !path.is_empty()).ok_or_else(not_a_url)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source| TftpError::Io { url: url.to_owned(), source };
    let server = (host, parsed.port().unwrap_or(PORT)).to_socket_addrs().map_err(failed)?.next();
    let server = server.ok_or_else(|| failed(io::Error::other("the name has no address")))?;
    match run(server, Transfer::new(&path, max, true)).map_err(failed)? {
        Err(End::Refused(BAD_OPTIONS, _)) => run(server, Transfer::new(&path, max, false)).map_err(failed)?,
        other => other,
    }
    .map_err(|end| match end {
        End::Refused(NOT_FOUND, _) => TftpError::NotFound { url: url.to_owned() },
        End::Refused(code, message) => TftpError::Server { url: url.to_owned(), code, message },
        End::TooLong => TftpError::TooLong { url: url.to_owned(), max },
        End::Protocol(rule) => TftpError::Protocol { url: url.to_owned(), rule },
        End::Silence => TftpError::Silence { url: url.to_owned() },
    })
}

/// The file name without its first slash, `%20` and the like turned back.
fn decode_path(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path).bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'))
}

fn run(server: SocketAddr, mut transfer: Transfer) -> io::Result<Result<Vec<u8>, End>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let mut peer: Option<SocketAddr> = None;
    let mut last = transfer.request();
    let mut buffer = vec![0; 65536];
    'send: loop {
        for wait in PATIENCE {
            socket.send_to(&last, peer.unwrap_or(server))?;
            let wait = Duration::from_secs(wait);
            let mut until = Instant::now() + wait;
            while let Some((length, from)) = receive(&socket, &mut buffer, until)? {
                if from.ip() != server.ip() || peer.is_some_and(|peer| peer != from) {
                    socket.send_to(&error_packet(UNKNOWN_PEER, "unknown transfer"), from)?;
                    continue;
                }
                match transfer.handle(&buffer[..length]) {
                    Step::Ignore => {}
                    Step::Hear => {
                        peer = Some(from);
                        last = ack(transfer.block);
                        until = Instant::now() + wait;
                    }
                    Step::Send(packet) => {
                        peer = Some(from);
                        last = packet;
                        continue 'send;
                    }
                    Step::Done(packet) => {
                        socket.send_to(&packet, from)?;
                        return Ok(Ok(transfer.content));
                    }
                    Step::End(end) => {
                        if let Some(packet) = end.packet() {
                            socket.send_to(&packet, from)?;
                        }
                        return Ok(Err(end));
                    }
                }
            }
        }
        return Ok(Err(End::Silence));
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], until: Instant) -> io::Result<Option<(usize, SocketAddr)>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.recv_from(buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One file on its way.
#[derive(Debug)]
pub struct Transfer {
    path: String,
    max: Bytes,
    with_options: bool,
    block_size: usize,
    window: u16,
    /// The number of the last block received in order; it wraps after 65535.
    block: u16,
    /// Blocks received since the last acknowledgement.
    unacknowledged: u16,
    begun: bool,
    told_of_gap: bool,
    content: Vec<u8>,
}

/// What to do after a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Ignore,
    /// The packet counts, but no answer is due yet.
    Hear,
    Send(Vec<u8>),
    Done(Vec<u8>),
    End(End),
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Refused(u16, String),
    TooLong,
    Protocol(&'static str),
    Silence,
}

impl End {
    /// What the server is told.
    fn packet(&self) -> Option<Vec<u8>> {
        match self {
            Self::TooLong => Some(error_packet(DISK_FULL, "too long")),
            Self::Protocol(rule) => Some(error_packet(4, rule)),
            Self::Refused(..) | Self::Silence => None,
        }
    }
}

impl Transfer {
    pub fn new(path: &str, max: Bytes, with_options: bool) -> Self {
        Self {
            path: path.to_owned(),
            max,
            with_options,
            block_size: BLOCK_DEFAULT,
            window: 1,
            block: 0,
            unacknowledged: 0,
            begun: false,
            told_of_gap: false,
            content: Vec::new(),
        }
    }

    /// The packet that asks for the file.
    pub fn request(&self) -> Vec<u8> {
        let mut packet = RRQ.to_be_bytes().to_vec();
        let mut text = |text: &str| {
            packet.extend(text.as_bytes());
            packet.push(0);
        };
        text(&self.path);
        text("octet");
        if self.with_options {
            for (name, value) in [("blksize", BLOCK_WANTED), ("tsize", 0), ("windowsize", usize::from(WINDOW_WANTED))] {
                text(name);
                text(&value.to_string());
            }
        }
        packet
    }

    pub fn handle(&mut self, packet: &[u8]) -> Step {
        let field = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        match (field(0), field(2)) {
            (Some(DATA), Some(block)) => self.data(block, &packet[4..]),
            (Some(OACK), _) => self.options(&packet[2..]),
            (Some(ERROR), Some(code)) => Step::End(End::Refused(code, printable(&packet[4..]))),
            _ => Step::Ignore,
        }
    }

    fn options(&mut self, bytes: &[u8]) -> Step {
        if self.begun {
            // Our acknowledgement was lost.
            return if self.block == 0 { Step::Send(ack(0)) } else { Step::Ignore };
        }
        if !self.with_options {
            return Step::End(End::Protocol("options were not asked for"));
        }
        let mut words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).to_lowercase());
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = value.parse::<u64>().ok();
            match (name.as_str(), value) {
                ("blksize", Some(size @ 8..)) if size <= BLOCK_WANTED as u64 => self.block_size = size as usize,
                ("windowsize", Some(size @ 1..)) if size <= u64::from(WINDOW_WANTED) => self.window = size as u16,
                ("tsize", Some(size)) if size > self.max.0 => return Step::End(End::TooLong),
                ("tsize", Some(_)) => {}
                _ => return Step::End(End::Protocol("an option came back with a value that was not offered")),
            }
        }
        self.begun = true;
        Step::Send(ack(0))
    }

    fn data(&mut self, block: u16, bytes: &[u8]) -> Step {
        if block != self.block.wrapping_add(1) {
            // A repeated block is not acknowledged again: two sides that answer every repetition never stop
            // (the Sorcerer's Apprentice). A gap in a window is told once (RFC 7440, section 4).
            let ahead = block.wrapping_sub(self.block) < 0x8000;
            if self.begun && ahead && self.window > 1 && !self.told_of_gap {
                self.told_of_gap = true;
                self.unacknowledged = 0;
                return Step::Send(ack(self.block));
            }
            return Step::Ignore;
        }
        if bytes.len() > self.block_size {
            return Step::End(End::Protocol("a block is longer than agreed"));
        }
        if self.content.len() as u64 + bytes.len() as u64 > self.max.0 {
            return Step::End(End::TooLong);
        }
        self.begun = true;
        self.told_of_gap = false;
        self.block = block;
        self.content.extend(bytes);
        if bytes.len() < self.block_size {
            return Step::Done(ack(block));
        }
        self.unacknowledged += 1;
        if self.unacknowledged < self.window {
            return Step::Hear;
        }
        self.unacknowledged = 0;
        Step::Send(ack(block))
    }
}

fn ack(block: u16) -> Vec<u8> {
    [ACK.to_be_bytes(), block.to_be_bytes()].concat()
}

fn error_packet(code: u16, text: &str) -> Vec<u8> {
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

/// A server's words, at most 200 characters, without anything that could move a cursor.
fn printable(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
