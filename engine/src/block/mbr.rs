//! Master boot records as bytes, by the `mbrman` crate. In: a table. Out: sector 0.
//! Invariant: no I/O; primary partitions only, at most four.

use std::io::Cursor;

use mbrman::{BOOT_ACTIVE, BOOT_INACTIVE, CHS, MBRHeader, MBRPartitionEntry};
use thiserror::Error;

use super::table::Table;
use crate::units::Bytes;

/// Puts a message on the screen, then asks the BIOS for the next boot device (`int 18h`). It stands
/// in the boot sector until the real loader is written, so that firmware passes over a disk whose
/// installation was cut short.
pub const REFUSE_TO_BOOT: &[u8] = b"\x31\xc0\x8e\xd8\xbe\x18\x7c\xac\x84\xc0\x74\x09\xb4\x0e\xbb\x07\x00\xcd\x10\xeb\xf2\xcd\x18\xf4castiron: installation incomplete\r\n\0";

#[derive(Debug, Error)]
pub enum MbrError {
    #[error("an MBR holds four primary partitions, the table has number {0}; use label gpt")]
    TooMany(u32),
    #[error("partition `{0}` reaches beyond 2 TiB, which an MBR cannot express; use label gpt")]
    TooFar(String),
    #[error("cannot write the MBR")]
    Write(#[source] mbrman::Error),
}

/// Sector 0 with the boot code of an incomplete disk.
pub fn sector(table: &Table, sector_size: Bytes) -> Result<Vec<u8>, MbrError> {
    let mut header = MBRHeader::new(table.mbr_signature());
    for partition in &table.partitions {
        let entry = match partition.number {
            1 => &mut header.partition_1,
            2 => &mut header.partition_2,
            3 => &mut header.partition_3,
            4 => &mut header.partition_4,
            more => return Err(MbrError::TooMany(more)),
        };
        let too_far = |_| MbrError::TooFar(partition.node.to_string());
        *entry = MBRPartitionEntry {
            boot: if partition.active { BOOT_ACTIVE } else { BOOT_INACTIVE },
            first_chs: CHS::empty(),
            sys: partition.type_byte,
            last_chs: CHS::empty(),
            starting_lba: u32::try_from(partition.start.0 / sector_size.0).map_err(too_far)?,
            sectors: u32::try_from(partition.length.0 / sector_size.0).map_err(too_far)?,
        };
    }
    let mut sector = Cursor::new(vec![0; sector_size.0 as usize]);
    header.write_into(&mut sector).map_err(MbrError::Write)?;
    let mut bytes = sector.into_inner();
    bytes[..REFUSE_TO_BOOT.len()].copy_from_slice(REFUSE_TO_BOOT);
    Ok(bytes)
}
