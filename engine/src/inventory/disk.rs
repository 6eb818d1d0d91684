//! A disk, what is on it, what holds it, and how it is found again.

use std::fmt;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::block::DiskIdentity;
use crate::units::Bytes;

/// A whole disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// The kernel's name, such as `nvme0n1`; it may be another disk's at the next boot.
    pub name: String,
    /// The device node.
    pub path: Utf8PathBuf,
    pub size: Bytes,
    pub logical_sector_size: Bytes,
    pub physical_sector_size: Bytes,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub serial: Option<String>,
    /// As the kernel writes it without its `naa.` (`0x5000c500e84608bf`), or `eui.…`, `uuid.…`, `nvme.…`.
    pub wwn: Option<String>,
    pub transport: Transport,
    /// The name below `/dev/disk/by-path` that udev would give.
    pub by_path: Option<String>,
    pub rotational: bool,
    pub removable: bool,
    pub read_only: bool,
    pub partitions: Vec<Partition>,
    /// What lies on the whole disk, partition tables (`gpt`, `dos`) included.
    pub signatures: Vec<Signature>,
    /// What uses it now, or one of its partitions, or what is built on them.
    pub holders: Vec<Holder>,
    /// The machine was started from it.
    pub is_boot_medium: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partition {
    pub number: u32,
    /// The kernel's name, such as `nvme0n1p1`.
    pub name: String,
    /// From the start of the disk.
    pub start: Bytes,
    pub size: Bytes,
    /// A GUID in small letters, or `0x83` and the like in an MBR.
    pub r#type: Option<String>,
    /// The name in the partition table, which is not that of the file system.
    pub label: Option<String>,
    /// The unique GUID, or the MBR's disk id and number (`1b2c3d4e-01`).
    pub uuid: Option<String>,
    pub filesystem: Option<Signature>,
}

/// What a superblock or a table says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signature {
    /// In blkid's words: `ext4`, `vfat`, `swap`, `crypto_LUKS`, `LVM2_member`, `linux_raid_member`, `gpt`, `dos`, …
    pub kind: String,
    pub label: Option<String>,
    pub uuid: Option<String>,
}

/// Something that uses a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub kind: HolderKind,
    /// The mount point, array, volume or mapping.
    pub name: String,
    /// What of the disk it uses, and how.
    #[serde(default)]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HolderKind {
    Mount,
    Swap,
    Md,
    Lvm,
    Crypt,
    Multipath,
    Loop,
    Other,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Nvme,
    Sata,
    Ata,
    Sas,
    Scsi,
    Usb,
    Virtio,
    Mmc,
    Fc,
    Iscsi,
    Xen,
    Loop,
    Nbd,
    Zram,
    Ram,
    /// CD, DVD and the like, whatever the bus.
    Optical,
    Floppy,
    #[default]
    Other,
}

impl Transport {
    /// Where the kernel's name of a disk tells it.
    pub fn of_name(name: &str) -> Option<Self> {
        const NAMES: &[(&str, Transport)] = &[
            ("nvme", Transport::Nvme),
            ("vd", Transport::Virtio),
            ("mmcblk", Transport::Mmc),
            ("xvd", Transport::Xen),
            ("sr", Transport::Optical),
            ("fd", Transport::Floppy),
            ("loop", Transport::Loop),
            ("nbd", Transport::Nbd),
            ("zram", Transport::Zram),
            ("ram", Transport::Ram),
        ];
        NAMES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, transport)| *transport)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Nvme => "nvme",
            Self::Sata => "sata",
            Self::Ata => "ata",
            Self::Sas => "sas",
            Self::Scsi => "scsi",
            Self::Usb => "usb",
            Self::Virtio => "virtio",
            Self::Mmc => "mmc",
            Self::Fc => "fc",
            Self::Iscsi => "iscsi",
            Self::Xen => "xen",
            Self::Loop => "loop",
            Self::Nbd => "nbd",
            Self::Zram => "zram",
            Self::Ram => "ram",
            Self::Optical => "optical",
            Self::Floppy => "floppy",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for HolderKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Mount => "mount",
            Self::Swap => "swap",
            Self::Md => "md array",
            Self::Lvm => "LVM",
            Self::Crypt => "encryption",
            Self::Multipath => "multipath",
            Self::Loop => "loop device",
            Self::Other => "holder",
        })
    }
}

/// `mount /srv (sda1)`.
impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.name)?;
        if !self.detail.is_empty() {
            write!(out, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// One line: name, size and everything that tells it from others.
impl fmt::Display for Disk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}, {}", self.name, self.size, self.transport)?;
        let told = [("model", &self.model), ("serial", &self.serial), ("wwn", &self.wwn), ("path", &self.by_path)];
        for (key, value) in told {
            match value {
                Some(value) => write!(out, ", {key} {}", value.escape_debug())?,
                None => write!(out, ", no {key}")?,
            }
        }
        Ok(())
    }
}

impl Disk {
    /// The names below `/dev/disk/by-id` that udev would give, as far as what the disk tells makes them known.
    pub fn by_id(&self) -> Vec<String> {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("_");
        let wwn = self.wwn.as_ref().map(|wwn| match self.transport {
            Transport::Nvme => format!("nvme-{wwn}"),
            _ => format!("wwn-{wwn}"),
        });
        let bus = match self.transport {
            Transport::Nvme => Some("nvme"),
            Transport::Sata | Transport::Ata => Some("ata"),
            Transport::Mmc => Some("mmc"),
            Transport::Virtio => Some("virtio"),
            _ => None,
        };
        let named = match (bus, &self.model, &self.serial) {
            (Some("virtio"), _, Some(serial)) => Some(format!("virtio-{}", words(serial))),
            (Some(bus), Some(model), Some(serial)) => Some(format!("{bus}-{}_{}", words(model), words(serial))),
            _ => None,
        };
        named.into_iter().chain(wwn).collect()
    }

    /// What must be found again before the first write.
    pub fn identity(&self) -> DiskIdentity {
        DiskIdentity {
            kernel_name: self.name.clone(),
            serial: self.serial.clone(),
            wwn: self.wwn.clone(),
            model: self.model.clone(),
            by_path: self.by_path.clone(),
            size: self.size,
            sector_size: self.logical_sector_size,
        }
    }
}

/// Why no disk, or not just one, has the identity that the plan was made for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FindError {
    #[error("{identity} is gone; this machine has:{}", lines(seen))]
    None { identity: Box<DiskIdentity>, seen: Vec<String> },
    #[error("{identity} is not what it was: {}", differences.join(", "))]
    Changed { identity: Box<DiskIdentity>, differences: Vec<String> },
    #[error("{identity} is not the only one of its kind:{}", lines(candidates))]
    Ambiguous { identity: Box<DiskIdentity>, candidates: Vec<String> },
}

fn lines(list: &[String]) -> String {
    match list {
        [] => " no disk at all".to_owned(),
        list => list.iter().map(|line| format!("\n  {line}")).collect(),
    }
}

/// The one disk that has every value of the identity; its kernel name may have changed.
pub fn find<'a>(disks: &'a [Disk], identity: &DiskIdentity) -> Result<&'a Disk, FindError> {
    let fitting: Vec<&Disk> = disks.iter().filter(|disk| differences(disk, identity).is_empty()).collect();
    if let [disk] = fitting[..] {
        return Ok(disk);
    }
    let identity = Box::new(identity.clone());
    if !fitting.is_empty() {
        return Err(FindError::Ambiguous { identity, candidates: fitting.iter().map(ToString::to_string).collect() });
    }
    match disks.iter().find(|disk| is_relative(disk, &identity)) {
        Some(disk) => Err(FindError::Changed { differences: differences(disk, &identity), identity }),
        None => Err(FindError::None { identity, seen: disks.iter().map(ToString::to_string).collect() }),
    }
}

/// Whether a person would say that this is the disk that was meant.
fn is_relative(disk: &Disk, identity: &DiskIdentity) -> bool {
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    same(&disk.wwn, &identity.wwn)
        || same(&disk.serial, &identity.serial)
        || same(&disk.by_path, &identity.by_path)
        || disk.name == identity.kernel_name
}

/// One text a value that differs. What was not told must still not be told.
fn differences(disk: &Disk, identity: &DiskIdentity) -> Vec<String> {
    let text = |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |text| format!("`{text}`"));
    let texts = [
        ("serial", &disk.serial, &identity.serial),
        ("wwn", &disk.wwn, &identity.wwn),
        ("model", &disk.model, &identity.model),
        ("path", &disk.by_path, &identity.by_path),
    ];
    let sizes = [("size", disk.size, identity.size), ("sector size", disk.logical_sector_size, identity.sector_size)];
    let texts = texts
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(name, now, then)| format!("{name} is {}, was {}", text(now), text(then)));
    let sizes = sizes
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(name, now, then)| format!("{name} is {} bytes, was {} bytes", now.0, then.0));
    texts.chain(sizes).collect()
}
