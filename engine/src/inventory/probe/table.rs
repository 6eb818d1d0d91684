//! Partition tables as they are found, read by the `gpt` and `mbrman` crates.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{ReadSeek, Signature, Source, le32};
use crate::inventory::disk::Partition;
use crate::units::Bytes;

/// A table and its partitions, which have no kernel names and no file systems yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub signature: Signature,
    pub partitions: Vec<Partition>,
}

/// The table of a whole disk. A boot sector that belongs to a file system is none.
pub fn read(source: &mut Source<'_>, superblocks: &[Signature]) -> io::Result<Option<Found>> {
    if let Some(found) = gpt(source)? {
        return Ok(Some(found));
    }
    let owns_boot_sector =
        |signature: &Signature| matches!(signature.kind.as_str(), "vfat" | "ntfs" | "exfat" | "BitLocker" | "ReFS");
    if superblocks.iter().any(owns_boot_sector) {
        return Ok(None);
    }
    mbr(source)
}

/// UEFI 2.10 section 5.3. A header of either sector size counts, also the one at the end alone.
fn gpt(source: &mut Source<'_>) -> io::Result<Option<Found>> {
    let sector_sizes = [source.sector_size, 512, 4096];
    for sector_size in sector_sizes {
        let block_size = match sector_size {
            4096 => ::gpt::disk::LogicalBlockSize::Lb4096,
            _ => ::gpt::disk::LogicalBlockSize::Lb512,
        };
        let last = source.size.saturating_sub(sector_size) / sector_size * sector_size;
        if !source.has(sector_size, b"EFI PART")? && !source.has(last, b"EFI PART")? {
            continue;
        }
        let device = ReadOnly { reader: &mut *source.reader };
        let config = ::gpt::GptConfig::new().writable(false).logical_block_size(block_size);
        return Ok(Some(match config.open_from_device(device) {
            Ok(disk) => Found {
                signature: Signature::new("gpt", None, Some(disk.guid().to_string())),
                partitions: gpt_partitions(disk.partitions(), sector_size),
            },
            // Its digests are wrong: there was one, and nobody knows what it said.
            Err(_) => Found { signature: Signature::plain("gpt"), partitions: Vec::new() },
        }));
    }
    Ok(None)
}

fn gpt_partitions(
    table: &std::collections::BTreeMap<u32, ::gpt::partition::Partition>,
    sector_size: u64,
) -> Vec<Partition> {
    let bytes = |sectors: u64| Bytes(sectors.saturating_mul(sector_size));
    table
        .iter()
        .filter(|(_, entry)| entry.is_used())
        .map(|(number, entry)| Partition {
            number: *number,
            start: bytes(entry.first_lba),
            size: bytes(entry.last_lba.saturating_sub(entry.first_lba).saturating_add(1)),
            r#type: Some(entry.part_type_guid.guid.to_string().to_lowercase()),
            label: super::text(entry.name.as_bytes()),
            uuid: Some(entry.part_guid.to_string()),
            ..Partition::default()
        })
        .collect()
}

/// The classic table: four entries in the first sector, logical partitions in a chain.
fn mbr(source: &mut Source<'_>) -> io::Result<Option<Found>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    let flags_are_possible = (0..4).all(|index| matches!(block[446 + 16 * index], 0 | 0x80));
    if block[510..] != [0x55, 0xaa] || !flags_are_possible {
        return Ok(None);
    }
    let id = format!("{:08x}", le32(&block, 440));
    let mut cursor = io::Cursor::new(block);
    let Ok(header) = mbrman::MBRHeader::read_from(&mut cursor) else { return Ok(None) };
    let mut entries: Vec<(usize, mbrman::MBRPartitionEntry)> =
        header.iter().map(|(number, entry)| (number, entry.clone())).collect();
    if header.iter().any(|(_, entry)| entry.is_extended()) {
        let sector_size = u32::try_from(source.sector_size).unwrap_or(512);
        let mut reader = ReadOnly { reader: &mut *source.reader };
        if let Ok(table) = mbrman::MBR::read_from(&mut reader, sector_size) {
            entries = table.iter().map(|(number, entry)| (number, entry.clone())).collect();
        }
    }
    let bytes = |sectors: u32| Bytes(u64::from(sectors).saturating_mul(source.sector_size));
    let partitions = entries
        .iter()
        .filter(|(_, entry)| entry.is_used())
        .map(|(number, entry)| Partition {
            number: *number as u32,
            start: bytes(entry.starting_lba),
            size: bytes(entry.sectors),
            r#type: Some(format!("0x{:x}", entry.sys)),
            uuid: Some(format!("{id}-{number:02x}")),
            ..Partition::default()
        })
        .collect();
    Ok(Some(Found { signature: Signature::new("dos", None, Some(id)), partitions }))
}

/// The `gpt` crate asks for a device that can be written, also where it only reads.
struct ReadOnly<'a> {
    reader: &'a mut dyn ReadSeek,
}

impl std::fmt::Debug for ReadOnly<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ReadOnly")
    }
}

impl Read for ReadOnly<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reader.read(bytes)
    }
}

impl Seek for ReadOnly<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.reader.seek(position)
    }
}

impl Write for ReadOnly<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
