//! What takes long, kept by digest of its input: downloads, unpacked packages, packed files.
//!
//! Invariant: an entry appears whole or not at all, and is never changed; whoever deletes the folder loses time only.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::appliance::archive;
use castiron_engine::units::Digest;

use crate::commands::Report;

/// The highest level that needs no more memory to unpack than to hold the result (zstd(1)).
const LEVEL: i32 = 19;

pub struct Cache {
    folder: Utf8PathBuf,
}

impl Cache {
    /// `folder`, else `castiron` below the user's cache folder (XDG Base Directory Specification).
    pub fn open(folder: Option<&Utf8Path>) -> Result<Self, Report> {
        let below = |name: &str, rest: &str| {
            std::env::var(name).ok().filter(|path| path.starts_with('/')).map(|path| Utf8PathBuf::from(path).join(rest))
        };
        let folder = folder
            .map(Utf8Path::to_owned)
            .or_else(|| below("XDG_CACHE_HOME", "castiron"))
            .or_else(|| below("HOME", ".cache/castiron"))
            .ok_or_else(|| Report::usage("error: there is no folder for the cache").with_hint("give --cache DIR"))?;
        let cache = Self { folder };
        for part in [cache.downloads(), cache.part("unpacked"), cache.part("packed")] {
            std::fs::create_dir_all(&part)
                .map_err(|cause| Report::failure(format!("error: cannot create {part}\n  cause: {cause}")))?;
        }
        Ok(cache)
    }

    pub fn downloads(&self) -> Utf8PathBuf {
        self.part("downloads")
    }

    fn part(&self, name: &str) -> Utf8PathBuf {
        self.folder.join(name)
    }

    /// Where a package lies unpacked.
    pub fn unpacked(&self, package: Digest) -> Utf8PathBuf {
        self.part("unpacked").join(package.hex())
    }

    /// A new folder beside the cache's entries, removed when dropped.
    pub fn scratch(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix(".scratch-").tempdir_in(&self.folder)
    }

    /// Packs one file of many, on one processor.
    pub fn compress_file(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.packed("file", bytes, |bytes| zstd::bulk::compress(bytes, LEVEL))
    }

    /// Packs one large archive, on all processors.
    pub fn compress_layer(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.packed("layer", bytes, |bytes| archive::compress(bytes, LEVEL))
    }

    fn packed(&self, kind: &str, bytes: &[u8], pack: impl Fn(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        let path = self.part("packed").join(format!("{kind}-{LEVEL}-{}", Digest::of(bytes).hex()));
        if let Ok(packed) = std::fs::read(&path)
            && zstd::bulk::decompress(&packed, bytes.len()).is_ok_and(|unpacked| unpacked == bytes)
        {
            return Ok(packed);
        }
        let packed = pack(bytes)?;
        // A full disk costs time, not the build.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        if io::Write::write_all(&mut file, &packed).is_ok() {
            file.persist(path).ok();
        }
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_used_only_if_it_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Utf8Path::from_path(folder.path())).unwrap();
        let bytes = b"iron ".repeat(1000);
        let packed = cache.compress_file(&bytes).unwrap();
        let entry = std::fs::read_dir(folder.path().join("packed")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read(&entry).unwrap(), packed);
        std::fs::write(&entry, "damaged").unwrap();
        assert_eq!(cache.compress_file(&bytes).unwrap(), packed);
        assert_eq!(std::fs::read(&entry).unwrap(), packed, "a damaged entry is replaced");
    }
}
