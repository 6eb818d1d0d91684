//! HTTP/1.1 as bytes: requests in, responses out, and the smallest client. RFC 9112, RFC 9110 section 14 (ranges).

use std::fs::File;
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::faults::Outlet;
use crate::host::{Failure, Result, Subject};

const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// The path and query; for a proxy request the whole URL.
    pub path: String,
    pub body: Vec<u8>,
    /// First byte and, where named, the last one.
    pub range: Option<(u64, Option<u64>)>,
    pub close: bool,
}

#[derive(Debug)]
pub enum Body {
    Bytes(Vec<u8>),
    File { path: PathBuf, length: u64 },
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub kind: &'static str,
    pub body: Body,
}

impl Response {
    pub fn bytes(content: Vec<u8>) -> Self {
        Self { status: 200, kind: "application/octet-stream", body: Body::Bytes(content) }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, kind: "text/plain", body: Body::Bytes(text.into().into_bytes()) }
    }
}

/// `None` at the end of the connection.
pub fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut head = reader.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(std::io::Error::other(format!("no request line: {line:?}")));
    };
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
    request.close = words.next() == Some("HTTP/1.0");
    let mut length = 0;
    let mut chunked = false;
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the head ends early or is too long"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(std::io::Error::other)?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => request.close |= value.eq_ignore_ascii_case("close"),
            "range" => request.range = parse_range(value),
            _ => {}
        }
    }
    request.body = match chunked {
        true => read_chunks(reader)?,
        false => read_exactly(reader, length)?,
    };
    Ok(Some(request))
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    reader.take(length.min(BODY_BYTES_MAX)).read_to_end(&mut body)?;
    match body.len() as u64 == length {
        true => Ok(body),
        false => Err(std::io::Error::other(format!("a body of {length} bytes gave {}", body.len()))),
    }
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(std::io::Error::other)?;
        body.extend(read_exactly(reader, size)?);
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// One range from a first byte, as downloads resume; other forms are answered with the whole.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some((first.parse().ok()?, last))
}

pub fn write_response(out: &mut Outlet<'_>, request: &Request, response: Response) -> std::io::Result<()> {
    let length = match &response.body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::File { length, .. } => *length,
    };
    let mut status = response.status;
    let (mut first, mut end) = (0, length);
    let mut range_line = String::new();
    if let (200, Some((from, to))) = (status, request.range) {
        let last = to.map_or(length, |to| to.saturating_add(1).min(length));
        if from >= last {
            status = 416;
            (first, end) = (0, 0);
            range_line = format!("Content-Range: bytes */{length}\r\n");
        } else {
            status = 206;
            (first, end) = (from, last);
            range_line = format!("Content-Range: bytes {first}-{}/{length}\r\n", end - 1);
        }
    }
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Length: {}\r\nContent-Type: {}\r\nAccept-Ranges: bytes\r\n{range_line}{}\r\n",
        reason(status),
        end - first,
        response.kind,
        if request.close { "Connection: close\r\n" } else { "" },
    );
    out.head(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match response.body {
        Body::Bytes(bytes) => out.body(&bytes[first as usize..end as usize], first),
        Body::File { path, .. } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(first))?;
            let mut buffer = vec![0; 256 * 1024];
            let mut at = first;
            while at < end {
                let wanted = buffer.len().min((end - at) as usize);
                let got = file.read(&mut buffer[..wanted])?;
                if got == 0 {
                    return Err(std::io::Error::other("the file shrank while it was served"));
                }
                out.body(&buffer[..got], at)?;
                at += got as u64;
            }
            Ok(())
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// A GET over plain HTTP that ends with the connection.
pub fn get(url: &str, headers: &[&str]) -> Result<(u16, Vec<u8>)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| Failure(format!("{url}: only http is spoken here")))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = std::net::TcpStream::connect(address).on(url)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).on(url)?;
    let extra: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n").on(url)?;
    let mut reader = std::io::BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).on(url)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| Failure(format!("{url}: the answer begins with {line:?}")))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).on(url)? == 0 || line.trim_end().is_empty() {
            break;
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = Some(value.trim().parse::<u64>().on(url)?);
        }
        chunked |= lower.strip_prefix("transfer-encoding:").is_some_and(|value| value.trim() == "chunked");
    }
    let mut body = Vec::new();
    match (chunked, length) {
        (true, _) => body = read_chunks(&mut reader).on(url)?,
        (false, Some(length)) => {
            reader.take(length).read_to_end(&mut body).on(url)?;
            if body.len() as u64 != length {
                return Err(Failure(format!("{url}: {length} bytes were announced, {} came", body.len())));
            }
        }
        (false, None) => drop(reader.read_to_end(&mut body).on(url)?),
    }
    Ok((status, body))
}
