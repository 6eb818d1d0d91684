#![allow(clippy::disallowed_methods, reason = "other programs make the images and say what they see")]

use std::fs::File;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::units::Bytes;

const SIZE: u64 = 64 << 20;
const LARGE: u64 = 512 << 20;

fn image() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    file
}

fn ran(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => panic!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{program}: {error}; tests/setup.sh installs it"),
    }
}

fn own_view(path: &Path) -> Vec<Signature> {
    let mut file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    superblocks(&mut Source::new(&mut file, size, 512)).unwrap()
}

/// What blkid says, from a low-level probe.
fn blkid(path: &Path) -> Option<Signature> {
    let text = ran("/usr/sbin/blkid", &["-p", "-o", "export", path.to_str().unwrap()])?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.replace('\\', ""));
    Some(Signature { kind: value("TYPE=").expect("a type"), label: value("LABEL="), uuid: value("UUID=") })
}

#[track_caller]
fn agree(path: &Path) {
    if let Some(other) = blkid(path) {
        assert_eq!(own_view(path), [other]);
    }
}

#[test]
fn file_systems_as_blkid_sees_them() {
    for command in [
        "mkfs.ext2 -q -F -L old",
        "mkfs.ext3 -q -F",
        "mkfs.ext4 -q -F -L root",
        "mkfs.ext4 -q -F -O ^has_journal",
        "mkfs.vfat -F 12 -s 128 -n TWELVE",
        "mkfs.vfat -F 16 -n SIXTEEN",
        "mkfs.vfat -F 32 -s 1 -n ESP",
        "mkfs.vfat -F 32 -s 1",
        "mkswap -q -L swap",
        // These want more room than the others.
        "mkfs.xfs -q -L data -f",
        "mkfs.btrfs -q -L tree -f",
        "mkfs.exfat",
    ] {
        let file = image();
        if ["mkfs.xfs", "mkfs.btrfs", "mkfs.exfat"].iter().any(|large| command.starts_with(large)) {
            file.as_file().set_len(LARGE).unwrap();
        }
        let mut words: Vec<&str> = command.split(' ').collect();
        words.push(file.path().to_str().unwrap());
        if ran(words[0], &words[1..]).is_some() {
            agree(file.path());
        }
    }
}

#[test]
fn an_iso_as_blkid_sees_it() {
    let (file, empty) = (image(), tempfile::tempdir().unwrap());
    let arguments = ["-as", "mkisofs", "-quiet", "-volid", "MEDIUM", "-o", file.path().to_str().unwrap()];
    if ran("xorriso", &[&arguments[..], &[empty.path().to_str().unwrap()]].concat()).is_some() {
        file.as_file().set_len(SIZE).unwrap();
        agree(file.path());
    }
}

/// Superblocks written by the specification; blkid is the second reader.
#[test]
fn members_as_blkid_sees_them() {
    let id: Vec<u8> = (1..=16).collect();
    let md1 = |offset: u64| {
        let mut block = vec![0; 256];
        block[..4].copy_from_slice(&MD_MAGIC.to_le_bytes());
        block[4] = 1;
        block[16..32].copy_from_slice(&id);
        block[32..38].copy_from_slice(b"node:0");
        block[144..152].copy_from_slice(&(offset / 512).to_le_bytes());
        // The digest of the block with this field zero (md_p.h, calc_sb_1_csum).
        let sum: u64 = block.chunks_exact(4).map(|word| u64::from(le32(word, 0))).sum();
        let sum = (sum & 0xffff_ffff) as u32 + (sum >> 32) as u32;
        block[216..220].copy_from_slice(&sum.to_le_bytes());
        (offset, block)
    };
    let md0 = {
        let mut block = vec![0; 4096];
        block[..4].copy_from_slice(&MD_MAGIC.to_le_bytes());
        block[8] = 90;
        block[20..24].copy_from_slice(&id[..4]);
        block[52..64].copy_from_slice(&id[4..]);
        (SIZE - 0x1_0000, block)
    };
    let luks = |version: u8| {
        let mut block = vec![0; 4096];
        block[..8].copy_from_slice(&[b'L', b'U', b'K', b'S', 0xba, 0xbe, 0, version]);
        if version == 2 {
            block[8..16].copy_from_slice(&16384u64.to_be_bytes());
            block[24..29].copy_from_slice(b"crypt");
        }
        block[168..204].copy_from_slice(b"8c12e0a5-70ad-4c3d-9e6a-52bbf0f4a411");
        (0, block)
    };
    let lvm = {
        let mut block = vec![0; 512];
        block[..8].copy_from_slice(b"LABELONE");
        block[8..16].copy_from_slice(&1u64.to_le_bytes());
        block[20..24].copy_from_slice(&32u32.to_le_bytes());
        block[24..32].copy_from_slice(b"LVM2 001");
        block[32..64].copy_from_slice(b"abcdefABCDEF0123456789GHIJKLMNOP");
        let sum = lvm_digest(&block[20..]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
        (512, block)
    };
    let squashfs = {
        let mut block = vec![0; 96];
        block[..4].copy_from_slice(b"hsqs");
        block[28] = 4;
        (0, block)
    };
    for (name, (offset, block)) in [
        ("md 1.1", md1(0)),
        ("md 1.2", md1(4096)),
        ("md 1.0", md1(SIZE - 8192)),
        ("md 0.90", md0),
        ("LUKS1", luks(1)),
        ("LUKS2", luks(2)),
        ("LVM2", lvm),
        ("squashfs", squashfs),
    ] {
        let file = image();
        file.as_file().write_all_at(&block, offset).unwrap();
        assert_eq!(own_view(file.path()).len(), 1, "{name}");
        agree(file.path());
    }
}

const MD_MAGIC: u32 = 0xa92b_4efc;

/// LVM2's CRC: the usual polynomial from another start, not inverted.
fn lvm_digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn what_only_few_tools_make_is_recognised() {
    let mut bcache = vec![0; 128];
    bcache[24..40].copy_from_slice(&0xc685_73f6_4e1a_45ca_8265_f57f_48ba_6d81_u128.to_be_bytes());
    for (kind, offset, block) in [
        ("zfs_member", 128 << 10, 0x00ba_b10c_u64.to_le_bytes().to_vec()),
        ("zfs_member", SIZE - (128 << 10) + 1024, 0x00ba_b10c_u64.to_be_bytes().to_vec()),
        ("isw_raid_member", SIZE - 1024, b"Intel Raid ISM Cfg Sig. 1.1.00".to_vec()),
        ("ddf_raid_member", SIZE - 512, vec![0xde, 0x11, 0xde, 0x11]),
        ("bcache", 4096, bcache),
        ("BitLocker", 0, b"\xeb\x58\x90-FVE-FS-".to_vec()),
        ("gfs2", 0x1_0000, vec![0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1]),
        ("VMFS_volume_member", 0x10_0000, vec![0x0d, 0xd0, 0x01, 0xc0]),
        ("ntfs", 0, b"\xeb\x52\x90NTFS    ".to_vec()),
        ("swsuspend", 4086, b"S1SUSPEND\0".to_vec()),
    ] {
        let mut bytes = vec![0; SIZE as usize];
        bytes[offset as usize..][..block.len()].copy_from_slice(&block);
        let found = superblocks(&mut Source::new(&mut Cursor::new(bytes), SIZE, 512)).unwrap();
        assert_eq!(found.iter().map(|signature| signature.kind.as_str()).collect::<Vec<_>>(), [kind]);
    }
}

#[test]
fn nothing_is_found_in_nothing_and_no_size_is_too_small() {
    for size in [0, 1, 511, 512, 1024, 4095, 4096, 65536, 1 << 20] {
        for fill in [0, 0xff] {
            let mut bytes = Cursor::new(vec![fill; size]);
            let mut source = Source::new(&mut bytes, size as u64, 512);
            assert_eq!(superblocks(&mut source).unwrap(), [], "{size} bytes of {fill}");
            assert_eq!(table::read(&mut source, &[]).unwrap(), None, "{size} bytes of {fill}");
        }
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_not_empty() {
    let mut short = Cursor::new(vec![0; 100]);
    assert!(superblocks(&mut Source::new(&mut short, SIZE, 512)).is_err());
}

fn sfdisk(script: &str) -> Option<tempfile::NamedTempFile> {
    let file = image();
    let mut child = match Command::new("/usr/sbin/sfdisk")
        .args(["-q", file.path().to_str().unwrap()])
        .stdin(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => panic!("sfdisk: {error}; tests/setup.sh installs it"),
    };
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    Some(file)
}

fn tables(file: &tempfile::NamedTempFile) -> table::Found {
    let mut reader = file.reopen().unwrap();
    table::read(&mut Source::new(&mut reader, SIZE, 512), &[]).unwrap().expect("a table")
}

#[test]
fn a_gpt_as_sfdisk_made_it_also_from_its_copy() {
    let script = "label: gpt\nlabel-id: 0F0E0D0C-0B0A-4908-8706-050403020100\n\
        start=2048, size=2048, type=U, name=esp, uuid=11111111-2222-4333-8444-555555555555\n\
        3 : start=8192, size=16384, name=\"größe\"\n";
    let Some(file) = sfdisk(script) else { return };
    let found = tables(&file);
    assert_eq!(found.signature.uuid.as_deref(), Some("0f0e0d0c-0b0a-4908-8706-050403020100"));
    let [esp, data] = &found.partitions[..] else { panic!("{:?}", found.partitions) };
    assert_eq!((esp.number, esp.start, esp.size), (1, Bytes::mib(1), Bytes::mib(1)));
    assert_eq!(esp.r#type.as_deref(), Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"));
    assert_eq!(esp.uuid.as_deref(), Some("11111111-2222-4333-8444-555555555555"));
    assert_eq!((data.number, data.label.as_deref()), (3, Some("größe")));

    file.as_file().write_all_at(&[0; 1024], 512).unwrap();
    assert_eq!(tables(&file), found);
    // Both copies broken: what was there is unknown, but something was.
    file.as_file().write_all_at(&[1; 16], SIZE - 512 + 16).unwrap();
    assert_eq!(tables(&file), table::Found { signature: Signature::plain("gpt"), partitions: Vec::new() });
}

#[test]
fn an_mbr_with_logical_partitions_as_sfdisk_made_it() {
    let script = "label: dos\nlabel-id: 0x1b2c3d4e\nstart=2048, size=2048, type=c, bootable\n\
        start=8192, size=65536, type=5\nstart=10240, size=2048, type=83\nstart=14336, size=2048, type=82\n";
    let Some(file) = sfdisk(script) else { return };
    let found = tables(&file);
    assert_eq!(found.signature, Signature::new("dos", None, Some("1b2c3d4e".to_owned())));
    let seen: Vec<_> = found
        .partitions
        .iter()
        .map(|partition| (partition.number, partition.start.0 / 512, partition.r#type.as_deref().unwrap()))
        .collect();
    assert_eq!(seen, [(1, 2048, "0xc"), (2, 8192, "0x5"), (5, 10240, "0x83"), (6, 14336, "0x82")]);
    assert_eq!(found.partitions[2].uuid.as_deref(), Some("1b2c3d4e-05"));
}

#[test]
fn the_boot_sector_of_a_file_system_is_no_table() {
    let file = image();
    if ran("mkfs.vfat", &["-F", "16", file.path().to_str().unwrap()]).is_some() {
        let mut reader = file.reopen().unwrap();
        let mut source = Source::new(&mut reader, SIZE, 512);
        let found = superblocks(&mut source).unwrap();
        assert_eq!(table::read(&mut source, &found).unwrap(), None);
    }
}
