//! Superblocks of what is part of something larger: RAID, volumes, encryption, caches, pools.

use std::io;

use super::{Probe, Signature, Source, le32, le64, text, uuid};

pub const PROBES: &[Probe] = &[md, md_old, intel_raid, ddf, luks, lvm, bcache, zfs];

const MD_MAGIC: u32 = 0xa92b_4efc;

/// Linux `include/uapi/linux/raid/md_p.h`, `struct mdp_superblock_1`: 1.1 at the start, 1.2 4 KiB on, 1.0 before
/// the end.
fn md(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let last = source.size / 512;
    let before_end = last.checked_sub(16).map(|sector| (sector & !7) * 512);
    for offset in [Some(0), Some(4096), before_end].into_iter().flatten() {
        let Some(block) = source.at::<256>(offset)? else { continue };
        let found = le32(&block, 0) == MD_MAGIC && le32(&block, 4) == 1 && le64(&block, 144) * 512 == offset;
        if found {
            let signature = Signature::new("linux_raid_member", text(&block[32..64]), uuid(&block[16..32]));
            return Ok(Some(signature));
        }
    }
    Ok(None)
}

/// `struct mdp_superblock_s`, version 0.90: in the last whole 64 KiB but one, in the byte order of its maker.
fn md_old(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(offset) = (source.size & !0xffff).checked_sub(0x1_0000) else { return Ok(None) };
    let Some(block) = source.at::<64>(offset)? else { return Ok(None) };
    let big = match block[..4] {
        [0xfc, 0x4e, 0x2b, 0xa9] => false,
        [0xa9, 0x2b, 0x4e, 0xfc] => true,
        _ => return Ok(None),
    };
    let words = [20, 52, 56, 60].map(|at| match big {
        true => le32(&block, at),
        false => le32(&block, at).swap_bytes(),
    });
    let bytes = words.map(u32::to_le_bytes).concat();
    Ok(Some(Signature::new("linux_raid_member", None, uuid(&bytes))))
}

/// Intel's firmware RAID writes into the last sector but one.
fn intel_raid(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(offset) = source.size.checked_sub(2 * source.sector_size) else { return Ok(None) };
    Ok(source.has(offset, b"Intel Raid ISM Cfg Sig. ")?.then(|| Signature::plain("isw_raid_member")))
}

/// SNIA Common RAID Disk Data Format 2.0, section 5: the anchor is the last sector.
fn ddf(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(offset) = source.size.checked_sub(source.sector_size) else { return Ok(None) };
    Ok(source.has(offset, &[0xde, 0x11, 0xde, 0x11])?.then(|| Signature::plain("ddf_raid_member")))
}

/// LUKS1 and LUKS2 on-disk format specifications; only the second has a label.
fn luks(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    if !block.starts_with(b"LUKS\xba\xbe") {
        return Ok(None);
    }
    let label = if block[7] == 2 { text(&block[24..72]) } else { None };
    Ok(Some(Signature::new("crypto_LUKS", label, text(&block[168..208]))))
}

/// LVM2's label in one of the first four sectors; the identifier is in groups of 6 4 4 4 4 4 6.
fn lvm(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    for sector in 0..4 {
        let Some(block) = source.at::<512>(sector * 512)? else { return Ok(None) };
        if !block.starts_with(b"LABELONE") || &block[24..32] != b"LVM2 001" {
            continue;
        }
        let header = le32(&block, 20) as usize;
        let id = block.get(header..header + 32).map(|id| {
            let id = String::from_utf8_lossy(id);
            let mut rest = id.chars();
            [6, 4, 4, 4, 4, 4, 6].map(|length| rest.by_ref().take(length).collect::<String>()).join("-")
        });
        return Ok(Some(Signature::new("LVM2_member", None, id)));
    }
    Ok(None)
}

/// Linux `drivers/md/bcache/bcache_ondisk.h`, `struct cache_sb`.
fn bcache(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    const MAGIC: [u8; 16] = 0xc685_73f6_4e1a_45ca_8265_f57f_48ba_6d81_u128.to_be_bytes();
    let Some(block) = source.at::<128>(4096)? else { return Ok(None) };
    Ok((block[24..40] == MAGIC).then(|| Signature::new("bcache", text(&block[72..104]), uuid(&block[40..56]))))
}

/// OpenZFS on-disk format, chapter 1: four labels of 256 KiB, two at either end; in each a ring of uberblocks.
fn zfs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    const LABEL: u64 = 256 << 10;
    const RING: u64 = 128 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    let end = source.size / LABEL * LABEL;
    let mut ring = vec![0; RING as usize];
    for label in [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)].into_iter().flatten() {
        if !source.fill(label + RING, &mut ring)? {
            continue;
        }
        let is_uberblock = |block: &[u8]| le64(block, 0) == MAGIC || le64(block, 0) == MAGIC.swap_bytes();
        if ring.chunks_exact(1024).any(is_uberblock) {
            return Ok(Some(Signature::plain("zfs_member")));
        }
    }
    Ok(None)
}
