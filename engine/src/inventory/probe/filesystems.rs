//! Superblocks of file systems and swap.

use std::io;

use super::{Probe, Signature, Source, le16, le32, le64, text, uuid};

pub const PROBES: &[Probe] = &[ext, xfs, btrfs, f2fs, erofs, swap, fat, ntfs, exfat, iso9660];

/// Linux `Documentation/filesystems/ext4/super.rst`.
fn ext(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEVICE: u32 = 0x8;
    /// What ext3 knows: filetype, recover, meta_bg; and of the read-only ones sparse_super, large_file, btree_dir.
    const EXT3: (u32, u32) = (0x2 | 0x4 | 0x10, 0x7);
    let Some(block) = source.at::<1024>(1024)? else { return Ok(None) };
    if le16(&block, 56) != 0xef53 {
        return Ok(None);
    }
    let (compatible, incompatible, read_only) = (le32(&block, 92), le32(&block, 96), le32(&block, 100));
    let kind = if incompatible & JOURNAL_DEVICE != 0 {
        "jbd"
    } else if incompatible & !EXT3.0 != 0 || read_only & !EXT3.1 != 0 {
        "ext4"
    } else if compatible & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    Ok(Some(Signature::new(kind, text(&block[120..136]), uuid(&block[104..120]))))
}

/// Linux `fs/xfs/libxfs/xfs_format.h`, `struct xfs_dsb`.
fn xfs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    Ok(block.starts_with(b"XFSB").then(|| Signature::new("xfs", text(&block[108..120]), uuid(&block[32..48]))))
}

/// Linux `include/uapi/linux/btrfs_tree.h`, `struct btrfs_super_block`.
fn btrfs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<1024>(0x1_0000)? else { return Ok(None) };
    let found = &block[64..72] == b"_BHRfS_M";
    Ok(found.then(|| Signature::new("btrfs", text(&block[299..555]), uuid(&block[32..48]))))
}

/// Linux `include/linux/f2fs_fs.h`, `struct f2fs_super_block`; the label is UTF-16.
fn f2fs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<1152>(1024)? else { return Ok(None) };
    let units: Vec<u16> = block[124..1148].chunks_exact(2).map(|pair| le16(pair, 0)).take_while(|c| *c != 0).collect();
    let label = String::from_utf16_lossy(&units);
    let found = le32(&block, 0) == 0xf2f5_2010;
    Ok(found.then(|| Signature::new("f2fs", text(label.as_bytes()), uuid(&block[108..124]))))
}

/// Linux `fs/erofs/erofs_fs.h`, `struct erofs_super_block`.
fn erofs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<128>(1024)? else { return Ok(None) };
    let found = le32(&block, 0) == 0xe0f5_e1e2;
    Ok(found.then(|| Signature::new("erofs", text(&block[64..80]), uuid(&block[48..64]))))
}

/// Linux `include/linux/swap.h`, `union swap_header`; the magic ends the first page of the machine that made it.
fn swap(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    const MAGICS: &[(&[u8], &str)] = &[
        (b"SWAPSPACE2", "swap"),
        (b"SWAP-SPACE", "swap"),
        (b"S1SUSPEND\0", "swsuspend"),
        (b"S2SUSPEND\0", "swsuspend"),
        (b"ULSUSPEND\0", "swsuspend"),
        (b"LINHIB0001", "swsuspend"),
    ];
    for page in [4096, 8192, 16384, 65536] {
        let Some(magic) = source.at::<10>(page - 10)? else { return Ok(None) };
        if let Some((_, kind)) = MAGICS.iter().find(|(known, _)| *known == magic) {
            let header = source.at::<64>(1024)?.unwrap_or([0; 64]);
            return Ok(Some(Signature::new(kind, text(&header[28..44]), uuid(&header[12..28]))));
        }
    }
    Ok(None)
}

/// Microsoft FAT specification 1.03: a boot sector whose every field is possible.
fn fat(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    let sector = u64::from(le16(&block, 11));
    let possible = block[510..] == [0x55, 0xaa]
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && block[13].is_power_of_two()
        && le16(&block, 14) != 0
        && matches!(block[16], 1 | 2)
        && (block[21] == 0xf0 || block[21] >= 0xf8);
    if !possible {
        return Ok(None);
    }
    let reserved = u64::from(le16(&block, 14));
    let small = u64::from(le16(&block, 22));
    let is_fat32 = small == 0;
    let sectors = if is_fat32 { u64::from(le32(&block, 36)) } else { small };
    let data = (reserved + u64::from(block[16]) * sectors) * sector;
    let (root, entries, serial) = match is_fat32 {
        // The label stands in the first cluster of the root directory, where mkfs writes it.
        true => {
            let cluster = u64::from(block[13]) * sector;
            (data + u64::from(le32(&block, 44)).saturating_sub(2) * cluster, cluster / 32, le32(&block, 67))
        }
        false => (data, u64::from(le16(&block, 17)), le32(&block, 39)),
    };
    let serial = format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
    Ok(Some(Signature::new("vfat", fat_label(source, root, entries)?, Some(serial))))
}

/// The name of the directory entry that is a volume label (section 6).
fn fat_label(source: &mut Source<'_>, root: u64, entries: u64) -> io::Result<Option<String>> {
    for index in 0..entries.min(512) {
        let Some(entry) = source.at::<32>(root + index * 32)? else { return Ok(None) };
        match entry[0] {
            0 => return Ok(None),
            0xe5 => continue,
            _ if entry[11] & 0x0f != 0x0f && entry[11] & 0x08 != 0 => return Ok(text(&entry[..11])),
            _ => {}
        }
    }
    Ok(None)
}

/// The serial number of the boot sector.
fn ntfs(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    let found = &block[3..11] == b"NTFS    ";
    Ok(found.then(|| Signature::new("ntfs", None, Some(format!("{:016X}", le64(&block, 72))))))
}

/// Microsoft exFAT specification, section 3.1.
fn exfat(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<512>(0)? else { return Ok(None) };
    let serial = le32(&block, 100);
    let serial = format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
    Ok((&block[3..11] == b"EXFAT   ").then(|| Signature::new("exfat", None, Some(serial))))
}

/// ECMA-119 section 8.4; as UUID serves the time of the last change, else that of the making.
fn iso9660(source: &mut Source<'_>) -> io::Result<Option<Signature>> {
    let Some(block) = source.at::<2048>(0x8000)? else { return Ok(None) };
    if &block[1..6] != b"CD001" {
        return Ok(None);
    }
    let is_set = |time: &&[u8]| time.iter().all(u8::is_ascii_digit) && time.iter().any(|digit| *digit != b'0');
    let time = [&block[830..846], &block[813..829]].into_iter().find(is_set).map(|time| {
        let digits = String::from_utf8_lossy(time);
        let parts = [(0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)];
        parts.map(|(from, to)| &digits[from..to]).join("-")
    });
    Ok(Some(Signature::new("iso9660", text(&block[40..72]), time)))
}
