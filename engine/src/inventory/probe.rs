//! What lies on a disk or partition: superblocks and partition tables.
//!
//! In: anything that can be read at an offset, and its size. Out: [`Signature`]s in blkid's words, members of
//! something larger (RAID, LVM, encryption) first. Invariant: nothing is written; what cannot be read is an error,
//! so that a broken disk never looks empty.

mod filesystems;
mod members;
pub mod table;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Seek, SeekFrom};

use super::disk::Signature;

pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A device of known size.
pub struct Source<'a> {
    reader: &'a mut dyn ReadSeek,
    /// In bytes.
    pub size: u64,
    /// Of the disk it is or lies on.
    pub sector_size: u64,
}

impl<'a> Source<'a> {
    pub fn new(reader: &'a mut dyn ReadSeek, size: u64, sector_size: u64) -> Self {
        Self { reader, size, sector_size }
    }

    /// None when that lies beyond the end.
    pub fn at<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        Ok(self.fill(offset, &mut bytes)?.then_some(bytes))
    }

    /// As [`Self::at`], into what is there.
    fn fill(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<bool> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Ok(false);
        }
        self.reader.seek(SeekFrom::Start(offset))?;
        self.reader.read_exact(bytes)?;
        Ok(true)
    }

    fn has(&mut self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        let mut bytes = [0; 32];
        let bytes = &mut bytes[..magic.len()];
        Ok(self.fill(offset, bytes)? && bytes == magic)
    }
}

/// All superblocks that are found, without the partition table.
pub fn superblocks(source: &mut Source<'_>) -> io::Result<Vec<Signature>> {
    let mut found = Vec::new();
    for probe in members::PROBES.iter().chain(filesystems::PROBES) {
        found.extend(probe(source)?);
    }
    for (kind, offset, magic) in PLAIN {
        if source.has(*offset, magic)? {
            found.push(Signature::plain(kind));
        }
    }
    Ok(found)
}

type Probe = fn(&mut Source<'_>) -> io::Result<Option<Signature>>;

/// What is only recognised: name, offset in bytes, bytes.
const PLAIN: &[(&str, u64, &[u8])] = &[
    ("BitLocker", 3, b"-FVE-FS-"),
    ("ReFS", 3, b"ReFS\0\0\0\0"),
    ("ceph_bluestore", 0, b"bluestore block device"),
    ("VMFS_volume_member", 0x10_0000, &0xc001_d00d_u32.to_le_bytes()),
    ("VMFS", 0x20_0000, &0x2fab_f15e_u32.to_le_bytes()),
    ("apfs", 32, b"NXSB"),
    ("cramfs", 0, &0x28cd_3d45_u32.to_le_bytes()),
    ("gfs2", 0x1_0000, &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1]),
    ("hfsplus", 1024, b"H+\0\x04"),
    ("jfs", 0x8000, b"JFS1"),
    ("ocfs2", 1024, b"OCFSV2"),
    ("ocfs2", 2048, b"OCFSV2"),
    ("ocfs2", 4096, b"OCFSV2"),
    ("reiserfs", 0x1_0034, b"ReIsErFs"),
    ("reiserfs", 0x1_0034, b"ReIsEr2Fs"),
    ("squashfs", 0, b"hsqs"),
    ("stratis", 516, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("udf", 0x8001, b"BEA01"),
];

impl Signature {
    fn plain(kind: &str) -> Self {
        Self { kind: kind.to_owned(), label: None, uuid: None }
    }

    fn new(kind: &str, label: Option<String>, uuid: Option<String>) -> Self {
        Self { kind: kind.to_owned(), label, uuid }
    }
}

/// Up to the first NUL, without blanks at the end; bytes that are no UTF-8 are replaced.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

/// None when all bytes are zero.
fn uuid(bytes: &[u8]) -> Option<String> {
    uuid::Uuid::from_slice(bytes).ok().filter(|uuid| !uuid.is_nil()).map(|uuid| uuid.to_string())
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}
