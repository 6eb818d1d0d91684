//! The emulator's write log (its `blklogwrites` driver, the format of dm-log-writes): the zero-write oracle.
//!
//! Stronger than comparing a disk before and after: a write that is undone again is still counted.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::host::{Failure, Result, Subject};

const MAGIC: u64 = 0x006a_7366_7773_6872;
/// The emulator's default for a log's own sectors.
const SECTOR_BYTES: u64 = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteLog {
    /// First byte and length of every write, in order.
    pub writes: Vec<(u64, u64)>,
    pub discards: u64,
    pub flushes: u64,
}

impl WriteLog {
    /// Requests that would have changed the disk.
    pub fn changes(&self) -> u64 {
        self.writes.len() as u64 + self.discards
    }

    pub fn bytes_written(&self) -> u64 {
        self.writes.iter().map(|(_, length)| length).sum()
    }

    /// Reads a log, to its last whole entry: after a power cut the count in its first sector lags behind.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = std::fs::File::open(path).on(path.display())?;
        let size = file.metadata().on(path.display())?.len();
        let mut log = Self::default();
        let mut head = [0; 28];
        if size < SECTOR_BYTES {
            return Ok(log); // nothing was logged
        }
        file.read_exact(&mut head).on(path.display())?;
        let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let sector = match (word(&head, 0), word(&head, 8)) {
            (0, 0) => SECTOR_BYTES, // before the first flush
            (MAGIC, 1) => u64::from(u32::from_le_bytes(head[24..28].try_into().expect("four bytes"))),
            _ => return Err(Failure(format!("{}: not a write log of version 1", path.display()))),
        };
        let mut at = sector;
        while at + sector <= size {
            let mut entry = [0; 32];
            file.seek(SeekFrom::Start(at)).on(path.display())?;
            file.read_exact(&mut entry).on(path.display())?;
            let (first, count, flags) = (word(&entry, 0), word(&entry, 8), word(&entry, 16));
            if (first, count, flags) == (0, 0, 0) {
                break; // never a request: the file ends in a hole here
            }
            at += sector;
            match flags {
                _ if flags & MARK != 0 => {}
                _ if flags & DISCARD != 0 => log.discards += 1,
                _ => {
                    if flags & FLUSH != 0 {
                        log.flushes += 1;
                    }
                    if count > 0 {
                        log.writes.push((first * sector, count * sector));
                        at += count * sector;
                    }
                }
            }
        }
        Ok(log)
    }
}
