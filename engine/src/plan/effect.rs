//! The closed list of what castiron can do to a machine, each with its undo.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cmd::{Cmd, Program, Tool};
use crate::block::{DiskIdentity, FsKind, Wipe};
use crate::debian::PackageSet;
use crate::spec::FileSpec;
use crate::units::{Bytes, Mode, NodeId};

/// Bytes for a place on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub offset: Bytes,
    #[serde(with = "base64_text")]
    pub content: Vec<u8>,
}

/// Where a partition lies on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPlace {
    pub node: NodeId,
    pub number: u32,
    pub start: Bytes,
    pub length: Bytes,
}

/// Where GRUB's core image goes: a partition of its own, or the gap behind an MBR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorePlace {
    Partition { start: Bytes, length: Bytes },
    Gap { length: Bytes },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Finds the disk by its identity and binds it, or stops.
    Verify {
        disk: NodeId,
        identity: DiskIdentity,
    },
    /// Makes a sparse image file and binds it.
    CreateFile {
        disk: NodeId,
        path: Utf8PathBuf,
        size: Bytes,
    },
    RemoveFile {
        path: Utf8PathBuf,
    },
    /// Removes what tells of earlier contents.
    Wipe {
        disk: NodeId,
        wipe: Wipe,
    },
    WriteSectors {
        node: NodeId,
        what: String,
        pieces: Vec<Piece>,
    },
    /// Makes the disk one that no firmware starts and no kernel finds partitions on.
    ClearTable {
        disk: NodeId,
    },
    /// Tells the kernel where the partitions are, and binds them.
    ScanPartitions {
        disk: NodeId,
        partitions: Vec<PartitionPlace>,
    },
    FormatFat {
        node: NodeId,
        label: Option<String>,
        volume_id: u32,
        /// The logical sector size of the disk: a kernel mounts no FAT that counts in smaller ones.
        sector_size: Bytes,
    },
    Mount {
        node: NodeId,
        kind: FsKind,
        at: Utf8PathBuf,
        options: Vec<String>,
    },
    Unmount {
        at: Utf8PathBuf,
    },
    MakeDirectory {
        root: Utf8PathBuf,
        path: Utf8PathBuf,
        mode: Mode,
    },
    WriteFile {
        root: Utf8PathBuf,
        file: FileSpec,
    },
    RemoveTargetFile {
        root: Utf8PathBuf,
        path: Utf8PathBuf,
    },
    Symlink {
        root: Utf8PathBuf,
        path: Utf8PathBuf,
        to: String,
    },
    /// Copies the files of one folder of the target into another.
    CopyFolder {
        root: Utf8PathBuf,
        from: Utf8PathBuf,
        to: Utf8PathBuf,
    },
    /// Fetches, checks and unpacks the packages, and writes the package database.
    Unpack {
        root: Utf8PathBuf,
        packages: PackageSet,
    },
    /// Has the target's own package manager run the packages' scripts.
    Configure {
        root: Utf8PathBuf,
        packages: PackageSet,
        debconf: Vec<String>,
    },
    Exec(Cmd),
    /// A `grub.cfg` with an entry for each kernel that the target has.
    GrubConfig(GrubConfig),
    /// Moves the content of a folder of the target into a FAT file system.
    FillFat {
        node: NodeId,
        root: Utf8PathBuf,
        from: Utf8PathBuf,
    },
    /// Writes GRUB's core image and, last of all, the boot sector that starts it.
    EmbedGrub {
        disk: NodeId,
        root: Utf8PathBuf,
        boot_image: Utf8PathBuf,
        core_image: Utf8PathBuf,
        place: CorePlace,
    },
    /// Tells UEFI firmware to start the loader.
    BootEntry(BootEntry),
    /// Copies the newest kernel and its initramfs out of the target, to be started without the firmware.
    KeepKernel {
        root: Utf8PathBuf,
        kernels: Utf8PathBuf,
        to: Utf8PathBuf,
    },
    /// Everything written so far is on the disk afterwards.
    Sync {
        root: Utf8PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrubConfig {
    pub root: Utf8PathBuf,
    /// Where the kernels are, in the target.
    pub kernels: Utf8PathBuf,
    /// The same folder, as seen in the file system that holds it.
    pub kernels_in_filesystem: Utf8PathBuf,
    pub path: Utf8PathBuf,
    /// The file system that holds the kernels.
    pub filesystem_uuid: String,
    pub title: String,
    pub arguments: Vec<String>,
    pub consoles: Vec<String>,
    pub timeout_seconds: u32,
}

/// A load option (UEFI 2.10, 3.1.3) for a file on a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    pub label: String,
    pub partition_number: u32,
    /// In logical sectors of the disk that has the partition.
    pub start_sector: u64,
    pub sectors: u64,
    pub signature: PartitionSignature,
    /// With backslashes, from the file system's root.
    pub loader: String,
}

/// How firmware recognises the partition (UEFI 2.10, table 10.49).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionSignature {
    /// The GUID of the partition itself.
    Gpt(Uuid),
    /// The signature of the disk, from byte 440 of its MBR.
    Mbr([u8; 4]),
}

/// What takes an effect back.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    Nothing,
    /// Always, at the end of the run.
    Release(Effect),
    /// Only after a failure.
    Revert(Effect),
}

impl Effect {
    pub fn undo(&self) -> Undo {
        match self {
            Self::CreateFile { path, .. } => Undo::Revert(Self::RemoveFile { path: path.clone() }),
            Self::Mount { at, .. } => Undo::Release(Self::Unmount { at: at.clone() }),
            Self::ScanPartitions { disk, .. } => Undo::Revert(Self::ClearTable { disk: disk.clone() }),
            Self::Verify { .. }
            | Self::RemoveFile { .. }
            | Self::Wipe { .. }
            | Self::WriteSectors { .. }
            | Self::ClearTable { .. }
            | Self::FormatFat { .. }
            | Self::Unmount { .. }
            | Self::MakeDirectory { .. }
            | Self::WriteFile { .. }
            | Self::RemoveTargetFile { .. }
            | Self::Symlink { .. }
            | Self::CopyFolder { .. }
            | Self::Unpack { .. }
            | Self::Configure { .. }
            | Self::Exec(_)
            | Self::GrubConfig(_)
            | Self::FillFat { .. }
            | Self::EmbedGrub { .. }
            | Self::BootEntry(_)
            | Self::KeepKernel { .. }
            | Self::Sync { .. } => Undo::Nothing,
        }
    }

    /// The program that the effect needs on the machine that carries it out.
    pub fn tool(&self) -> Option<Tool> {
        match self {
            Self::Exec(Cmd { program: Program::Tool(tool), .. }) => Some(*tool),
            _ => None,
        }
    }
}

mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
