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

use std::fmt;

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
    /// The machine for people, a line each: itself, its network cards, its disks.
    pub fn lines(&self) -> Vec<String> {
        let Dmi { vendor, product, serial, uuid, asset_tag } = &self.dmi;
        let named = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
        let made = [vendor, product].map(|text| text.as_deref().unwrap_or_default()).join(" ").trim().to_owned();
        let firmware = match self.firmware {
            Firmware::Bios => "BIOS",
            Firmware::Uefi => "UEFI",
        };
        let ids = [named("serial", serial), named("uuid", uuid), named("asset tag", asset_tag)];
        let tree = self.device_tree.iter().flat_map(|tree| [tree.model.clone(), named("serial", &tree.serial)]);
        let words = (!made.is_empty()).then_some(made).into_iter().chain(ids.into_iter().chain(tree).flatten());
        let words = words.chain([format!("{} of memory", self.memory), self.architecture.clone(), firmware.to_owned()]);
        let machine = format!("machine: {}", words.collect::<Vec<_>>().join(", "));
        let nics = self.nics.iter().map(|nic| format!("network card: {nic}"));
        let disks = self.disks.iter().map(|disk| format!("disk: {disk}"));
        [machine].into_iter().chain(nics).chain(disks).collect()
    }

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

impl fmt::Display for Nic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        for word in [&self.mac, &self.driver].into_iter().flatten() {
            write!(out, " {word}")?;
        }
        match (self.carrier, self.speed_mbits) {
            (Some(true), Some(speed)) => write!(out, " {speed} Mbit/s"),
            (Some(true), None) => out.write_str(" up"),
            (Some(false), _) => out.write_str(" no carrier"),
            (None, _) => out.write_str(" down"),
        }
    }
}
