//! Disks as the kernel has them: found by identity, wiped, written, their partitions registered.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::block::{DiskIdentity, Wipe};
use crate::event::{Progress, Unit};
use crate::inventory::Inventory;
use crate::plan::effect::{PartitionPlace, Piece};
use crate::system::door::OnProgress;
use crate::system::{Context, EffectError, Region};
use crate::units::{Bytes, NodeId};

/// What readers look at: the first and the last of it tell of earlier contents.
const EDGE: u64 = 1 << 20;
const NODE_WAIT: Duration = Duration::from_secs(10);

/// The device with this identity, and no other.
pub fn verify(identity: &DiskIdentity) -> Result<Region, EffectError> {
    let inventory =
        Inventory::read(std::path::Path::new("/")).context("cannot look at this machine's disks once more")?;
    let disk = inventory
        .find(identity)
        .context(format!("the disk {identity} is not what it was when the plan was made"))
        .map_err(|error| error.with_hint("nothing was written; look at the machine and plan again"))?;
    if let Some(holder) = disk.holders.first() {
        return Err(EffectError::new(format!("the disk {identity} is in use: {holder}")));
    }
    let path = Utf8PathBuf::from(&disk.path);
    // An exclusive open fails while anything in the kernel holds the disk.
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(&path)
        .context(format!("cannot open {path} for this run alone"))?;
    Ok(Region { path, offset: Bytes::ZERO, length: identity.size })
}

pub fn open(region: &Region) -> Result<File, EffectError> {
    let file = OpenOptions::new().read(true).write(true).open(&region.path);
    file.context(format!("cannot open {}", region.path))
}

pub fn write(region: &Region, pieces: &[Piece]) -> Result<(), EffectError> {
    let file = open(region)?;
    let what = || format!("cannot write to {}", region.path);
    for piece in pieces {
        if piece.offset.0 + piece.content.len() as u64 > region.length.0 {
            return Err(EffectError::new(format!(
                "{} bytes at {} lie outside of it",
                piece.content.len(),
                piece.offset
            )));
        }
        file.write_all_at(&piece.content, region.offset.0 + piece.offset.0).context(what())?;
    }
    file.sync_all().context(what())
}

pub fn wipe(region: &Region, wipe: Wipe, progress: &mut OnProgress<'_>) -> Result<(), EffectError> {
    let file = open(region)?;
    let what = || format!("cannot wipe {}", region.path);
    match wipe {
        Wipe::Refuse => return Err(EffectError::new(format!("{} must not be wiped", region.path))),
        Wipe::Superblock => {}
        Wipe::SuperblockRecursive => {
            for (start, length) in old_partitions(&region.path) {
                clear_edges(&file, start, length).context(what())?;
            }
        }
        Wipe::Zero => overwrite(&file, region, progress).context(what())?,
        Wipe::Discard => discard(&file, region).context(what())?,
    }
    clear_edges(&file, 0, region.length.0).context(what())?;
    file.sync_all().context(what())?;
    forget_partitions(&file, &region.path)
}

fn clear_edges(file: &File, start: u64, length: u64) -> std::io::Result<()> {
    let edge = length.min(EDGE);
    let zeros = vec![0; edge as usize];
    file.write_all_at(&zeros, start)?;
    file.write_all_at(&zeros, start + length - edge)
}

fn overwrite(file: &File, region: &Region, progress: &mut OnProgress<'_>) -> std::io::Result<()> {
    const CHUNK: u64 = 4 << 20;
    let zeros = vec![0; CHUNK as usize];
    let mut done = 0;
    while done < region.length.0 {
        let length = CHUNK.min(region.length.0 - done);
        file.write_all_at(&zeros[..length as usize], done)?;
        done += length;
        progress(Progress { done, total: Some(region.length.0), unit: Unit::Bytes }, None);
    }
    Ok(())
}

nix::ioctl_write_ptr_bad!(blk_discard, 0x1277, [u64; 2]);

/// A disk that cannot forget is left to [`clear_edges`].
fn discard(file: &File, region: &Region) -> std::io::Result<()> {
    // SAFETY: the request takes two numbers, offset and length.
    match unsafe { blk_discard(file.as_raw_fd(), &[0, region.length.0]) } {
        Ok(_) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes firmware pass over the disk and kernels find nothing on it.
pub fn clear_table(region: &Region) -> Result<(), EffectError> {
    let file = open(region)?;
    let what = || format!("cannot clear the table of {}", region.path);
    clear_edges(&file, region.offset.0, region.length.0).context(what())?;
    file.sync_all().context(what())?;
    if is_device(&region.path) { forget_partitions(&file, &region.path) } else { Ok(()) }
}

/// Where partitions live: regions of an image, or device nodes that the kernel is asked for.
pub fn partitions(disk: &Region, places: &[PartitionPlace]) -> Result<Vec<(NodeId, Region)>, EffectError> {
    if !is_device(&disk.path) {
        let region =
            |place: &PartitionPlace| Region { path: disk.path.clone(), offset: place.start, length: place.length };
        return Ok(places.iter().map(|place| (place.node.clone(), region(place))).collect());
    }
    let file = open(disk)?;
    forget_partitions(&file, &disk.path)?;
    let mut found = Vec::new();
    for place in places {
        let what = || format!("cannot register partition {} of {}", place.number, disk.path);
        blkpg(&file, BLKPG_ADD_PARTITION, place.number, place.start.0, place.length.0).context(what())?;
        let path = partition_path(&disk.path, place.number);
        wait_for(&path)?;
        found.push((place.node.clone(), Region { path, offset: Bytes::ZERO, length: place.length }));
    }
    Ok(found)
}

fn is_device(path: &Utf8Path) -> bool {
    path.starts_with("/dev")
}

/// The kernel puts a `p` between a digit and a number.
fn partition_path(disk: &Utf8Path, number: u32) -> Utf8PathBuf {
    let separator = if disk.as_str().ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    Utf8PathBuf::from(format!("{disk}{separator}{number}"))
}

fn wait_for(path: &Utf8Path) -> Result<(), EffectError> {
    let begin = Instant::now();
    while !path.exists() {
        if begin.elapsed() > NODE_WAIT {
            return Err(EffectError::new(format!("{path} did not appear within {} s", NODE_WAIT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `struct blkpg_partition` and `struct blkpg_ioctl_arg` (linux/blkpg.h).
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
pub struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

nix::ioctl_write_ptr_bad!(blkpg_ioctl, 0x1269, BlkpgArgument);
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

fn blkpg(disk: &File, operation: i32, number: u32, start: u64, length: u64) -> nix::Result<()> {
    let mut partition = BlkpgPartition {
        start: start as i64,
        length: length as i64,
        number: number as i32,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument =
        BlkpgArgument { operation, flags: 0, length: size_of::<BlkpgPartition>() as i32, data: &mut partition };
    // SAFETY: both structures are what the request takes and outlive the call.
    unsafe { blkpg_ioctl(disk.as_raw_fd(), &argument) }.map(drop)
}

/// The kernel's idea of the disk's partitions, as numbers with start and length in bytes.
fn known_partitions(disk: &Utf8Path) -> Vec<(u32, u64, u64)> {
    let name = disk.file_name().unwrap_or_default();
    let folder = Utf8Path::new("/sys/class/block").join(name);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let number = |path: &std::path::Path, file: &str| -> Option<u64> {
        fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()
    };
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let partition = number(&path, "partition")? as u32;
            // sysfs counts in sectors of 512 bytes whatever the disk's own size is.
            Some((partition, number(&path, "start")? * 512, number(&path, "size")? * 512))
        })
        .collect()
}

fn old_partitions(disk: &Utf8Path) -> Vec<(u64, u64)> {
    known_partitions(disk).into_iter().map(|(_, start, length)| (start, length)).collect()
}

fn forget_partitions(file: &File, disk: &Utf8Path) -> Result<(), EffectError> {
    for (number, _, _) in known_partitions(disk) {
        blkpg(file, BLKPG_DEL_PARTITION, number, 0, 0)
            .context(format!("cannot forget partition {number} of {disk}"))
            .map_err(|error| error.with_hint("something still uses it: a mount, swap, or a stacked device"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_called_as_the_kernel_calls_them() {
        let called = |disk: &str, number| partition_path(Utf8Path::new(disk), number).into_string();
        assert_eq!(called("/dev/sda", 2), "/dev/sda2");
        assert_eq!(called("/dev/sdbp", 1), "/dev/sdbp1");
        assert_eq!(called("/dev/vda", 14), "/dev/vda14");
        assert_eq!(called("/dev/nvme0n1", 2), "/dev/nvme0n1p2");
        assert_eq!(called("/dev/mmcblk0", 15), "/dev/mmcblk0p15");
        assert_eq!(called("/dev/md127", 1), "/dev/md127p1");
    }

    #[test]
    fn partitions_of_an_image_are_regions_of_it() {
        let disk = Region { path: "/srv/disk.raw".into(), offset: Bytes::ZERO, length: Bytes::gib(1) };
        let place =
            PartitionPlace { node: NodeId::new("root"), number: 3, start: Bytes::mib(130), length: Bytes::mib(500) };
        let region = Region { path: disk.path.clone(), offset: place.start, length: place.length };
        assert_eq!(partitions(&disk, &[place]).unwrap(), [(NodeId::new("root"), region)]);
    }
}
