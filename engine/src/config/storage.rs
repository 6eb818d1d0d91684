//! Storage as written: diskimage-builder's block-device list, with `disk` beside its `local_loop`.
//!
//! An entry is a mapping of one key, the module, to its settings. In the digraph form every entry names
//! its `base`; in the tree form a module stands inside the settings of what it is based on. Both forms mix,
//! and [`crate::resolve`] makes them one.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{AbsolutePath, Glob, Later, OneOrMany, Size, SizeRange};

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// What is made on which disk. Without it: GPT with a BIOS boot partition, an ESP and an ext4 root on
    /// the only disk.
    pub layout: Vec<Layout>,
}

/// One entry of the layout: one module and its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Level 0: a disk of the machine.
    Disk(Box<Disk>),
    /// Level 0: a file on the build host.
    LocalLoop(Box<LocalLoop>),
    Partitioning(Box<Partitioning>),
    Mkfs(Box<Mkfs>),
    Mount(Box<Mount>),
    Fstab(Box<Fstab>),
    /// Short for a vfat file system on an EFI system partition and its mount.
    Esp(Box<Esp>),
    Raid(Later),
    Luks(Later),
    Lvm(Later),
    Btrfs(Later),
}

/// A disk of the machine, found by what does not change between two boots.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub name: String,
    /// All given keys must fit. Without any, every disk fits.
    #[serde(default)]
    pub r#match: DiskMatch,
    #[serde(default)]
    pub pick: Pick,
    #[serde(default)]
    pub wipe: Wipe,
    /// Allows the disk that the machine was booted from.
    #[serde(default)]
    pub allow_boot_medium: bool,
    pub preserve: Option<Later>,
    pub partitioning: Option<Box<Partitioning>>,
    pub mkfs: Option<Box<Mkfs>>,
}

/// What a disk must be. Texts are patterns with `*`, `?` and `[a-z]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskMatch {
    pub transport: Option<Transport>,
    /// `">= 400GiB"`, `"< 2TB"`, two joined by a comma, or an exact size.
    pub size: Option<SizeRange>,
    pub model: Option<Glob>,
    pub vendor: Option<Glob>,
    pub serial: Option<Glob>,
    /// World wide name, `0x5000c500e84608bf` or as the kernel writes it (`naa.…`, `eui.…`, `uuid.…`).
    pub wwn: Option<Glob>,
    /// The name below `/dev/disk/by-path`.
    pub by_path: Option<Glob>,
    /// A name below `/dev/disk/by-id`.
    pub by_id: Option<Glob>,
    pub rotational: Option<bool>,
    pub removable: Option<bool>,
    /// The kernel's name such as `sda`; it changes between boots, so another key must stand beside it.
    pub name: Option<Glob>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize, JsonSchema)]
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
    Other,
}

/// What is done when several disks fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// Refuse, and list them.
    #[default]
    Only,
    Smallest,
    Largest,
    FirstByPath,
}

/// What is done with what a disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wipe {
    /// A disk that holds anything is refused, and what would be lost is listed.
    #[default]
    Refuse,
    /// Partition tables and the signatures on the whole disk are cleared.
    Superblock,
    /// The signatures inside the partitions are cleared too.
    SuperblockRecursive,
    Zero,
    Random,
    Discard,
    SecureErase,
}

/// A disk image on the build host, as in dib.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalLoop {
    pub name: String,
    /// The image's size.
    pub size: Option<Size>,
    /// Bytes per sector: 512 or 4096.
    pub block_size: Option<u32>,
    /// Where dib makes the image; castiron makes it beside the output.
    pub directory: Option<Later>,
    pub partitioning: Option<Box<Partitioning>>,
    pub mkfs: Option<Box<Mkfs>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partitioning {
    pub name: Option<String>,
    pub base: Option<String>,
    pub label: TableKind,
    /// Partitions start at multiples of this, 1 MiB unless given.
    pub align: Option<Size>,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Gpt,
    #[serde(alias = "msdos", alias = "dos")]
    Mbr,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub name: String,
    /// `20GiB`, `50%` of what is left when it is this partition's turn, `100%` for all of it.
    pub size: Size,
    /// `esp`, `bios-boot`, `linux`, `root`, `home`, `swap`, …; or dib's codes (`EF00`, `"0x0c"`); or a GUID.
    pub r#type: Option<String>,
    #[serde(default)]
    pub flags: Vec<PartitionFlag>,
    /// The name in the partition table, `name` unless given.
    pub label: Option<String>,
    pub mkfs: Option<Box<Mkfs>>,
    pub mount: Option<Box<Mount>>,
    pub esp: Option<Box<Esp>>,
    pub luks: Option<Later>,
    pub lvm: Option<Later>,
    pub raid: Option<Later>,
    pub btrfs: Option<Later>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartitionFlag {
    Boot,
    Primary,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mkfs {
    /// `mkfs_` and the base's name unless given.
    pub name: Option<String>,
    pub base: Option<String>,
    pub r#type: FileSystemType,
    /// The label, the name unless given.
    pub label: Option<String>,
    /// Further options of the mkfs program: a list, or a text that is split at blanks as dib does.
    #[serde(default)]
    pub opts: OneOrMany,
    pub uuid: Option<String>,
    pub mount: Option<Box<Mount>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileSystemType {
    Ext2,
    Ext3,
    Ext4,
    #[serde(alias = "fat", alias = "fat32")]
    Vfat,
    Swap,
    Xfs,
    Btrfs,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// `mount_` and the base's name unless given.
    pub name: Option<String>,
    pub base: Option<String>,
    /// Where it is mounted in the target; swap has none.
    pub mount_point: Option<AbsolutePath>,
    pub format: Option<Later>,
    pub fstab: Option<Box<Fstab>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fstab {
    pub name: Option<String>,
    pub base: Option<String>,
    /// Mount options joined by commas, `defaults` unless given.
    pub options: Option<String>,
    #[serde(rename = "dump-freq")]
    pub dump_freq: Option<u8>,
    #[serde(rename = "fsck-passno")]
    pub fsck_passno: Option<u8>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Esp {
    pub name: Option<String>,
    #[serde(default)]
    pub base: OneOrMany,
    /// `/boot/efi` unless given.
    pub mount_point: Option<AbsolutePath>,
    pub label: Option<String>,
    pub sync: Option<Later>,
}
