//! File systems: ext4 by mke2fs, FAT natively.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::units::NodeId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FsKind {
    Ext4,
    Vfat,
}

impl FsKind {
    /// The name in `/etc/fstab` and for `mount(2)`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Vfat => "vfat",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filesystem {
    pub base: NodeId,
    pub kind: FsKind,
    /// FAT uses its first four bytes as volume id.
    pub uuid: Uuid,
    pub label: Option<String>,
    /// Handed to the mkfs tool as they are.
    pub options: Vec<String>,
}

impl Filesystem {
    /// The FAT volume id, which also is its "UUID".
    pub fn volume_id(&self) -> u32 {
        let bytes = self.uuid.as_bytes();
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// As `blkid` shows it and `UUID=` names it.
    pub fn uuid_text(&self) -> String {
        match self.kind {
            FsKind::Ext4 => self.uuid.to_string(),
            FsKind::Vfat => format!("{:04X}-{:04X}", self.volume_id() >> 16, self.volume_id() & 0xffff),
        }
    }
}
