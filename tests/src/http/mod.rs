//! A small HTTP/1.1 server for loopback: static files, documents, webhooks, and faults on purpose.
//!
//! In: folders, documents and [`Rule`]s. Out: a log of what was asked and what was said. One thread per connection,
//! bound to 127.0.0.1 and ::1 on one port; a QEMU guest with user networking reaches it as 10.0.2.2 or fec0::2.
//! Invariant: what is served is what lies in the folder, unless a rule says otherwise.

mod faults;
mod files;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use faults::{Fault, Rule};
pub use wire::{Body, Request, Response};

use crate::host::{Failure, Result, Subject};

/// Whoever answers: the files below, the caching proxy, a webhook.
pub trait Answer: Send + Sync {
    /// `None` lets the next one answer.
    fn answer(&self, request: &Request) -> Option<Response>;
}

/// One answered request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the server started.
    pub at: Duration,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// Bytes of body that went out.
    pub sent: u64,
    /// What a POST or PUT brought.
    pub received: Vec<u8>,
}

struct Shared {
    answers: Mutex<Vec<Box<dyn Answer>>>,
    documents: Mutex<BTreeMap<String, Vec<u8>>>,
    rules: Mutex<Vec<faults::Armed>>,
    log: Mutex<Vec<Entry>>,
    started: Instant,
    /// New connections are closed at once, open ones are cut.
    dead: AtomicBool,
    stopping: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// Body bytes that may still go out before the server dies.
    budget: Mutex<Option<u64>>,
    /// Set when the port speaks TLS as well.
    tls: OnceLock<Arc<rustls::ServerConfig>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server; it ends when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    port: u16,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// An empty server on a free port of the loopback.
    pub fn start() -> Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).on("listening on the loopback")?;
        let port = v4.local_addr().on("the listening socket")?.port();
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            documents: Mutex::default(),
            rules: Mutex::default(),
            log: Mutex::default(),
            started: Instant::now(),
            dead: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            budget: Mutex::default(),
            tls: OnceLock::new(),
        });
        let mut listeners = vec![v4];
        listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port))); // a host without IPv6 serves IPv4 alone
        let threads = listeners
            .into_iter()
            .map(|listener| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || accept(&listener, &shared))
            })
            .collect();
        Ok(Self { shared, port, threads })
    }

    /// Serves the files below `folder` under `prefix` (`/debian`, or the empty string for all paths).
    pub fn folder(&self, prefix: &str, folder: &Path) -> &Self {
        self.answer(files::Folder { prefix: prefix.to_owned(), folder: folder.to_owned() })
    }

    /// Serves `content` at exactly `path`.
    pub fn document(&self, path: &str, content: impl Into<Vec<u8>>) -> &Self {
        locked(&self.shared.documents).insert(path.to_owned(), content.into());
        self
    }

    pub fn answer(&self, answer: impl Answer + 'static) -> &Self {
        locked(&self.shared.answers).push(Box::new(answer));
        self
    }

    /// From now on `rule` holds.
    pub fn fault(&self, rule: Rule) -> &Self {
        locked(&self.shared.rules).push(faults::Armed::from(rule));
        self
    }

    /// The server dies, connections and all, once `bytes` more bytes of bodies went out.
    pub fn die_after(&self, bytes: u64) {
        *locked(&self.shared.budget) = Some(bytes);
    }

    /// Ends every fault and brings a dead server back.
    pub fn heal(&self) {
        locked(&self.shared.rules).clear();
        *locked(&self.shared.budget) = None;
        self.shared.dead.store(false, Ordering::SeqCst);
    }

    /// From now on the same port speaks https too, as 10.0.2.2 and 127.0.0.1. Gives the certificate of the authority
    /// that vouches for it, as DER.
    pub fn https(&self) -> Result<Vec<u8>> {
        let (config, authority) = tls::config()?;
        self.shared.tls.set(config).map_err(|_| Failure::new("https was asked for twice"))?;
        Ok(authority)
    }

    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::SeqCst)
    }

    pub fn log(&self) -> Vec<Entry> {
        locked(&self.shared.log).clone()
    }

    /// The bodies that were posted to `path`, oldest first.
    pub fn posted(&self, path: &str) -> Vec<Vec<u8>> {
        let log = self.log();
        log.into_iter().filter(|entry| entry.path == path && !entry.received.is_empty()).map(|e| e.received).collect()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As this host says it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// As a guest with user networking says it.
    pub fn guest_url(&self) -> String {
        format!("http://10.0.2.2:{}", self.port)
    }

    /// As a guest without IPv4 says it.
    pub fn guest_url_v6(&self) -> String {
        format!("http://[fec0::2]:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        cut(&self.shared);
        // Each listener wakes up for one last connection.
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), (Ipv6Addr::LOCALHOST, self.port).into()] {
            drop(TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn cut(shared: &Shared) {
    shared.dead.store(true, Ordering::SeqCst);
    for stream in locked(&shared.open).drain(..) {
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if shared.dead.load(Ordering::SeqCst) {
            continue; // dropped: the client sees its connection closed
        }
        let Ok(copy) = stream.try_clone() else { continue };
        locked(&shared.open).push(copy);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A client that goes away is no fault of this server; what it got is in the log.
            drop(converse(&stream, &shared));
            drop(stream.shutdown(Shutdown::Both));
            let peer = stream.peer_addr().ok();
            locked(&shared.open).retain(|other| other.peer_addr().ok() != peer);
        });
    }
}

fn converse(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    match shared.tls.get() {
        Some(config) if tls::speaks_it(stream)? => {
            let (reading, mut writing) = tls::accept(stream.try_clone()?, config)?;
            answer_all(&mut BufReader::new(reading), &mut writing, shared)
        }
        _ => answer_all(&mut BufReader::new(stream), &mut &*stream, shared),
    }
}

fn answer_all(reader: &mut impl BufRead, writer: &mut impl Write, shared: &Shared) -> std::io::Result<()> {
    while let Some(request) = wire::read_request(reader)? {
        let at = shared.started.elapsed();
        let fault = locked(&shared.rules).iter_mut().find_map(|rule| rule.strikes(&request.path));
        let response = match fault {
            Some(Fault::Status(status)) => Some(Response::text(status, "a fault on purpose\n")),
            _ => respond(shared, &request),
        };
        let response = response.unwrap_or_else(|| Response::text(404, format!("no {} here\n", request.path)));
        // Noted before the client can know of it; what went out is filled in afterwards.
        let number = {
            let (method, path) = (request.method.clone(), request.path.clone());
            let mut log = locked(&shared.log);
            log.push(Entry { at, method, path, status: response.status, sent: 0, received: request.body.clone() });
            log.len() - 1
        };
        let mut out = faults::Outlet::new(writer, fault, &shared.budget);
        let ended = wire::write_response(&mut out, &request, response);
        locked(&shared.log)[number].sent = out.sent();
        if out.died() {
            cut(shared);
        }
        ended?;
        if request.close {
            return Ok(());
        }
    }
    Ok(())
}

fn respond(shared: &Shared, request: &Request) -> Option<Response> {
    if let Some(content) = locked(&shared.documents).get(&request.path) {
        return Some(Response::bytes(content.clone()));
    }
    if matches!(request.method.as_str(), "POST" | "PUT") {
        return Some(Response::text(200, "noted\n"));
    }
    locked(&shared.answers).iter().find_map(|answer| answer.answer(request))
}

/// Fetches `url` over plain HTTP, for tests of the server itself and for looking at what it serves.
pub fn get(url: &str) -> Result<(u16, Vec<u8>)> {
    wire::get(url, &[])
}

/// As [`get`], with header lines such as `Range: bytes=5-`.
pub fn get_with(url: &str, headers: &[&str]) -> Result<(u16, Vec<u8>)> {
    wire::get(url, headers)
}

pub(crate) fn file_response(path: PathBuf) -> Result<Response> {
    let length = std::fs::metadata(&path).on(path.display())?.len();
    if path.is_dir() {
        return Err(Failure(format!("{} is a folder", path.display())));
    }
    Ok(Response { status: 200, kind: files::media_type(&path), body: Body::File { path, length } })
}

#[cfg(test)]
mod tests;
