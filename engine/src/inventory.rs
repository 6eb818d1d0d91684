//! What the machine has: firmware, identity, memory, network cards, disks and what is on them.
//!
//! In: a root below which `sys`, `proc` and `dev` lie, or a recording of another machine. Out: an
//! [`Inventory`], which is also its own JSON, so that a machine can be replayed elsewhere.
//! Invariant: nothing is written and no device is opened for writing; what a machine does not tell is `None`.

mod by_path;
mod disk;
mod holders;
pub mod probe;
mod read;
mod recording;
mod sysfs;
#[cfg(test)]
mod tests;
mod udev;

use serde::{Deserialize, Serialize};

pub use disk::{Disk, FindError, Holder, HolderKind, Partition, Signature, Transport, find};
pub use read::{InventoryError, read_disks};
pub use recording::{RecordingError, from_recording};

use crate::block::DiskIdentity;
use crate::spec::Firmware;
use crate::units::Bytes;

/// A machine as it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub firmware: Firmware,
    /// Debian's name for the architecture, such as `amd64`.
    pub architecture: String,
    #[serde(default)]
    pub dmi: Dmi,
    /// On machines described by a device tree.
    #[serde(default)]
    pub device_tree: Option<DeviceTree>,
    #[serde(default)]
    pub memory: Bytes,
    #[serde(default)]
    pub nics: Vec<Nic>,
    #[serde(default)]
    pub disks: Vec<Disk>,
}

impl Inventory {
    /// The one disk that has every value of the identity; its kernel name may have changed.
    pub fn find(&self, identity: &DiskIdentity) -> Result<&Disk, FindError> {
        find(&self.disks, identity)
    }
}

/// Who the machine is (SMBIOS 3.7, sections 7.2 and 7.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dmi {
    /// In small letters.
    pub uuid: Option<String>,
    pub serial: Option<String>,
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub asset_tag: Option<String>,
}

/// Who the board is (Devicetree Specification 0.4, section 2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceTree {
    pub model: Option<String>,
    pub serial: Option<String>,
}

/// A network card; links without hardware are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    pub name: String,
    /// In small letters, joined by colons.
    pub mac: Option<String>,
    /// The name of the kernel's driver.
    pub driver: Option<String>,
    /// Unknown while the link is down.
    pub carrier: Option<bool>,
    /// Mbit/s.
    pub speed_mbits: Option<u32>,
}
