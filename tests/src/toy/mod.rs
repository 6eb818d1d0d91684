//! A toy Debian: a signed suite of small packages that installs and boots in seconds.
//!
//! In: a few real packages of the host's archive, trimmed to what runs, and hand-made ones that behave badly on
//! purpose. Out: an [`Archive`] on disk, and what a system installed from it says on its console when it is up.
//! Invariant: nothing here is special to castiron; any tool that can bootstrap Debian can bootstrap the toy.

mod archive;
mod package;
pub mod real;
mod recipes;
pub mod tar;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

pub use archive::{Archive, ArchiveKey, SUITE};
pub use package::{Codec, Package};
pub use recipes::{BASE, BROKEN, MISCHIEF, REPORT, UP};

use crate::host::{self, Failure, Result, Subject};

/// Writes the toy archive below `folder`, which must be empty.
pub fn write(folder: &Path) -> Result<Archive> {
    Archive::write(folder, &recipes::all()?)
}

/// What an installed toy said about itself: the last word on each name.
pub fn report(console: &str) -> BTreeMap<String, String> {
    let lines = console.lines().filter_map(|line| line.trim_end().split_once(REPORT).map(|(_, said)| said));
    lines
        .filter_map(|said| said.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The toy archive, made when a process first asks for it. One process at a time has it.
pub fn shared() -> Result<&'static Archive> {
    static SHARED: OnceLock<Result<(Archive, File), String>> = OnceLock::new();
    let make = || {
        let path = host::scratch("")?.join("toy.lock");
        let lock = File::create(&path).on(path.display())?;
        lock.lock().on(path.display())?;
        Ok((write(&host::fresh("toy")?)?, lock))
    };
    let made = SHARED.get_or_init(|| make().map_err(|failure: Failure| failure.0));
    made.as_ref().map(|(archive, _)| archive).map_err(|text| Failure(text.clone()))
}

#[cfg(test)]
mod tests;
