//! Disks as the kernel shows them below `/sys/block`.
//!
//! In: a root. Out: [`Disk`]s without what lies on them. Invariant: only files below `sys` are read.

use std::fs;
use std::path::{Path, PathBuf};

use super::by_path;
use super::disk::{Disk, Partition, Transport};
use crate::units::Bytes;

/// The kernel counts sizes and starts in these, whatever the disk's sector size.
const SECTOR: u64 = 512;

/// A file's text without blanks around it; none when it is empty, unreadable or only zeros.
pub fn attribute(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

pub fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    attribute(path)?.parse().ok()
}

/// The names in a directory, in order; nothing when there is none.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What is built on other block devices holds them and is no disk itself; idle loop devices are noise.
fn is_disk(directory: &Path, name: &str) -> bool {
    let built = ["dm-", "md", "bcache", "ram", "zd"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    });
    let idle = (name.starts_with("loop") || name.starts_with("nbd") || name.starts_with("zram"))
        && number::<u64>(&directory.join("size")) == Some(0);
    let hidden = number::<u32>(&directory.join("hidden")) == Some(1);
    !built && !idle && !hidden
}

pub fn read_disks(root: &Path) -> Vec<Disk> {
    let block = root.join("sys/block");
    let mut names = names(&block);
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names.iter().filter(|name| is_disk(&block.join(name), name)).map(|name| read_disk(root, name)).collect()
}

fn read_disk(root: &Path, name: &str) -> Disk {
    let sys = fs::canonicalize(root.join("sys")).unwrap_or_else(|_| root.join("sys"));
    let link = sys.join("block").join(name);
    let directory = fs::canonicalize(&link).unwrap_or(link);
    let place = Place { device: device_path(&sys, &directory), directory, sys };
    let file = |file: &str| place.directory.join(file);
    let flag = |name: &str| number::<u32>(&file(name)) == Some(1);
    let transport = place.transport(name);
    let is_card = attribute(&file("device/type")).as_deref() == Some("SD");
    let sector = |name: &str| Bytes(number(&file(name)).unwrap_or(SECTOR));
    let mut disk = Disk {
        name: name.to_owned(),
        // cciss!c0d0 is cciss/c0d0 in /dev.
        path: format!("/dev/{}", name.replace('!', "/")).into(),
        size: Bytes(number::<u64>(&file("size")).unwrap_or(0).saturating_mul(SECTOR)),
        logical_sector_size: sector("queue/logical_block_size"),
        physical_sector_size: sector("queue/physical_block_size"),
        transport,
        by_path: by_path::of(&place.device, &|path| attribute(&place.sys.join(path))),
        rotational: flag("queue/rotational"),
        removable: flag("removable") || is_card,
        read_only: flag("ro"),
        partitions: place.partitions(),
        ..Disk::default()
    };
    place.name_drive(&mut disk);
    disk
}

/// Where the disk hangs, below `sys`. A drive behind NVMe multipathing hangs below a virtual subsystem; with one
/// controller, that is where it is.
fn device_path(sys: &Path, directory: &Path) -> String {
    let below = |path: &Path| path.strip_prefix(sys).unwrap_or(path).to_string_lossy().into_owned();
    let Some(subsystem) = directory.parent().filter(|_| below(directory).contains("/nvme-subsystem/")) else {
        return below(directory);
    };
    let is_controller =
        |name: &String| name.strip_prefix("nvme").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let controllers: Vec<String> = names(subsystem).into_iter().filter(is_controller).collect();
    match (&controllers[..], directory.file_name()) {
        ([controller], Some(name)) => fs::canonicalize(subsystem.join(controller))
            .map_or_else(|_| below(directory), |controller| below(&controller.join(name))),
        _ => below(directory),
    }
}

struct Place {
    sys: PathBuf,
    /// Of the disk, as sysfs has it.
    directory: PathBuf,
    /// The way to the hardware, below `sys`.
    device: String,
}

impl Place {
    fn transport(&self, name: &str) -> Transport {
        const PLACES: &[(&str, Transport)] = &[
            ("/usb", Transport::Usb),
            ("/session", Transport::Iscsi),
            ("/rport-", Transport::Fc),
            ("/end_device-", Transport::Sas),
            ("/target", Transport::Scsi),
        ];
        if let Some(transport) = Transport::of_name(name) {
            return transport;
        }
        if self.device.split('/').any(|part| part.strip_prefix("ata").is_some_and(|rest| rest.parse::<u32>().is_ok())) {
            return self.ata();
        }
        PLACES.iter().find(|(part, _)| self.device.contains(part)).map_or(Transport::Other, |(_, transport)| *transport)
    }

    /// The kernel's library drives both; the driver's name tells the old parallel bus.
    fn ata(&self) -> Transport {
        let host = self.device.split('/').find(|part| part.starts_with("host")).unwrap_or_default();
        let driver = attribute(&self.sys.join("class/scsi_host").join(host).join("proc_name")).unwrap_or_default();
        match driver.starts_with("pata_") || driver == "ata_piix" {
            true => Transport::Ata,
            false => Transport::Sata,
        }
    }

    /// Model, vendor, serial and world wide name, wherever this kind of drive tells them.
    fn name_drive(&self, disk: &mut Disk) {
        let device = |file: &str| attribute(&self.directory.join("device").join(file));
        let page = |file: &str| fs::read(self.directory.join("device").join(file)).unwrap_or_default();
        disk.model = device("model");
        match disk.transport {
            Transport::Virtio => disk.serial = attribute(&self.directory.join("serial")),
            Transport::Nvme => {
                disk.serial = device("serial");
                disk.wwn = attribute(&self.directory.join("wwid")).and_then(|wwid| world_wide_name(&wwid));
            }
            Transport::Mmc => {
                disk.model = device("name");
                disk.serial = device("serial").filter(|serial| !serial.trim_matches(['0', 'x']).is_empty());
            }
            _ => {
                let identify = page("vpd_pg89");
                disk.vendor = device("vendor");
                disk.model = ata_text(&identify, 27..47).or_else(|| disk.model.take());
                disk.serial = self.usb_serial().or_else(|| page_text(&page("vpd_pg80")));
                disk.wwn =
                    device("wwid").and_then(|wwid| world_wide_name(&wwid)).or_else(|| page_name(&page("vpd_pg83")));
            }
        }
    }

    /// The serial of the USB device that the disk is part of.
    fn usb_serial(&self) -> Option<String> {
        let (before, _) = self.device.split_once("/host").filter(|_| self.device.contains("/usb"))?;
        // Up to the root hub, whose serial is its controller's address.
        Path::new(before)
            .ancestors()
            .take_while(|directory| {
                !directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with("usb"))
            })
            .find_map(|directory| attribute(&self.sys.join(directory).join("serial")))
    }

    fn partitions(&self) -> Vec<Partition> {
        let bytes = |path: PathBuf| Bytes(number::<u64>(&path).unwrap_or(0).saturating_mul(SECTOR));
        let mut partitions: Vec<Partition> = names(&self.directory)
            .into_iter()
            .filter_map(|name| {
                let directory = self.directory.join(&name);
                let number = number(&directory.join("partition"))?;
                let (start, size) = (bytes(directory.join("start")), bytes(directory.join("size")));
                Some(Partition { number, name, start, size, ..Partition::default() })
            })
            .collect();
        partitions.sort_by_key(|partition| partition.number);
        partitions
    }
}

/// The kernel's `wwid` in lsblk's form. What a vendor made up from model and serial (`t10.`) is no such name.
fn world_wide_name(wwid: &str) -> Option<String> {
    let digits = wwid.strip_prefix("naa.").or_else(|| wwid.strip_prefix("eui.")).unwrap_or(wwid);
    let is_nothing = digits.bytes().all(|byte| byte == b'0');
    match wwid {
        _ if is_nothing || wwid.starts_with("t10.") => None,
        _ if wwid.starts_with("naa.") => Some(format!("0x{digits}")),
        _ => Some(wwid.to_owned()),
    }
}

/// The text of a "unit serial number" page (SPC-5, 7.7.17).
fn page_text(page: &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..)?.get(..length)?).into_owned();
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The NAA designator of the logical unit in a "device identification" page (SPC-5, 7.7.6).
fn page_name(page: &[u8]) -> Option<String> {
    let mut rest = page.get(4..)?;
    while let [_, kind, _, length, tail @ ..] = rest {
        let (designator, after) = tail.split_at_checked(usize::from(*length))?;
        let (association, kind) = (kind >> 4 & 3, kind & 0xf);
        if association == 0 && kind == 3 {
            let digits: String = designator.iter().map(|byte| format!("{byte:02x}")).collect();
            return world_wide_name(&format!("naa.{digits}"));
        }
        rest = after;
    }
    None
}

/// Words of IDENTIFY DEVICE (ACS-4, 7.13.6) in the "ATA information" page (SAT-4, 12.4.2); the SCSI inquiry cuts
/// the model after 16 letters.
fn ata_text(page: &[u8], words: std::ops::Range<usize>) -> Option<String> {
    let identify = page.get(60..60 + 512)?;
    let bytes: Vec<u8> = identify[words.start * 2..words.end * 2].chunks_exact(2).flat_map(|w| [w[1], w[0]]).collect();
    let text = String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        assert_eq!(page_text(b"\0\x80\0\x08 S3YJNX0").as_deref(), Some("S3YJNX0"));
        assert_eq!(page_text(b"\0\x80\0\x40short"), None);
        let page = b"\0\x83\0\x16\x02\x01\0\x04abcd\x01\x03\0\x08\x50\0\xc5\0\xe8\x46\x08\xbf\x01";
        assert_eq!(page_name(page).as_deref(), Some("0x5000c500e84608bf"));
        assert_eq!(page_name(b"\0\x83\0\x04\x01\x03\0\xff"), None);
        let mut page = vec![b' '; 572];
        page[60 + 54..60 + 58].copy_from_slice(b"aSsm");
        assert_eq!(ata_text(&page, 27..47).as_deref(), Some("Sams"));
    }

    #[test]
    fn world_wide_names() {
        for (wwid, name) in [
            ("naa.5000c500e84608bf", Some("0x5000c500e84608bf")),
            ("eui.0025385b21404321", Some("eui.0025385b21404321")),
            ("naa.0000000000000000", None),
            ("t10.ATA     QEMU HARDDISK", None),
        ] {
            assert_eq!(world_wide_name(wwid).as_deref(), name, "{wwid}");
        }
    }
}
