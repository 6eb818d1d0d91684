//! The HTTP client and one answer of it.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Once;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;

use super::{FetchError, FetchOptions};

/// No server may make us wait longer before the next try.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;

/// Makes ring the provider of TLS primitives for the process; harmless when called again.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Err means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[derive(Debug, thiserror::Error)]
#[error("redirected from https to {0}")]
struct Downgraded(String);

pub(super) fn build(options: &FetchOptions) -> Result<Client, FetchError> {
    install_crypto_provider();
    let failed = |error: reqwest::Error| FetchError::Client(Box::new(error));
    let mut roots = Vec::with_capacity(160);
    for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        roots.push(Certificate::from_der(der).map_err(failed)?);
    }
    for pem in &options.extra_ca_pem {
        roots.extend(Certificate::from_pem_bundle(pem).map_err(failed)?);
    }
    let mut builder = Client::builder()
        .user_agent(&options.user_agent)
        .connect_timeout(options.connect_timeout)
        // For a blocking client this bounds every single wait, not the whole transfer.
        .timeout(options.idle_timeout)
        .pool_max_idle_per_host(16)
        .tls_certs_only(roots)
        .redirect(Policy::custom(|attempt| {
            let secure = attempt.previous().iter().any(|url| url.scheme() == "https");
            if secure && attempt.url().scheme() != "https" {
                let to = attempt.url().to_string();
                attempt.error(Downgraded(to))
            } else if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else {
                attempt.follow()
            }
        }));
    if let Some(proxy) = &options.proxy {
        let no_proxy = options.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(failed)?.no_proxy(no_proxy));
    }
    builder.build().map_err(failed)
}

/// A body and what is known of it before it is read.
pub(super) struct Answer {
    /// Offset of the body's first byte in the whole resource.
    pub start: u64,
    /// Bytes from there on, if announced.
    pub length: Option<u64>,
    /// What to show the server when resuming (RFC 9110, 13.1.5): a strong ETag or Last-Modified.
    pub validator: Option<String>,
    pub body: Box<dyn Read>,
}

/// Asks for `url`, from `resume` (offset, validator) on if the server agrees that nothing has changed.
pub(super) fn open(
    client: &Client,
    url: &str,
    resume: Option<(u64, &str)>,
    idle: Duration,
) -> Result<Answer, FetchError> {
    let parsed = reqwest::Url::parse(url).map_err(|_| FetchError::Unsupported { url: url.to_owned() })?;
    match parsed.scheme() {
        "http" | "https" => open_http(client, url, parsed, resume, idle),
        "file" => open_file(url, &parsed),
        _ => Err(FetchError::Unsupported { url: url.to_owned() }),
    }
}

fn open_file(url: &str, parsed: &reqwest::Url) -> Result<Answer, FetchError> {
    let path = parsed.to_file_path().map_err(|()| FetchError::Unsupported { url: url.to_owned() })?;
    let failed = |source| FetchError::File { url: url.to_owned(), source };
    // A FIFO or device would block or never end.
    if !std::fs::metadata(&path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok(Answer { start: 0, length: Some(length), validator: None, body: Box::new(file) })
}

fn open_http(
    client: &Client,
    url: &str,
    parsed: reqwest::Url,
    resume: Option<(u64, &str)>,
    idle: Duration,
) -> Result<Answer, FetchError> {
    let mut request = client.get(parsed);
    if let Some((offset, validator)) = resume {
        request = request.header(RANGE, format!("bytes={offset}-")).header(IF_RANGE, validator);
    }
    let response = request.send().map_err(|source| request_error(url, source, idle))?;
    let status = response.status();
    let start = match (status, resume) {
        (StatusCode::OK, _) => 0,
        (StatusCode::PARTIAL_CONTENT, Some((offset, _))) if range_start(response.headers()) == Some(offset) => offset,
        _ => {
            return Err(FetchError::Status {
                url: url.to_owned(),
                status: status.as_u16(),
                retry_after: retry_after(&response),
            });
        }
    };
    let length = response.content_length();
    let validator = validator(response.headers());
    Ok(Answer { start, length, validator, body: Box::new(response) })
}

fn validator(headers: &HeaderMap) -> Option<String> {
    if headers.get(ACCEPT_RANGES).is_some_and(|value| value == "none") {
        return None;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// The first offset of `Content-Range: bytes 10-99/100`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn request_error(url: &str, source: reqwest::Error, idle: Duration) -> FetchError {
    let url = url.to_owned();
    let mut refused_certificate = false;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        refused_certificate |= matches!(innermost(error).downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
        if let Some(Downgraded(to)) = error.downcast_ref() {
            return FetchError::Downgrade { url, to: to.clone() };
        }
        cause = error.source();
    }
    // The URL stands in our own message, and credentials in it must not be printed twice.
    let source = source.without_url();
    if refused_certificate {
        FetchError::Certificate { url, source }
    } else if source.is_connect() {
        FetchError::Connect { url, source }
    } else if source.is_timeout() {
        FetchError::Idle { url, idle }
    } else {
        FetchError::Request { url, source }
    }
}

/// What I/O errors wrap: they name its source as their own and pass it over.
fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = wrapped;
    }
    error
}

pub(super) fn body_error(url: &str, source: io::Error, idle: Duration) -> FetchError {
    let url = url.to_owned();
    let timed_out = source.kind() == io::ErrorKind::TimedOut
        || source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<reqwest::Error>())
            .is_some_and(reqwest::Error::is_timeout);
    if timed_out { FetchError::Idle { url, idle } } else { FetchError::Body { url, source } }
}
