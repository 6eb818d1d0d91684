//! Bytes that a config points at: `https://…`, `http://…`, `file:///…` or `data:` (RFC 2397).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{FetchError, Fetcher};
use crate::config::source::Resource;
use crate::units::{Bytes, Digest};

#[derive(Debug, Error)]
pub enum ResourceError {
    #[error("cannot get {source_text}")]
    Fetch {
        source_text: String,
        #[source]
        cause: FetchError,
    },
    #[error("`data:` without a comma, or with content that is not what it says")]
    Data,
    #[error("{source_text} is {found}, the config asks for {wanted}")]
    Digest { source_text: String, found: Digest, wanted: Digest },
    #[error("{source_text} is not protected: anyone on the way could change it")]
    Unprotected { source_text: String },
}

impl ResourceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Fetch { .. } => "check the URL and the server",
            Self::Data => "write data:,TEXT or data:;base64,CONTENT",
            Self::Digest { .. } => "correct `verification.hash`, or find out who changed the file",
            Self::Unprotected { .. } => "use https, or add `verification: { hash: sha256-… }`",
        }
    }
}

/// The bytes, checked against the hash that the config gives.
pub fn read(resource: &Resource, fetcher: &Fetcher, max: Bytes) -> Result<Vec<u8>, ResourceError> {
    let source_text = || resource.source.clone();
    let bytes = match resource.source.strip_prefix("data:") {
        Some(data) => decode(data).ok_or(ResourceError::Data)?,
        None if resource.source.starts_with("http:") && resource.verification.is_none() => {
            return Err(ResourceError::Unprotected { source_text: source_text() });
        }
        None => fetcher
            .get_small(&resource.source, max)
            .map_err(|cause| ResourceError::Fetch { source_text: source_text(), cause })?,
    };
    if let Some(verification) = &resource.verification {
        let found = Digest::of(&bytes);
        if found != verification.hash {
            return Err(ResourceError::Digest { source_text: source_text(), found, wanted: verification.hash });
        }
    }
    Ok(bytes)
}

fn decode(data: &str) -> Option<Vec<u8>> {
    let (kind, content) = data.split_once(',')?;
    if kind.ends_with(";base64") {
        return STANDARD.decode(content).ok();
    }
    let mut bytes = Vec::new();
    let mut rest = content.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = [*rest.next()?, *rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_in_both_forms() {
        assert_eq!(decode(",a%20b").as_deref(), Some(&b"a b"[..]));
        assert_eq!(decode("text/plain;base64,aXJvbg==").as_deref(), Some(&b"iron"[..]));
        for broken in ["iron", ",%2", ",%zz", ";base64,*"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
