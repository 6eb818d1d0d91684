//! GUID partition tables as bytes (UEFI 2.10, chapter 5.3). In: a table and the disk's geometry.
//! Out: the sectors to write. Invariant: no I/O; the same table always gives the same bytes.
//!
//! The `gpt` crate reads tables for the inventory and checks ours in the tests. It does not write them: it closes
//! gaps in the numbering (1, 14, 15 become 1, 2, 3), and a layout with numbers of its own would not survive that.

use thiserror::Error;
use uuid::Uuid;

use super::mbr::REFUSE_TO_BOOT;
use super::table::Table;
use crate::units::Bytes;

const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const HEADER_SIZE: u32 = 92;
const NAME_UNITS_MAX: usize = 36;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum GptError {
    #[error("partition `{node}` has number {number}; a GPT of {ENTRIES} entries counts from 1")]
    Number { node: String, number: u32 },
    #[error("partition `{0}` lies outside the usable part of the disk")]
    Outside(String),
    #[error("partitions `{0}` and `{1}` overlap")]
    Overlap(String, String),
    #[error("the name of partition `{0}` is longer than {NAME_UNITS_MAX} UTF-16 units")]
    Name(String),
}

/// What lies where on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub sector: u64,
    pub sectors: u64,
}

impl Geometry {
    pub fn new(disk: Bytes, sector: Bytes) -> Self {
        Self { sector: sector.0, sectors: disk.0 / sector.0 }
    }

    fn entry_sectors(self) -> u64 {
        u64::from(ENTRIES * ENTRY_SIZE).div_ceil(self.sector)
    }

    /// The first sector that a partition may have.
    pub fn first_usable(self) -> u64 {
        2 + self.entry_sectors()
    }

    /// The last sector that a partition may have.
    pub fn last_usable(self) -> u64 {
        self.sectors - 2 - self.entry_sectors()
    }
}

/// Pieces of the disk, as offset in bytes and content: protective MBR, both headers, both arrays.
pub fn pieces(table: &Table, disk: Bytes, sector: Bytes) -> Result<Vec<(Bytes, Vec<u8>)>, GptError> {
    let geometry = Geometry::new(disk, sector);
    check(table, geometry)?;
    let entries = entries(table, geometry)?;
    let last = geometry.sectors - 1;
    let backup_entries = last - geometry.entry_sectors();
    let at = |lba: u64| Bytes(lba * geometry.sector);
    Ok(vec![
        (at(last), header(table, geometry, &entries, last, 1, backup_entries)),
        (at(backup_entries), entries.clone()),
        (at(2), entries.clone()),
        (at(1), header(table, geometry, &entries, 1, last, 2)),
        (at(0), protective_mbr(geometry)),
    ])
}

fn check(table: &Table, geometry: Geometry) -> Result<(), GptError> {
    let (first, last) = (geometry.first_usable() * geometry.sector, (geometry.last_usable() + 1) * geometry.sector);
    let mut placed: Vec<_> = table.partitions.iter().collect();
    placed.sort_by_key(|partition| partition.start);
    for partition in &placed {
        if !(1..=ENTRIES).contains(&partition.number) {
            return Err(GptError::Number { node: partition.node.to_string(), number: partition.number });
        }
        let end = partition.start.0.checked_add(partition.length.0);
        if partition.start.0 < first || end.is_none_or(|end| end > last) || partition.length == Bytes::ZERO {
            return Err(GptError::Outside(partition.node.to_string()));
        }
    }
    for pair in placed.windows(2) {
        if pair[0].start + pair[0].length > pair[1].start {
            return Err(GptError::Overlap(pair[0].node.to_string(), pair[1].node.to_string()));
        }
    }
    Ok(())
}

fn entries(table: &Table, geometry: Geometry) -> Result<Vec<u8>, GptError> {
    let mut array = vec![0; (ENTRIES * ENTRY_SIZE) as usize];
    for partition in &table.partitions {
        let offset = ((partition.number - 1) * ENTRY_SIZE) as usize;
        let entry = &mut array[offset..offset + ENTRY_SIZE as usize];
        let first = partition.start.0 / geometry.sector;
        let last = first + partition.length.0 / geometry.sector - 1;
        entry[0..16].copy_from_slice(&partition.type_guid.to_bytes_le());
        entry[16..32].copy_from_slice(&partition.uuid.to_bytes_le());
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        let name: Vec<u16> = partition.name.encode_utf16().collect();
        if name.len() > NAME_UNITS_MAX {
            return Err(GptError::Name(partition.node.to_string()));
        }
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(name) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    Ok(array)
}

/// UEFI 2.10, table 5.5.
fn header(table: &Table, geometry: Geometry, entries: &[u8], own: u64, other: u64, array: u64) -> Vec<u8> {
    let mut sector = vec![0; geometry.sector as usize];
    sector[0..8].copy_from_slice(b"EFI PART");
    sector[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    sector[12..16].copy_from_slice(&HEADER_SIZE.to_le_bytes());
    sector[24..32].copy_from_slice(&own.to_le_bytes());
    sector[32..40].copy_from_slice(&other.to_le_bytes());
    sector[40..48].copy_from_slice(&geometry.first_usable().to_le_bytes());
    sector[48..56].copy_from_slice(&geometry.last_usable().to_le_bytes());
    sector[56..72].copy_from_slice(&guid(table.uuid));
    sector[72..80].copy_from_slice(&array.to_le_bytes());
    sector[80..84].copy_from_slice(&ENTRIES.to_le_bytes());
    sector[84..88].copy_from_slice(&ENTRY_SIZE.to_le_bytes());
    sector[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let checksum = crc32fast::hash(&sector[..HEADER_SIZE as usize]);
    sector[16..20].copy_from_slice(&checksum.to_le_bytes());
    sector
}

fn guid(uuid: Uuid) -> [u8; 16] {
    uuid.to_bytes_le()
}

/// UEFI 2.10, 5.2.3; the boot code passes over the disk until a loader replaces it.
fn protective_mbr(geometry: Geometry) -> Vec<u8> {
    let mut sector = vec![0; geometry.sector as usize];
    sector[..REFUSE_TO_BOOT.len()].copy_from_slice(REFUSE_TO_BOOT);
    let size = u32::try_from(geometry.sectors - 1).unwrap_or(u32::MAX);
    sector[446..454].copy_from_slice(&[0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    sector[454..458].copy_from_slice(&1u32.to_le_bytes());
    sector[458..462].copy_from_slice(&size.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::table::{ESP, LINUX_DATA, Partition, TableKind};
    use crate::units::NodeId;

    fn partition(number: u32, start: u64, length: u64) -> Partition {
        Partition {
            node: NodeId::new(format!("p{number}")),
            number,
            start: Bytes::mib(start),
            length: Bytes::mib(length),
            type_guid: if number == 14 { ESP } else { LINUX_DATA },
            type_byte: 0x83,
            uuid: Uuid::from_u128(number.into()),
            name: format!("part {number} ü"),
            active: false,
        }
    }

    fn table(partitions: Vec<Partition>) -> Table {
        Table { base: NodeId::new("disk"), kind: TableKind::Gpt, uuid: Uuid::from_u128(7), partitions }
    }

    fn disk(table: &Table, size: Bytes, sector: Bytes) -> Vec<u8> {
        let mut disk = vec![0; size.0 as usize];
        for (offset, piece) in pieces(table, size, sector).expect("a valid table") {
            disk[offset.0 as usize..][..piece.len()].copy_from_slice(&piece);
        }
        disk
    }

    /// An independent reader must see what was meant, in both copies, for both sector sizes.
    #[test]
    fn another_reader_sees_the_same_table() {
        for (sector, block) in
            [(512, ::gpt::disk::LogicalBlockSize::Lb512), (4096, ::gpt::disk::LogicalBlockSize::Lb4096)]
        {
            let table = table(vec![partition(1, 4, 8), partition(14, 12, 4), partition(15, 16, 2)]);
            let mut bytes = disk(&table, Bytes::mib(32), Bytes(sector));
            for wreck_primary in [false, true] {
                if wreck_primary {
                    bytes[sector as usize..][..512].fill(0);
                }
                let read = ::gpt::GptConfig::new()
                    .writable(false)
                    .logical_block_size(block)
                    .open_from_device(std::io::Cursor::new(bytes.clone()))
                    .expect("a readable table");
                let seen: Vec<_> = read
                    .partitions()
                    .iter()
                    .map(|(number, entry)| (*number, entry.first_lba * sector, entry.part_guid, entry.name.clone()))
                    .collect();
                let meant: Vec<_> =
                    table.partitions.iter().map(|p| (p.number, p.start.0, p.uuid, p.name.clone())).collect();
                assert_eq!(seen, meant);
                assert_eq!(read.guid(), &table.uuid);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refuse = |partitions| pieces(&table(partitions), Bytes::mib(32), Bytes(512)).unwrap_err();
        assert_eq!(refuse(vec![partition(0, 4, 4)]), GptError::Number { node: "p0".into(), number: 0 });
        assert_eq!(refuse(vec![partition(1, 4, 28)]), GptError::Outside("p1".into()));
        assert_eq!(refuse(vec![partition(1, 0, 2)]), GptError::Outside("p1".into()));
        assert_eq!(refuse(vec![partition(2, 8, 8), partition(1, 4, 5)]), GptError::Overlap("p1".into(), "p2".into()));
    }

    #[test]
    fn firmware_passes_over_the_disk_until_a_loader_is_written() {
        let bytes = disk(&table(vec![partition(1, 4, 8)]), Bytes::mib(32), Bytes(512));
        assert_eq!(&bytes[..REFUSE_TO_BOOT.len()], REFUSE_TO_BOOT);
        assert_eq!(bytes[450], 0xee);
    }
}
