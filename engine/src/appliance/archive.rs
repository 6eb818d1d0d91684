//! The initramfs as bytes: a newc cpio archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! In: paths with their content. Out: archive bytes.
//! Invariant: entries are sorted, owned by root, numbered in order and dated by the caller, so the
//! same content gives the same bytes. Parents of every path are there, before what is in them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use cpio::newc::{Builder, ModeFileType, trailer};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// A part of the initramfs, by path without leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// Adds a node and the folders above it; a node that is there already is replaced.
    pub fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.nodes.entry(path[..end].to_owned()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.nodes.insert(path.to_owned(), node);
    }

    pub fn folder(&mut self, path: &str, mode: u32) {
        self.add(path, Node::Folder { mode });
    }

    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(path, Node::File { mode, content: content.into() });
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Node::Link { target: target.to_owned() });
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The archive, every entry dated `modified` (seconds since 1970).
    pub fn to_newc(&self, modified: u32) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Numbers start at one: some readers take zero for "no inode".
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            let (kind, mode, content): (_, _, &[u8]) = match node {
                Node::Folder { mode } => (ModeFileType::Directory, *mode, &[]),
                Node::File { mode, content } => (ModeFileType::Regular, *mode, content),
                Node::Link { target } => (ModeFileType::Symlink, 0o777, target.as_bytes()),
            };
            let size = u32::try_from(content.len()).map_err(|_| {
                io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is too large for a cpio archive (4 GiB)"))
            })?;
            let links = if matches!(node, Node::Folder { .. }) { 2 } else { 1 };
            let entry = Builder::new(path).ino(number).mode(mode).set_mode_file_type(kind).nlink(links).mtime(modified);
            let mut writer = entry.write(bytes, size);
            writer.write_all(content)?;
            bytes = writer.finish()?;
        }
        trailer(bytes)
    }
}

/// Compresses with zstd so that the kernel can unpack it and the bytes do not depend on the number of processors.
pub fn compress(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    // Any number of workers but none gives the same frame.
    encoder.multithread(std::thread::available_parallelism().map_or(1, |count| count.get() as u32))?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_sorted_complete_and_repeatable() {
        let mut archive = Archive::default();
        archive.file("/init", 0o755, "binary");
        archive.link("bin", "usr/bin");
        archive.file("etc/castiron/build-date", 0o644, "1");
        let bytes = archive.to_newc(1_700_000_000).unwrap();
        assert_eq!(bytes, archive.clone().to_newc(1_700_000_000).unwrap());
        let mut rest = bytes.as_slice();
        let mut listing = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 1_700_000_000));
            listing.push(format!("{} {:o} {}", entry.ino(), entry.mode(), entry.name()));
            rest = reader.finish().unwrap();
        }
        assert_eq!(
            listing,
            [
                "1 120777 bin",
                "2 40755 etc",
                "3 40755 etc/castiron",
                "4 100644 etc/castiron/build-date",
                "5 100755 init"
            ]
        );
    }

    #[test]
    fn compression_can_be_undone_and_repeated() {
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let packed = compress(&bytes, 3).unwrap();
        assert_eq!(packed, compress(&bytes, 3).unwrap());
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), bytes);
    }
}
