//! Why a fetch failed: the URL, the rule and what may help.

use std::fmt;
use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use thiserror::Error;

use super::Expected;
use crate::units::Bytes;

#[derive(Debug, Error)]
pub enum FetchError {
    #[error("no URL to fetch from")]
    NoUrl,
    #[error("{url} is not a URL that can be fetched")]
    Unsupported { url: String },
    #[error("cannot set up the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{url}: the server answers {status}")]
    Status { url: String, status: u16, retry_after: Option<Duration> },
    #[error("{url}: cannot connect")]
    Connect {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// RFC 5280, by the system's clock.
    #[error("{url}: the server's certificate is refused")]
    Certificate {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url}: the request failed")]
    Request {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url}: redirected from https to {to}")]
    Downgrade { url: String, to: String },
    #[error("{url}: nothing received for {} s", idle.as_secs())]
    Idle { url: String, idle: Duration },
    #[error("{url}: the connection broke")]
    Body {
        url: String,
        #[source]
        source: io::Error,
    },
    #[error("{url}: ended after {} bytes of {}", received.0, announced.0)]
    Broken { url: String, received: Bytes, announced: Bytes },
    #[error("{url}: longer than the {} bytes allowed{}", max.0, found.map(|found| format!(" ({} bytes)", found.0)).unwrap_or_default())]
    TooLong { url: String, max: Bytes, found: Option<Bytes> },
    #[error("{url}: {mismatch}")]
    Mismatch { url: String, mismatch: Box<Mismatch> },
    #[error("cannot read {url}")]
    File {
        url: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the bytes received")]
    Spool(#[source] io::Error),
    #[error("cannot use the cache {path}")]
    Cache {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What came instead of what was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub expected: Expected,
    pub found: Expected,
    /// What came is a web page.
    pub html: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, found, .. } = self;
        let show = |content: &Expected| format!("{} bytes with {}", content.size.0, content.digest);
        write!(out, "wrong content: expected {}, got {}", show(expected), show(found))
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Worth another try, after the pause the server asked for.
    Transient(Option<Duration>),
    /// The bytes were wrong.
    Spoilt,
    Permanent,
}

impl FetchError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoUrl | Self::Unsupported { .. } => "fetch.url",
            Self::Client(_) => "fetch.client",
            Self::Status { .. } => "fetch.status",
            Self::Connect { .. } => "fetch.connect",
            Self::Certificate { .. } => "fetch.certificate",
            Self::Request { .. } | Self::Body { .. } | Self::Broken { .. } => "fetch.transfer",
            Self::Downgrade { .. } => "fetch.downgrade",
            Self::Idle { .. } => "fetch.idle",
            Self::TooLong { .. } => "fetch.length",
            Self::Mismatch { .. } => "fetch.digest",
            Self::File { .. } => "fetch.file",
            Self::Spool(_) => "fetch.spool",
            Self::Cache { .. } => "fetch.cache",
        }
    }

    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoUrl => "name a mirror",
            Self::Unsupported { .. } => "write http://, https:// or file:///",
            Self::Status { status: 401 | 403, .. } => "the server wants credentials or forbids this address",
            Self::Status { status: 404 | 410, .. } => "check the mirror's path and that it carries this suite",
            Self::Status { status: 407, .. } => "the proxy wants credentials: http://user:password@proxy:port/",
            Self::Status { .. } => "the server has trouble; try later or another mirror",
            Self::Connect { .. } => "check the network, the name server and the proxy",
            Self::Certificate { .. } => {
                "check the server's name, this machine's clock, and that the authority is known here (castiron.ca=, or the \
                 system's certificates)"
            }
            Self::Downgrade { .. } => "use the http URL itself if plain text is what you want",
            Self::Mismatch { mismatch, .. } if mismatch.html => {
                "this is a web page: a captive portal or a proxy answers instead of the server"
            }
            Self::Mismatch { .. } => "the mirror or a proxy is out of date or damaged; try another mirror",
            Self::TooLong { .. } => "this is not the file that was expected, or it has grown past what is reasonable",
            Self::Client(_) | Self::Request { .. } | Self::Idle { .. } | Self::Body { .. } | Self::Broken { .. } => {
                return None;
            }
            Self::File { .. } | Self::Spool(_) | Self::Cache { .. } => return None,
        };
        Some(hint.to_owned())
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Status { status: 408 | 425 | 429 | 500 | 502 | 503 | 504, retry_after, .. } => {
                Verdict::Transient(*retry_after)
            }
            Self::Connect { .. }
            | Self::Request { .. }
            | Self::Idle { .. }
            | Self::Body { .. }
            | Self::Broken { .. } => Verdict::Transient(None),
            Self::Mismatch { .. } => Verdict::Spoilt,
            Self::Status { .. }
            | Self::NoUrl
            | Self::Unsupported { .. }
            | Self::Client(_)
            | Self::Certificate { .. }
            | Self::Downgrade { .. }
            | Self::TooLong { .. }
            | Self::File { .. }
            | Self::Spool(_)
            | Self::Cache { .. } => Verdict::Permanent,
        }
    }
}
