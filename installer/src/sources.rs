//! Where a config comes from. In: what the command line, the initramfs and DHCP say. Out: a
//! [`Document`], which nobody may act on before `trust::verify` has passed it.
//!
//! The places are asked in a fixed order and the first that has a config wins: `castiron.config.early=`,
//! the initramfs, `castiron.config=` or `castiron.config.device=`, a URL from DHCP, a file system labelled
//! `CASTIRON`, `castiron.config.inline=`. What the command line names must be there; the rest may be.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use castiron_engine::event::{Event, EventSink, EventType, Level};
use castiron_engine::fetch::{FetchError, Fetcher};
use castiron_engine::trust::{Document, Origin};
use castiron_engine::units::Bytes;
use thiserror::Error;

mod label;
mod variables;

pub use label::LabelError;
pub use variables::{VariableError, Variables, machine};

use crate::net::tftp::{self, TftpError};

/// No config is longer.
pub const CONFIG_MAX: Bytes = Bytes::mib(4);
const SIGNATURE_MAX: Bytes = Bytes::kib(16);
/// The file on a labelled file system when no other is named.
const CONFIG_FILE: &str = "castiron/config.yaml";
/// The label that is looked for unasked.
const LABEL: &str = "CASTIRON";
/// The config that was built into the appliance, below the root.
const DROP_IN: &str = "etc/castiron/config.yaml";
const PAUSES_SECONDS: [u64; 4] = [1, 2, 5, 10];

/// Where to look.
#[derive(Clone, Debug)]
pub struct SourceRequest {
    /// `castiron.config=`, with its variables.
    pub config: Option<String>,
    /// `castiron.config.early=`.
    pub early: Option<String>,
    /// `castiron.config.inline=`.
    pub inline: Option<String>,
    /// `castiron.config.device=`: the label of a file system.
    pub device: Option<String>,
    /// `castiron.config.path=`: the file on it.
    pub path: Option<String>,
    /// What DHCP servers said; only signed documents from there are of use.
    pub dhcp_urls: Vec<String>,
    pub variables: Variables,
    /// Whether a signature will be asked for: not for a config that is pinned by its hash.
    pub signature: bool,
    /// How long a server that does not answer is asked again.
    pub patience: Duration,
    /// `/` of the running system.
    pub root: PathBuf,
}

impl Default for SourceRequest {
    fn default() -> Self {
        Self {
            config: None,
            early: None,
            inline: None,
            device: None,
            path: None,
            dhcp_urls: Vec::new(),
            variables: Variables::default(),
            signature: true,
            patience: Duration::from_secs(300),
            root: "/".into(),
        }
    }
}

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("there is no config: {}", looked.join(", "))]
    Nothing { looked: Vec<String> },
    #[error("castiron.config=none: no config is wanted")]
    NotWanted,
    #[error("castiron.config={text} names no place this appliance can read")]
    Unknown { text: String },
    #[error("the variables of castiron.config= cannot be filled in")]
    Variable(#[from] VariableError),
    #[error("cannot fetch the config")]
    Fetch(#[from] FetchError),
    #[error("cannot fetch the config")]
    Tftp(#[from] TftpError),
    #[error("{name} is not base64 of a config, plain or compressed with zstd")]
    Inline { name: String },
    #[error("cannot read the config of file system {label}")]
    Label { label: String, source: LabelError },
    #[error("cannot read {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{name} is empty")]
    Empty { name: String },
}

impl SourceError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Nothing { .. } => "name one with castiron.config=URL".to_owned(),
            Self::NotWanted => "remove castiron.config=none to install".to_owned(),
            Self::Unknown { .. } => {
                "write http://…, https://…, tftp://…, label:NAME/path or none; inline goes into castiron.config.inline="
                    .to_owned()
            }
            Self::Variable(error) => error.hint().to_owned(),
            Self::Fetch(error) => error.hint().unwrap_or_else(|| "see whether the server is there".to_owned()),
            Self::Tftp(_) => "see whether the server is there and has the file".to_owned(),
            Self::Inline { .. } => "zstd FILE --stdout | base64 -w0".to_owned(),
            Self::Label { .. } => "see whether the medium is plugged in and holds the file".to_owned(),
            Self::File { .. } | Self::Empty { .. } => "build the appliance with a config that can be read".to_owned(),
        }
    }
}

/// How bytes are fetched from a URL, so that tests need no server.
pub trait Fetch {
    fn get(&self, url: &str, max: Bytes) -> Result<Vec<u8>, SourceError>;
}

/// http and https by the engine's fetcher, tftp by ours.
impl Fetch for Fetcher {
    fn get(&self, url: &str, max: Bytes) -> Result<Vec<u8>, SourceError> {
        match url.starts_with("tftp:") {
            true => Ok(tftp::get(url, max)?),
            false => Ok(self.get_small(url, max)?),
        }
    }
}

impl SourceError {
    /// Whether asking again later may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Status { status, .. }) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Fetch(error) => matches!(error.rule(), "fetch.connect" | "fetch.transfer" | "fetch.idle"),
            Self::Tftp(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether the server answered that there is no such file.
    fn is_absence(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Status { status, .. }) => matches!(status, 404 | 410),
            Self::Tftp(TftpError::NotFound { .. }) => true,
            _ => false,
        }
    }
}

/// Finds the config and the signature beside it.
pub fn find(request: &SourceRequest, fetch: &dyn Fetch, events: &mut dyn EventSink) -> Result<Document, SourceError> {
    let document = search(request, fetch, events)?;
    if document.bytes.is_empty() {
        return Err(SourceError::Empty { name: document.name });
    }
    Ok(document)
}

fn search(request: &SourceRequest, fetch: &dyn Fetch, events: &mut dyn EventSink) -> Result<Document, SourceError> {
    let mut looked = Vec::new();
    if let Some(text) = &request.early {
        return inline("castiron.config.early=", text);
    }
    if let Some(document) = drop_in(&request.root)? {
        return Ok(document);
    }
    looked.push("none in the initramfs".to_owned());
    if let Some(text) = &request.config {
        return named(request, text, fetch, events);
    }
    if let Some(label) = &request.device {
        let label = label.strip_prefix("LABEL=").unwrap_or(label);
        let path = request.path.as_deref().unwrap_or(CONFIG_FILE);
        return on_label(request, label, path)?.ok_or_else(|| absent_label(label));
    }
    looked.push("no castiron.config=".to_owned());
    if let Some(url) = request.dhcp_urls.first() {
        tell(events, Level::Info, format!("DHCP says that the config is at {url}"));
        let document = from_url(request, url, fetch, events)?;
        return Ok(Document { origin: Origin::Offered, ..document });
    }
    looked.push("none from DHCP".to_owned());
    if let Some(document) = on_label(request, LABEL, CONFIG_FILE)? {
        return Ok(document);
    }
    looked.push(format!("no file system labelled {LABEL}"));
    match &request.inline {
        Some(text) => inline("castiron.config.inline=", text),
        None => Err(SourceError::Nothing { looked }),
    }
}

/// `castiron.config=`: a place that must exist.
fn named(
    request: &SourceRequest,
    text: &str,
    fetch: &dyn Fetch,
    events: &mut dyn EventSink,
) -> Result<Document, SourceError> {
    match text.split_once(':') {
        None if text == "none" => Err(SourceError::NotWanted),
        None if text == "inline" && request.inline.is_some() => {
            inline("castiron.config.inline=", request.inline.as_deref().unwrap_or_default())
        }
        Some(("http" | "https" | "tftp", _)) => from_url(request, text, fetch, events),
        Some(("label", place)) => {
            let (label, path) = place.split_once('/').unwrap_or((place, CONFIG_FILE));
            let path = request.variables.fill_plain(path)?;
            on_label(request, label, &path)?.ok_or_else(|| absent_label(label))
        }
        _ => Err(SourceError::Unknown { text: text.to_owned() }),
    }
}

fn absent_label(label: &str) -> SourceError {
    SourceError::Label { label: label.to_owned(), source: LabelError::Absent }
}

fn on_label(request: &SourceRequest, label: &str, path: &str) -> Result<Option<Document>, SourceError> {
    let failed = |source| SourceError::Label { label: label.to_owned(), source };
    let found = label::read(&request.root, label, Path::new(path), CONFIG_MAX, SIGNATURE_MAX).map_err(failed)?;
    Ok(found.map(|(bytes, signature)| Document {
        name: format!("label:{label}/{path}"),
        origin: Origin::Medium,
        bytes,
        signature: signature.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }))
}

/// The config beside the trusted keys in the initramfs.
fn drop_in(root: &Path) -> Result<Option<Document>, SourceError> {
    let path = root.join(DROP_IN);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(Some(Document { name: format!("/{DROP_IN}"), origin: Origin::Initramfs, bytes, signature: None }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SourceError::File { path, source }),
    }
}

/// Base64, of either alphabet, of a document, which may be compressed with zstd.
fn inline(name: &str, text: &str) -> Result<Document, SourceError> {
    let error = || SourceError::Inline { name: name.to_owned() };
    let decoded =
        STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('='))).map_err(|_| error())?;
    let bytes = match decoded.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        false => decoded,
        true => {
            let mut bytes = Vec::new();
            let decoder = zstd::Decoder::new(decoded.as_slice()).map_err(|_| error())?;
            decoder.take(CONFIG_MAX.0 + 1).read_to_end(&mut bytes).map_err(|_| error())?;
            bytes
        }
    };
    if bytes.len() as u64 > CONFIG_MAX.0 {
        return Err(error());
    }
    Ok(Document { name: name.to_owned(), origin: Origin::CommandLine, bytes, signature: None })
}

fn from_url(
    request: &SourceRequest,
    text: &str,
    fetch: &dyn Fetch,
    events: &mut dyn EventSink,
) -> Result<Document, SourceError> {
    let url = request.variables.fill(text)?;
    let deadline = Instant::now() + request.patience;
    let bytes = patiently(&url, CONFIG_MAX, deadline, fetch, events)?;
    let signature = match request.signature {
        false => None,
        true => match patiently(&beside(&url), SIGNATURE_MAX, deadline, fetch, events) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.is_absence() => None,
            Err(error) => return Err(error),
        },
    };
    Ok(Document { name: url, origin: Origin::Foreign, bytes, signature })
}

/// The URL of the signature: `.minisig` after the path, before a query.
fn beside(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    format!("{}.minisig{}", &url[..end], &url[end..])
}

/// Asks again while that may help and time is left, and says so.
fn patiently(
    url: &str,
    max: Bytes,
    deadline: Instant,
    fetch: &dyn Fetch,
    events: &mut dyn EventSink,
) -> Result<Vec<u8>, SourceError> {
    let mut pauses: VecDeque<u64> = PAUSES_SECONDS.into();
    loop {
        let error = match fetch.get(url, max) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let pause = Duration::from_secs(pauses[0]);
        if !error.is_transient() || Instant::now() + pause > deadline {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        tell(events, Level::Warn, format!("{cause}; again in {} s", pause.as_secs()));
        std::thread::sleep(pause);
        if pauses.len() > 1 {
            pauses.pop_front();
        }
    }
}

fn tell(events: &mut dyn EventSink, level: Level, text: String) {
    events.emit(&Event { event_type: EventType::Progress, level, ..Event::start("install/config", text) });
}

#[cfg(test)]
mod tests;
