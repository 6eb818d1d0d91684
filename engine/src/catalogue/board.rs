//! Boards as data. In: the text of a `board.toml`. Out: a checked [`Board`].
//!
//! Invariant: a board that was read names no module or package twice in one list and asks for
//! nothing that its own lists do not hold.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a machine's firmware starts a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// UEFI: an EFI system partition with PE programs.
    Uefi,
    /// PC BIOS: the first sector of the disk.
    Bios,
}

/// One machine family: what it is known by, how it boots, what its appliance carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    pub name: String,
    pub title: String,
    /// The Debian architecture.
    pub arch: String,
    /// The folder below `/usr/lib` that holds its libraries.
    pub multiarch: String,
    /// Boot ways, the preferred first.
    pub firmware: Vec<Firmware>,
    #[serde(rename = "match")]
    pub matching: Match,
    pub kernel: Kernel,
    /// What an EFI boot is made of; needed where `firmware` lists UEFI.
    pub efi: Option<Efi>,
    /// What a BIOS boot is made of; needed where `firmware` lists BIOS.
    pub bios: Option<Bios>,
    #[serde(rename = "firmware-packages")]
    pub firmware_packages: FirmwarePackages,
    pub modules: Modules,
}

/// What makes a running machine this board. Every list that is not empty must hold; an entry is a
/// glob in which `*` stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `uname -m`.
    pub machine: Vec<String>,
    /// `/sys/class/dmi/id/sys_vendor` and `product_name`, joined by a blank.
    pub dmi: Vec<String>,
    /// `/proc/device-tree/compatible`, any of its entries.
    pub compatible: Vec<String>,
}

/// The kernel and what it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub package: String,
    /// Packages it depends on that an appliance has no use for.
    #[serde(default)]
    pub without: Vec<String>,
    /// Values of `console=`; the last is where programs write.
    pub consoles: Vec<String>,
    /// Further words of the kernel command line.
    #[serde(default)]
    pub cmdline: Vec<String>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    pub package: String,
    pub path: String,
}

/// GRUB for one platform; its modules lie in `usr/lib/grub/PLATFORM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grub {
    pub package: String,
    pub platform: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efi {
    /// The program that unified kernel images begin with.
    pub stub: PackageFile,
    pub grub: Grub,
    /// The file below `EFI/BOOT` that firmware starts from a removable medium (UEFI 3.5.1.1).
    pub removable: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bios {
    pub grub: Grub,
}

/// Where firmware files that modules ask for may be taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FirmwarePackages {
    /// The component of the archive that holds them.
    pub component: Option<String>,
    pub packages: Vec<String>,
    /// Prefixes below `lib/firmware/` that are left out.
    pub exclude: Vec<String>,
}

/// The modules the appliance carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Modules {
    /// Loaded at start, in this order, because nothing announces them by modalias.
    pub preload: Vec<String>,
    /// Without one of these the build stops.
    pub required: Vec<String>,
    pub classes: BTreeMap<String, Vec<ModuleEntry>>,
}

/// One entry of a module list: a name, or every module below a folder of `kernel/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ModuleEntry {
    Name(String),
    Folder(String),
}

impl From<String> for ModuleEntry {
    fn from(text: String) -> Self {
        match text.ends_with('/') {
            true => Self::Folder(text),
            false => Self::Name(text),
        }
    }
}

impl From<ModuleEntry> for String {
    fn from(entry: ModuleEntry) -> Self {
        match entry {
            ModuleEntry::Name(text) | ModuleEntry::Folder(text) => text,
        }
    }
}

#[derive(Debug, Error)]
pub enum BoardError {
    #[error("{file} is not a board")]
    Syntax {
        file: String,
        #[source]
        cause: Box<toml::de::Error>,
    },
    #[error("{file}: {problem}")]
    Content { file: String, problem: String },
}

impl Board {
    /// Reads a `board.toml`; `file` is only for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, BoardError> {
        let board: Self = toml::from_str(text)
            .map_err(|cause| BoardError::Syntax { file: file.to_owned(), cause: Box::new(cause) })?;
        match board.problem() {
            Some(problem) => Err(BoardError::Content { file: file.to_owned(), problem }),
            None => Ok(board),
        }
    }

    fn problem(&self) -> Option<String> {
        if self.firmware.is_empty() {
            return Some("`firmware` names no way to boot".into());
        }
        for firmware in &self.firmware {
            let (section, present) = match firmware {
                Firmware::Uefi => ("efi", self.efi.is_some()),
                Firmware::Bios => ("bios", self.bios.is_some()),
            };
            if !present {
                return Some(format!("`firmware` lists a way to boot that needs the section `{section}`"));
            }
        }
        if self.kernel.consoles.is_empty() {
            return Some("`kernel.consoles` is empty, so nobody would see the machine".into());
        }
        let listed: BTreeSet<&ModuleEntry> = self.modules.classes.values().flatten().collect();
        self.modules
            .preload
            .iter()
            .chain(&self.modules.required)
            .find(|name| !listed.contains(&ModuleEntry::Name((*name).clone())))
            .map(|name| format!("module `{name}` is preloaded or required, but no class lists it"))
    }

    /// The words of the kernel command line that the board asks for, consoles in the board's order.
    pub fn cmdline(&self) -> Vec<String> {
        let consoles = self.kernel.consoles.iter().map(|console| format!("console={console}"));
        consoles.chain(self.kernel.cmdline.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: &str = include_str!("../../../board-support/x86_64/board.toml");

    #[test]
    fn the_shipped_board_is_read() {
        let board = Board::parse("board.toml", PC).unwrap();
        assert_eq!(board.firmware, [Firmware::Uefi, Firmware::Bios]);
        assert_eq!(board.cmdline().last().unwrap(), "console=ttyS0,115200n8");
        assert!(board.modules.classes["storage"].contains(&ModuleEntry::Folder("drivers/ata/".into())));
    }

    #[test]
    fn a_board_that_contradicts_itself_is_refused() {
        let without_ext4 = PC.replacen(
            "    \"ext4\", \"vfat\", \"nls_cp437\", \"nls_ascii\", \"nls_iso8859-1\", \"nls_utf8\", \"isofs\", \"udf\"",
            "\"udf\"",
            1,
        );
        let error = Board::parse("board.toml", &without_ext4).unwrap_err().to_string();
        assert_eq!(error, "board.toml: module `ext4` is preloaded or required, but no class lists it");
        let misspelt = PC.replacen("title =", "titel =", 1);
        assert!(Board::parse("board.toml", &misspelt).is_err());
    }
}
