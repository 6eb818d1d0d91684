//! Boot entries in the firmware's memory, by efivarfs (UEFI 2.10, 3.1 and 10.3; kernel `Documentation/filesystems/efivarfs`).

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::plan::effect::{BootEntry, PartitionSignature};
use crate::system::{Context, EffectError};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot service access, runtime access.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
const LOAD_OPTION_ACTIVE: u32 = 1;

/// Adds or replaces the entry with the same label and puts it first. No other entry is touched.
/// Returns false where the machine was not started by UEFI.
pub fn set(folder: &Path, entry: &BootEntry) -> Result<bool, EffectError> {
    if !folder.is_dir() {
        return Ok(false);
    }
    let order = order(&read(folder, "BootOrder").unwrap_or_default());
    let number = number_for(folder, &entry.label);
    write(folder, &format!("Boot{number:04X}"), &load_option(entry))?;
    let new: Vec<u8> = std::iter::once(number)
        .chain(order.into_iter().filter(|other| *other != number))
        .flat_map(u16::to_le_bytes)
        .collect();
    write(folder, "BootOrder", &new)?;
    Ok(true)
}

fn order(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The number of the entry with this label, else the lowest free one.
fn number_for(folder: &Path, label: &str) -> u16 {
    let mut free = None;
    for number in 0..=u16::MAX {
        match read(folder, &format!("Boot{number:04X}")) {
            Some(option) if label_of(&option).as_deref() == Some(label) => return number,
            Some(_) => {}
            None => {
                free = free.or(Some(number));
                // Firmware numbers densely; looking at all 65536 takes long.
                if number > 0x100 {
                    break;
                }
            }
        }
    }
    free.unwrap_or(0)
}

fn label_of(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Some(char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|c| c.unwrap_or('?')).collect())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// `EFI_LOAD_OPTION` with a short-form hard-drive path (UEFI 2.10, 3.1.2 and 10.3.5.1).
fn load_option(entry: &BootEntry) -> Vec<u8> {
    let loader = utf16(&entry.loader);
    let mut path = vec![0x04, 0x01, 42, 0];
    path.extend(entry.partition_number.to_le_bytes());
    path.extend(entry.start_sector.to_le_bytes());
    path.extend(entry.sectors.to_le_bytes());
    match &entry.signature {
        PartitionSignature::Gpt(guid) => {
            path.extend(guid.to_bytes_le());
            path.extend([2, 2]);
        }
        PartitionSignature::Mbr(signature) => {
            path.extend(signature);
            path.extend([0; 12]);
            path.extend([1, 1]);
        }
    }
    path.extend([0x04, 0x04]);
    path.extend((4 + loader.len() as u16).to_le_bytes());
    path.extend(loader);
    path.extend([0x7f, 0xff, 4, 0]);
    let mut option = LOAD_OPTION_ACTIVE.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(&entry.label));
    option.extend(path);
    option
}

fn variable(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-{GLOBAL}"))
}

fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    fs::read(variable(folder, name)).ok()?.get(4..).map(<[u8]>::to_vec)
}

/// One write call with attributes and value, as efivarfs asks; its protection flag is lifted first.
fn write(folder: &Path, name: &str, value: &[u8]) -> Result<(), EffectError> {
    let path = variable(folder, name);
    let what = || format!("cannot write the firmware variable {name}");
    if let Ok(existing) = File::open(&path) {
        lift_immutable(&existing);
    }
    let content = [&ATTRIBUTES[..], value].concat();
    let mut file = File::create(&path).context(what())?;
    file.write_all(&content).context(what())
}

nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);
const IMMUTABLE: libc::c_long = 0x10;

fn lift_immutable(file: &File) {
    let mut flags: libc::c_long = 0;
    // SAFETY: both requests take a pointer to a long that lives here. Failure shows in the write that follows.
    unsafe {
        if get_flags(file.as_raw_fd(), &mut flags).is_ok() && flags & IMMUTABLE != 0 {
            let cleared = flags & !IMMUTABLE;
            let _ = set_flags(file.as_raw_fd(), &cleared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(label: &str) -> BootEntry {
        BootEntry {
            label: label.into(),
            partition_number: 2,
            start_sector: 4096,
            sectors: 1 << 20,
            signature: PartitionSignature::Gpt(uuid::Uuid::from_u128(0x1234)),
            loader: "\\EFI\\x\\grubx64.efi".into(),
        }
    }

    #[test]
    fn our_entry_comes_first_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        write(folder, "Boot0000", &load_option(&entry("network"))).unwrap();
        write(folder, "BootOrder", &[0, 0]).unwrap();
        assert!(set(folder, &entry("castiron")).unwrap());
        assert_eq!(order(&read(folder, "BootOrder").unwrap()), [1, 0]);
        // Once more: the same entry is replaced.
        set(folder, &entry("castiron")).unwrap();
        assert_eq!(order(&read(folder, "BootOrder").unwrap()), [1, 0]);
        assert_eq!(label_of(&read(folder, "Boot0000").unwrap()).as_deref(), Some("network"));
    }

    #[test]
    fn the_device_path_has_the_lengths_it_states() {
        for signature in [PartitionSignature::Gpt(uuid::Uuid::from_u128(7)), PartitionSignature::Mbr([1, 2, 3, 4])] {
            let option = load_option(&BootEntry { signature, ..entry("ab") });
            let length = u16::from_le_bytes([option[4], option[5]]) as usize;
            assert_eq!(option.len(), 6 + 6 + length);
            assert!(option.ends_with(&[0x7f, 0xff, 4, 0]));
            // The node of the partition is 42 bytes long (UEFI 2.10, table 10.49); the path of the file follows.
            assert_eq!(option[12..16], [4, 1, 42, 0]);
            assert_eq!(option[12 + 42..][..2], [4, 4]);
        }
    }

    #[test]
    fn a_partition_of_an_mbr_is_known_by_the_signature_of_its_disk() {
        let option = load_option(&BootEntry { signature: PartitionSignature::Mbr([1, 2, 3, 4]), ..entry("ab") });
        assert_eq!(option[12 + 24..12 + 42], [&[1, 2, 3, 4][..], &[0; 12], &[1, 1]].concat());
    }
}
