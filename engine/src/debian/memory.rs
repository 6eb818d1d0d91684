//! What earlier runs saw of archives, so that nobody can serve an old state of one as its newest.
//!
//! In: a directory, verified Releases. Out: the newest date that was seen of the same archive's suite. An archive is
//! known by a key that signed it and by the names that it signed, never by a mirror: all mirrors of an archive are
//! one, and archives of other keys say nothing about it. One small file for each, named by the digest of the names.

use std::fs;
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};
use tempfile::NamedTempFile;

use super::release::Release;
use crate::units::Digest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    dirs: Vec<Utf8PathBuf>,
}

impl Memory {
    /// A memory in `dir`, which is made when there is something to remember.
    pub fn new(dir: impl Into<Utf8PathBuf>) -> Self {
        Self { dirs: vec![dir.into()] }
    }

    /// What is remembered from now on is written to `dir` as well, to be handed on.
    pub fn and(mut self, dir: impl Into<Utf8PathBuf>) -> Self {
        self.dirs.push(dir.into());
        self
    }

    /// Seconds since 1970: the newest date of a Release with these names that one of these keys signed.
    pub fn newest(&self, release: &Release) -> Option<i64> {
        self.dirs.iter().filter_map(|dir| newest(dir, release)).max()
    }

    /// Keeps the date, wherever no newer one is known.
    pub fn remember(&self, release: &Release) -> io::Result<()> {
        for dir in self.dirs.iter().filter(|dir| newest(dir, release).is_none_or(|newest| newest <= release.date)) {
            fs::create_dir_all(dir)?;
            for path in files(dir, release) {
                let mut file = NamedTempFile::new_in(dir)?;
                // What follows the date is for people who look.
                writeln!(file, "{}\n{} {} {}", release.date, release.origin, release.label, release.codename)?;
                file.persist(path).map_err(|error| error.error)?;
            }
        }
        Ok(())
    }
}

fn newest(dir: &Utf8Path, release: &Release) -> Option<i64> {
    files(dir, release).filter_map(|path| fs::read_to_string(path).ok()?.lines().next()?.parse().ok()).max()
}

/// One file for each key that signed, so that a change of keys forgets nothing.
fn files(dir: &Utf8Path, release: &Release) -> impl Iterator<Item = Utf8PathBuf> {
    release.signed_by.iter().map(move |key| {
        let names = [key.as_str(), &release.origin, &release.label, &release.codename].join("\0");
        dir.join(Digest::of(names.as_bytes()).hex())
    })
}
