//! Level 0: an image file or a drive, known by its identity and not by its kernel name.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    pub target: Target,
    pub size: Bytes,
    /// The logical sector size, in which partition tables count.
    pub sector_size: Bytes,
    pub wipe: Wipe,
    /// What a person loses, one finding a line, as the inventory saw it.
    pub losses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The path is the builder's to say.
    ImageFile,
    Disk(DiskIdentity),
}

/// How a drive is recognised again just before the first write. What the drive does not tell is
/// `None` and must still not be told then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// Where it was seen; tells where to look first, proves nothing.
    pub kernel_name: String,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub model: Option<String>,
    /// As udev's `by-path` names it, such as `pci-0000:00:04.0`.
    pub by_path: Option<String>,
    pub size: Bytes,
    pub sector_size: Bytes,
}

impl fmt::Display for DiskIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}", self.kernel_name, self.size)?;
        let told = [("model", &self.model), ("serial", &self.serial), ("wwn", &self.wwn), ("path", &self.by_path)];
        for (name, value) in told {
            if let Some(value) = value {
                // What a drive tells is not for a terminal to obey.
                write!(out, ", {name} {}", value.escape_debug())?;
            }
        }
        out.write_str(")")
    }
}

/// What happens to what was on the disk before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wipe {
    /// A disk that holds anything is refused.
    #[default]
    Refuse,
    /// Signatures and tables of the whole disk are removed.
    Superblock,
    /// Those of its partitions too.
    SuperblockRecursive,
    /// Every byte is overwritten with zeros.
    Zero,
    /// The drive is told that nothing on it is needed any more.
    Discard,
}
