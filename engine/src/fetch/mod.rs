//! The one way to get bytes from elsewhere: `http:`, `https:` and `file:` URLs.
//!
//! In: URLs, and for anything large the size and digest it must have. Out: bytes that are at most
//! as long as allowed and, where a digest was given, exactly those. Invariant: unverified bytes are
//! never handed out under a digest, and never enter the cache.
//!
//! Transient failures are repeated with a growing, jittered pause; a broken transfer is resumed
//! where it stopped if the server proves that the resource is still the same; several URLs of the
//! same content are tried in turn.

mod cache;
mod client;
mod error;
pub mod resource;

pub use cache::Cache;
pub use client::install_crypto_provider;
pub use error::{FetchError, Mismatch};

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use sha2::{Digest as _, Sha256};

use crate::units::{Bytes, Digest};

/// How to reach the network. [`FetchOptions::default`] suits a host: proxies from the environment,
/// the bundled root certificates, no cache.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// A proxy for everything but `no_proxy`; without it `http_proxy`, `https_proxy` and `no_proxy`
    /// of the environment are used.
    pub proxy: Option<String>,
    /// Hosts reached without the proxy, separated by commas.
    pub no_proxy: Option<String>,
    /// Certificate authorities to trust besides the bundled roots (PEM, several certificates allowed).
    pub extra_ca_pem: Vec<Vec<u8>>,
    pub connect_timeout: Duration,
    /// The longest wait for the next byte.
    pub idle_timeout: Duration,
    /// How often every URL is tried before a transient failure counts.
    pub attempts: u32,
    /// The first pause between two rounds; doubled every round, at most 30 s, half of it jitter.
    pub pause: Duration,
    /// Where verified content is kept, by digest.
    pub cache: Option<Utf8PathBuf>,
    pub user_agent: String,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            proxy: None,
            no_proxy: None,
            extra_ca_pem: Vec::new(),
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_millis(500),
            cache: None,
            user_agent: concat!("castiron/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl FetchOptions {
    /// The proxy of a config, unless one is set already.
    #[must_use]
    pub fn or_proxy(self, written: &crate::config::system::Proxy) -> Self {
        let proxy = written.https.as_ref().or(written.http.as_ref());
        match (&self.proxy, proxy) {
            (None, Some(proxy)) => {
                let no_proxy = (!written.no_proxy.is_empty()).then(|| written.no_proxy.join(","));
                Self { proxy: Some(proxy.clone()), no_proxy, ..self }
            }
            _ => self,
        }
    }
}

/// What content must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub size: Bytes,
    pub digest: Digest,
}

/// Where fetched bytes go. A transfer that starts over calls `restart` first.
pub trait Sink: Write {
    fn restart(&mut self) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Sink for File {
    fn restart(&mut self) -> io::Result<()> {
        self.set_len(0)?;
        self.seek(SeekFrom::Start(0)).map(drop)
    }
}

/// Fetches; cheap to share between threads by reference.
#[derive(Debug)]
pub struct Fetcher {
    client: reqwest::blocking::Client,
    cache: Option<Cache>,
    attempts: u32,
    pause: Duration,
    idle_timeout: Duration,
}

impl Fetcher {
    pub fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        Ok(Self {
            client: client::build(options)?,
            cache: options.cache.clone().map(Cache::new),
            attempts: options.attempts.max(1),
            pause: options.pause,
            idle_timeout: options.idle_timeout,
        })
    }

    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// The HTTP client, for requests other than GET (a webhook's POST).
    pub fn client(&self) -> &reqwest::blocking::Client {
        &self.client
    }

    /// A small document whose digest is not known: a config, a Release file. Longer than `max` is an error.
    pub fn get_small(&self, url: &str, max: Bytes) -> Result<Vec<u8>, FetchError> {
        let mut body = Vec::new();
        self.in_rounds(&[url], &mut |_| (), |url, transfer, _| transfer.run(self, url, &mut body, max, &mut |_| ()))?;
        Ok(body)
    }

    /// The bytes of `expected`, from the cache or from the first URL that delivers them.
    /// `progress` is given the number of bytes received so far (it may fall back to zero).
    pub fn fetch_verified(
        &self,
        urls: &[impl AsRef<str>],
        expected: Expected,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, FetchError> {
        if let Some(bytes) = self.cache.as_ref().and_then(|cache| cache.read(expected)) {
            progress(expected.size.0);
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(expected.size.0.min(1 << 30) as usize);
        self.fetch_into(urls, expected, &mut bytes, progress)?;
        if let Some(cache) = &self.cache {
            cache.store(expected.digest, &bytes).map_err(|source| cache.error(source))?;
        }
        Ok(bytes)
    }

    /// As [`Fetcher::fetch_verified`], into a file: the cache's own, or else `spool`, which the caller
    /// made on a file system with room. The file returned is positioned at its start.
    pub fn fetch_verified_file(
        &self,
        urls: &[impl AsRef<str>],
        expected: Expected,
        spool: impl FnOnce() -> io::Result<File>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<File, FetchError> {
        let Some(cache) = &self.cache else {
            let mut file = spool().map_err(FetchError::Spool)?;
            self.fetch_into(urls, expected, &mut file, progress)?;
            file.seek(SeekFrom::Start(0)).map_err(FetchError::Spool)?;
            return Ok(file);
        };
        if let Some(file) = cache.open(expected) {
            progress(expected.size.0);
            return Ok(file);
        }
        let mut entry = cache.begin().map_err(|source| cache.error(source))?;
        self.fetch_into(urls, expected, entry.as_file_mut(), progress)?;
        let mut file = cache.commit(entry, expected.digest).map_err(|source| cache.error(source))?;
        file.seek(SeekFrom::Start(0)).map_err(FetchError::Spool)?;
        Ok(file)
    }

    /// Streams content into `sink` and verifies it; past the cache. After an error the sink holds rubbish.
    pub fn fetch_into(
        &self,
        urls: &[impl AsRef<str>],
        expected: Expected,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let urls: Vec<&str> = urls.iter().map(AsRef::as_ref).collect();
        self.in_rounds(&urls, progress, |url, transfer, progress| {
            transfer.run(self, url, sink, expected.size, progress)?;
            let verdict = transfer.verify(url, expected);
            if verdict.is_err() {
                *transfer = Transfer::default();
            }
            verdict
        })
    }

    /// Tries every URL in turn, round after round, until one succeeds or none is left worth trying.
    fn in_rounds(
        &self,
        urls: &[&str],
        progress: &mut dyn FnMut(u64),
        mut get: impl FnMut(&str, &mut Transfer, &mut dyn FnMut(u64)) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let mut transfer = Transfer::default();
        let mut remaining: Vec<(&str, u32)> = urls.iter().map(|url| (*url, 0)).collect();
        let mut last = FetchError::NoUrl;
        for round in 0..self.attempts {
            let mut wait = Duration::ZERO;
            let mut index = 0;
            while index < remaining.len() {
                let (url, spoilt) = remaining[index];
                match get(url, &mut transfer, progress) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::debug!(url, %error, round, "fetch failed");
                        let keep = match error.verdict() {
                            error::Verdict::Permanent => false,
                            error::Verdict::Transient(asked) => {
                                wait = wait.max(asked.unwrap_or_default());
                                true
                            }
                            // A wrong digest may be one bad hop: once more, then never again.
                            error::Verdict::Spoilt => spoilt == 0,
                        };
                        remaining[index].1 += u32::from(matches!(error.verdict(), error::Verdict::Spoilt));
                        last = error;
                        match keep {
                            true => index += 1,
                            false => drop(remaining.remove(index)),
                        }
                    }
                }
            }
            if remaining.is_empty() || round + 1 == self.attempts {
                break;
            }
            std::thread::sleep(wait.max(jittered(self.pause, round)));
        }
        Err(last)
    }
}

/// `pause` doubled `round` times, at most 30 s; between half of that and all of it.
fn jittered(pause: Duration, round: u32) -> Duration {
    let full = pause.saturating_mul(1 << round.min(10)).min(Duration::from_secs(30));
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    full / 2 + full.mul_f64(f64::from(nanos % 1000) / 2000.0)
}

/// One body on its way, over as many connections as it takes.
#[derive(Default)]
struct Transfer {
    /// Where the bytes so far come from, and the validator (strong ETag or Last-Modified) that names them.
    origin: Option<(String, Option<String>)>,
    received: u64,
    hasher: Sha256,
    head: Vec<u8>,
}

impl Transfer {
    fn run(
        &mut self,
        fetcher: &Fetcher,
        url: &str,
        sink: &mut dyn Sink,
        max: Bytes,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let resume =
            self.origin.take().filter(|(origin, _)| origin == url && self.received > 0).and_then(|(_, tag)| tag);
        let mut answer = client::open(
            &fetcher.client,
            url,
            resume.as_deref().map(|tag| (self.received, tag)),
            fetcher.idle_timeout,
        )?;
        if answer.start != self.received || self.received == 0 {
            *self = Self::default();
            sink.restart().map_err(FetchError::Spool)?;
        }
        self.origin = Some((url.to_owned(), answer.validator.take()));
        if let Some(length) = answer.length.filter(|length| self.received.saturating_add(*length) > max.0) {
            return Err(FetchError::TooLong { url: url.to_owned(), max, found: Some(Bytes(self.received + length)) });
        }
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(client::body_error(url, source, fetcher.idle_timeout)),
            };
            if self.received + count as u64 > max.0 {
                return Err(FetchError::TooLong { url: url.to_owned(), max, found: None });
            }
            if self.head.len() < 64 {
                self.head.extend_from_slice(&buffer[..count.min(64)]);
            }
            self.hasher.update(&buffer[..count]);
            sink.write_all(&buffer[..count]).map_err(FetchError::Spool)?;
            self.received += count as u64;
            progress(self.received);
        }
        match answer.length.map(|length| answer.start + length) {
            Some(total) if total != self.received => {
                Err(FetchError::Broken { url: url.to_owned(), received: Bytes(self.received), announced: Bytes(total) })
            }
            _ => Ok(()),
        }
    }

    fn verify(&self, url: &str, expected: Expected) -> Result<(), FetchError> {
        let found = Expected { size: Bytes(self.received), digest: Digest(self.hasher.clone().finalize().into()) };
        if found == expected {
            return Ok(());
        }
        let mismatch = Box::new(Mismatch { expected, found, html: looks_like_html(&self.head) });
        Err(FetchError::Mismatch { url: url.to_owned(), mismatch })
    }
}

/// Whether a body is a web page, as captive portals and error pages send instead of what was asked for.
pub fn looks_like_html(body: &[u8]) -> bool {
    let start: Vec<u8> = body
        .iter()
        .copied()
        .skip_while(u8::is_ascii_whitespace)
        .take(14)
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<?xml"].iter().any(|mark| start.starts_with(mark))
}

#[cfg(test)]
mod tests;
