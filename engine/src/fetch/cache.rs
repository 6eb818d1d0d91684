//! Content kept by its SHA-256, shared by any number of processes.
//!
//! Invariants: an entry appears complete or not at all (written aside, then renamed); every entry is
//! hashed again when it is read, and a rotten one is removed, so it counts as absent.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Expected, FetchError};
use crate::units::Digest;

#[derive(Clone, Debug)]
pub struct Cache {
    dir: Utf8PathBuf,
}

impl Cache {
    /// A cache in `dir`, which is created with the first entry.
    pub fn new(dir: impl Into<Utf8PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Where an entry lives: `sha256/ab/abcdef…`.
    pub fn path(&self, digest: Digest) -> Utf8PathBuf {
        let hex = digest.hex();
        self.dir.join("sha256").join(&hex[..2]).join(hex)
    }

    /// An entry's bytes, verified.
    pub fn read(&self, expected: Expected) -> Option<Vec<u8>> {
        let path = self.path(expected.digest);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        let whole = file.metadata().ok()?.len() == expected.size.0 && file.read_to_end(&mut bytes).is_ok();
        if whole && Digest::of(&bytes) == expected.digest {
            return Some(bytes);
        }
        self.discard(&path);
        None
    }

    /// An entry's file at its start, its content verified.
    pub fn open(&self, expected: Expected) -> Option<File> {
        let path = self.path(expected.digest);
        let mut file = File::open(&path).ok()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        let mut size = 0;
        let readable = loop {
            match file.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
                Err(_) => break false,
            }
        };
        if readable && size == expected.size.0 && Digest(hasher.finalize().into()) == expected.digest {
            file.seek(SeekFrom::Start(0)).ok()?;
            return Some(file);
        }
        self.discard(&path);
        None
    }

    /// Adds bytes that the caller has verified against `digest`.
    pub fn store(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let mut entry = self.begin()?;
        entry.write_all(bytes)?;
        self.commit(entry, digest).map(drop)
    }

    /// A file aside, removed unless it is committed.
    pub(super) fn begin(&self) -> io::Result<NamedTempFile> {
        let aside = self.dir.join("tmp");
        fs::create_dir_all(&aside)?;
        NamedTempFile::new_in(aside)
    }

    pub(super) fn commit(&self, entry: NamedTempFile, digest: Digest) -> io::Result<File> {
        let path = self.path(digest);
        fs::create_dir_all(path.parent().expect("an entry lies in a directory"))?;
        entry.persist(path).map_err(|error| error.error)
    }

    pub(super) fn error(&self, source: io::Error) -> FetchError {
        FetchError::Cache { path: self.dir.clone(), source }
    }

    fn discard(&self, path: &Utf8Path) {
        tracing::warn!(%path, "cache entry does not match its digest, removed");
        // It may be gone already, by another process: then it is as we want it.
        let _ = fs::remove_file(path);
    }
}
