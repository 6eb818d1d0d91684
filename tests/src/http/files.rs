//! Files below a folder, confined to it.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::wire::{Request, Response};
use super::{Answer, file_response};

pub struct Folder {
    pub prefix: String,
    pub folder: PathBuf,
}

impl Answer for Folder {
    fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.path.split('?').next()?.strip_prefix(&self.prefix)?;
        let below = PathBuf::from(decode(path.trim_start_matches('/')));
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            return None;
        }
        file_response(self.folder.join(below)).ok()
    }
}

/// Percent-decoding, RFC 3986 section 2.1; what is no escape stays as it is.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(OsStr::to_str) {
        Some("yaml" | "ipxe" | "txt" | "minisig") => "text/plain",
        Some("json") => "application/json",
        Some("efi") => "application/efi",
        _ => "application/octet-stream",
    }
}
