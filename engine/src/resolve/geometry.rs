//! Where partitions lie, in bytes.
//!
//! In: a disk's size and sector, the alignment, the sizes as written. Out: start and length of each, or how
//! much is missing. Invariant: partitions keep their order, do not overlap, begin at the alignment, are whole
//! sectors long, and leave the table's own sectors alone.

use crate::block::gpt::Geometry;
use crate::block::table::TableKind;
use crate::config::values::Size;
use crate::units::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub start: Bytes,
    pub length: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The first partition that does not fit.
    pub index: usize,
    /// The size that is enough; none is when something follows a partition that takes all.
    pub need: Option<Bytes>,
}

/// The bytes that partitions may use: from, and up to but without.
fn usable(kind: TableKind, disk: Bytes, sector: Bytes, align: Bytes) -> Option<(u64, u64)> {
    match kind {
        TableKind::Gpt => {
            // Two headers, two arrays, and at least one sector between them.
            let least = sector.0.checked_mul(70)?;
            if disk.0 < least {
                return None;
            }
            let geometry = Geometry::new(disk, sector);
            let first = (geometry.first_usable() * sector.0).div_ceil(align.0) * align.0;
            Some((first, (geometry.last_usable() + 1) * sector.0))
        }
        // dib holds back one alignment at the end, so the same layout gives the same sizes; an MBR counts
        // sectors with 32 bits.
        TableKind::Mbr => {
            let counted = sector.0.saturating_mul(u64::from(u32::MAX));
            Some((align.0, disk.0.checked_sub(align.0)?.min(counted)))
        }
    }
}

/// Places partitions of the written sizes one after the other. A share is one of what is left when it is the
/// partition's turn, as in dib.
pub fn place(
    kind: TableKind,
    disk: Bytes,
    sector: Bytes,
    align: Bytes,
    sizes: &[Size],
) -> Result<Vec<Extent>, TooSmall> {
    let too_small = |index| TooSmall { index, need: enough(kind, sector, align, sizes) };
    let (mut start, end) = usable(kind, disk, sector, align).ok_or_else(|| too_small(0))?;
    let mut extents = Vec::with_capacity(sizes.len());
    for (index, size) in sizes.iter().enumerate() {
        let free = end.checked_sub(start).ok_or_else(|| too_small(index))?;
        let length = match *size {
            Size::Exact(bytes) => bytes.0.div_ceil(sector.0).checked_mul(sector.0).ok_or_else(|| too_small(index))?,
            Size::Share(hundredths) => {
                let share = u128::from(free) * u128::from(hundredths) / 10_000;
                u64::try_from(share).unwrap_or(u64::MAX) / align.0 * align.0
            }
        };
        if length == 0 || length > free {
            return Err(too_small(index));
        }
        extents.push(Extent { start: Bytes(start), length: Bytes(length) });
        // Beyond the end of the address space nothing more fits; the next turn finds nothing free.
        start = (start + length).div_ceil(align.0).saturating_mul(align.0);
    }
    Ok(extents)
}

/// The size of a disk on which every partition gets what it asks for, a share at least one alignment.
fn enough(kind: TableKind, sector: Bytes, align: Bytes, sizes: &[Size]) -> Option<Bytes> {
    let align = u128::from(align.0);
    let round_up = |bytes: u128| bytes.div_ceil(align) * align;
    let mut need = 0;
    for size in sizes.iter().rev() {
        need = match *size {
            Size::Exact(bytes) => round_up(u128::from(bytes.0)) + need,
            Size::REST if need > 0 => return None,
            Size::REST => align,
            Size::Share(hundredths) => {
                let share = u128::from(hundredths);
                round_up((need * 10_000).div_ceil(10_000 - share).max((align * 10_000).div_ceil(share)))
            }
        };
    }
    let around = match kind {
        // The table at the start, its copy at the end: 34 sectors of 512 bytes, fewer of 4096.
        TableKind::Gpt => round_up(u128::from(34 * sector.0)) * 2,
        TableKind::Mbr => align * 2,
    };
    u64::try_from(need + around).ok().map(Bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: Bytes = Bytes::mib(1);

    fn sizes(text: &str) -> Vec<Size> {
        text.split(' ').map(|size| size.parse().unwrap()).collect()
    }

    #[test]
    fn the_rest_is_what_is_left() {
        let placed = place(TableKind::Gpt, Bytes::gib(4), Bytes(512), MIB, &sizes("1MiB 128MiB 50% 100%")).unwrap();
        let shown: Vec<(u64, u64)> = placed.iter().map(|part| (part.start.0 >> 20, part.length.0 >> 20)).collect();
        assert_eq!(shown, [(1, 1), (2, 128), (130, 1982), (2112, 1983)]);
    }

    #[test]
    fn dib_gives_the_same_mbr() {
        // "100 % on a 1 GiB disk gives sectors 2048…2095103"
        let placed = place(TableKind::Mbr, Bytes::gib(1), Bytes(512), MIB, &sizes("100%")).unwrap();
        assert_eq!(placed, [Extent { start: MIB, length: Bytes((2_095_104 - 2048) * 512) }]);
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_what_is_missing() {
        let error = place(TableKind::Gpt, Bytes::gib(1), Bytes(512), MIB, &sizes("1MiB 2GiB 100%")).unwrap_err();
        assert_eq!(error, TooSmall { index: 1, need: Some(Bytes::mib(2048 + 4)) });
        assert!(place(TableKind::Gpt, error.need.unwrap(), Bytes(512), MIB, &sizes("1MiB 2GiB 100%")).is_ok());
        for size in [0, 1, 512, 4096, 1 << 20] {
            assert!(place(TableKind::Gpt, Bytes(size), Bytes(512), MIB, &sizes("100%")).is_err(), "{size}");
            assert!(place(TableKind::Mbr, Bytes(size), Bytes(512), MIB, &sizes("100%")).is_err(), "{size}");
        }
    }

    proptest! {
        /// Whatever is written, partitions lie inside, in order, aligned, and in whole sectors.
        #[test]
        fn partitions_never_overlap(
            disk in prop_oneof![0u64..1 << 34, any::<u64>()],
            sector in prop_oneof![Just(512u64), Just(4096)],
            align_mib in 1u64..=16,
            gpt: bool,
            written in prop::collection::vec(
                prop_oneof![(1u64..1 << 33).prop_map(|n| Size::Exact(Bytes(n))), Just(Size::Exact(Bytes(u64::MAX))), (1u32..=10_000).prop_map(Size::Share)],
                1..8,
            ),
        ) {
            let kind = if gpt { TableKind::Gpt } else { TableKind::Mbr };
            let align = Bytes::mib(align_mib);
            match place(kind, Bytes(disk), Bytes(sector), align, &written) {
                Ok(placed) => {
                    prop_assert_eq!(placed.len(), written.len());
                    let mut end = align.0;
                    for part in &placed {
                        prop_assert!(part.start.0 >= end && part.start.0.is_multiple_of(align.0));
                        prop_assert!(part.length.0 > 0 && part.length.0.is_multiple_of(sector));
                        end = part.start.0 + part.length.0;
                    }
                    let tail = if gpt { sector * (1 + 16384 / sector) } else { 0 };
                    prop_assert!(end <= disk / sector * sector - tail);
                }
                Err(error) => {
                    prop_assert!(error.index < written.len());
                    if let Some(need) = error.need.filter(|need| gpt || need.0 < 1 << 41) {
                        prop_assert!(place(kind, need, Bytes(sector), align, &written).is_ok(), "{:?}", error);
                    }
                }
            }
        }
    }
}
