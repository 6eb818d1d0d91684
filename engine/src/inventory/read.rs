//! The machine below a root: who it is, its memory and cards, and its disks with what lies on them.
//!
//! Invariant: devices are opened for reading only. A disk that cannot be read carries the signature
//! `unreadable`, so that it never looks empty.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::{Disk, Holder, HolderKind, Partition, Signature, Transport};
use super::holders::Users;
use super::probe::{self, Source};
use super::sysfs::{self, attribute, names, number};
use super::{DeviceTree, Dmi, Inventory, Nic, udev};
use crate::spec::Firmware;
use crate::units::Bytes;

/// The label of the file systems of our own install media.
const MEDIUM_LABEL: &str = "CASTIRON";

/// The kernel does not show its disks.
#[derive(Debug, Error)]
#[error("cannot read the disks of the machine from {}; is sysfs mounted?", path.display())]
pub struct InventoryError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl Inventory {
    /// Reads `sys`, `proc`, `dev` and, where it is there, `run/udev` below the root.
    pub fn read(root: &Path) -> Result<Self, InventoryError> {
        let firmware = match root.join("sys/firmware/efi").exists() {
            true => Firmware::Uefi,
            false => Firmware::Bios,
        };
        Ok(Self {
            firmware,
            architecture: architecture(root),
            dmi: dmi(root),
            device_tree: device_tree(root),
            memory: memory(root),
            nics: nics(root),
            disks: read_disks(root)?,
        })
    }
}

/// The disks alone, with what lies on them and what holds them.
pub fn read_disks(root: &Path) -> Result<Vec<Disk>, InventoryError> {
    let block = root.join("sys/block");
    // Without it no disk would be seen, which is not the same as that there is none.
    std::fs::read_dir(&block).map_err(|cause| InventoryError { path: block, cause })?;
    let users = Users::read(root);
    let mut disks = sysfs::read_disks(root);
    for disk in &mut disks {
        udev::fill(root, disk);
        users.hold(root, disk);
        look(root, disk);
    }
    mark_boot_medium(root, &mut disks);
    Ok(disks)
}

/// Debian's name of what the kernel says it runs on.
fn architecture(root: &Path) -> String {
    let machine = attribute(&root.join("proc/sys/kernel/arch"));
    debian_architecture(machine.as_deref().unwrap_or(std::env::consts::ARCH)).to_owned()
}

pub fn debian_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i586" | "i686" => "i386",
        "arm" | "armv7l" => "armhf",
        "ppc64le" | "powerpc64" => "ppc64el",
        other => other,
    }
}

fn dmi(root: &Path) -> Dmi {
    /// What makers leave in fields that they did not fill.
    const NOTHING: &[&str] =
        &["to be filled by o.e.m.", "not specified", "none", "default string", "system serial number", "unknown", "0"];
    let field = |name: &str| {
        let value = attribute(&root.join("sys/class/dmi/id").join(name))?;
        (!NOTHING.contains(&value.to_lowercase().as_str())).then_some(value)
    };
    Dmi {
        uuid: field("product_uuid").map(|uuid| uuid.to_lowercase()),
        serial: field("product_serial"),
        vendor: field("sys_vendor"),
        product: field("product_name"),
        asset_tag: field("chassis_asset_tag"),
    }
}

fn device_tree(root: &Path) -> Option<DeviceTree> {
    let base = root.join("sys/firmware/devicetree/base");
    let tree = DeviceTree { model: attribute(&base.join("model")), serial: attribute(&base.join("serial-number")) };
    (tree != DeviceTree::default()).then_some(tree)
}

fn memory(root: &Path) -> Bytes {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    Bytes::kib(total.unwrap_or(0))
}

fn nics(root: &Path) -> Vec<Nic> {
    let net = root.join("sys/class/net");
    let card = |name: String| {
        let directory = net.join(&name);
        directory.join("device").exists().then(|| Nic {
            mac: attribute(&directory.join("address")).map(|mac| mac.to_lowercase()),
            driver: std::fs::read_link(directory.join("device/driver"))
                .ok()
                .and_then(|driver| Some(driver.file_name()?.to_str()?.to_owned())),
            carrier: number::<u8>(&directory.join("carrier")).map(|carrier| carrier == 1),
            speed_mbits: number(&directory.join("speed")).filter(|speed| *speed > 0),
            name,
        })
    };
    names(&net).into_iter().filter_map(card).collect()
}

/// Probes the disk and its partitions.
fn look(root: &Path, disk: &mut Disk) {
    let has_content = match disk.transport {
        Transport::Loop | Transport::Nbd | Transport::Zram | Transport::Ram => false,
        Transport::Optical | Transport::Floppy => false,
        _ => disk.size > Bytes::ZERO,
    };
    if !has_content {
        return;
    }
    let known = std::mem::take(&mut disk.signatures);
    match look_at_disk(root, disk) {
        Ok(()) => {}
        Err(_) if !known.is_empty() => disk.signatures = known,
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", disk.path);
            disk.signatures = vec![Signature { kind: "unreadable".to_owned(), ..Signature::default() }];
        }
    }
}

fn look_at_disk(root: &Path, disk: &mut Disk) -> io::Result<()> {
    let mut file = open(root, disk)?;
    let sector_size = disk.logical_sector_size.0.max(512);
    let mut source = Source::new(&mut file, disk.size.0, sector_size);
    let mut signatures = probe::superblocks(&mut source)?;
    if let Some(table) = probe::table::read(&mut source, &signatures)? {
        signatures.push(table.signature);
        for found in table.partitions {
            merge(&mut disk.partitions, found);
        }
        disk.partitions.sort_by_key(|partition| partition.number);
    }
    disk.signatures = signatures;
    for partition in &mut disk.partitions {
        let mut window = Window { file: &mut file, start: partition.start.0, size: partition.size.0, at: 0 };
        let size = window.size;
        let found = probe::superblocks(&mut Source::new(&mut window, size, sector_size));
        partition.filesystem = match found {
            Ok(found) => found.into_iter().next(),
            Err(_) => Some(Signature { kind: "unreadable".to_owned(), ..Signature::default() }),
        };
    }
    Ok(())
}

/// Adds what the table says to the partition that the kernel shows, which may show none.
fn merge(partitions: &mut Vec<Partition>, found: Partition) {
    match partitions.iter_mut().find(|partition| partition.number == found.number) {
        Some(partition) => {
            partition.r#type = found.r#type;
            partition.label = found.label;
            partition.uuid = found.uuid;
        }
        None => partitions.push(found),
    }
}

/// Opens for reading. Whoever uses the device exclusively without showing in sysfs (ZFS does) becomes a holder.
fn open(root: &Path, disk: &mut Disk) -> io::Result<File> {
    let path = root.join(disk.path.as_str().trim_start_matches('/'));
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
    if disk.holders.is_empty() && file.metadata()?.file_type().is_block_device() {
        let exclusive = OpenOptions::new().read(true).custom_flags(flags | libc::O_EXCL).open(&path);
        if exclusive.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            let detail = "something that does not show itself uses it exclusively".to_owned();
            disk.holders.push(Holder { kind: HolderKind::Other, name: disk.path.to_string(), detail });
        }
    }
    Ok(file)
}

/// A partition as a device of its own, for probing.
struct Window<'a> {
    file: &'a mut File,
    start: u64,
    size: u64,
    at: u64,
}

impl io::Read for Window<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = bytes.len().min(left);
        let offset = self.start.checked_add(self.at).ok_or(io::ErrorKind::UnexpectedEof)?;
        let count = std::os::unix::fs::FileExt::read_at(self.file, &mut bytes[..wanted], offset)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Window<'_> {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        let place = match position {
            io::SeekFrom::Start(place) => Some(place),
            io::SeekFrom::End(distance) => self.size.checked_add_signed(distance),
            io::SeekFrom::Current(distance) => self.at.checked_add_signed(distance),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn mark_boot_medium(root: &Path, disks: &mut [Disk]) {
    let loader_partition = loader_partition(root);
    for disk in disks {
        disk.is_boot_medium = is_boot_medium(disk, loader_partition.as_deref());
    }
}

/// A boot medium is what runs now, what the boot loader says it came from, and every install medium of ours.
pub fn is_boot_medium(disk: &Disk, loader_partition: Option<&str>) -> bool {
    let filesystems = disk.partitions.iter().filter_map(|partition| partition.filesystem.as_ref());
    let mut signatures = disk.signatures.iter().chain(filesystems);
    let runs = |holder: &Holder| {
        let is_root = matches!(holder.name.as_str(), "/" | "/boot" | "/boot/efi" | "/efi");
        holder.kind == HolderKind::Mount && is_root
    };
    let is_loaders =
        |partition: &Partition| loader_partition.is_some() && partition.uuid.as_deref() == loader_partition;
    signatures.any(|signature| signature.label.as_deref() == Some(MEDIUM_LABEL))
        || disk.holders.iter().any(runs)
        || disk.partitions.iter().any(is_loaders)
}

/// The GPT partition that an EFI loader or stub came from (Boot Loader Interface, `LoaderDevicePartUUID`): four
/// bytes of attributes, then UTF-16.
fn loader_partition(root: &Path) -> Option<String> {
    const VARIABLE: &str = "sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    let bytes = std::fs::read(root.join(VARIABLE)).ok()?;
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(String::from_utf16_lossy(&units).to_lowercase())
}
