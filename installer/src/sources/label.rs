//! A config on a file system that is known by its label: a USB stick, a virtual CD.
//!
//! The file system is mounted read-only without replaying its journal, and unmounted at once.

use std::fs::{self, File};
use std::io::{self, Read as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use castiron_engine::units::Bytes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum LabelError {
    #[error("there is none")]
    Absent,
    #[error("several have this label: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
    #[error("cannot mount {device} ({kind})")]
    Mount {
        device: String,
        kind: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("it has no readable file {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is longer than the {} bytes allowed", path.display(), max.0)]
    TooLong { path: PathBuf, max: Bytes },
}

/// Where it is mounted meanwhile, below the root.
const MOUNT_POINT: &str = "run/castiron/config-medium";

/// Document and signature, or `None` if no file system has the label.
pub type Found = Option<(Vec<u8>, Option<Vec<u8>>)>;

/// Reads `path` and the signature beside it from the file system labelled `label`.
pub fn read(root: &Path, label: &str, path: &Path, max: Bytes, signature_max: Bytes) -> Result<Found, LabelError> {
    let mut found = devices(root, label);
    let (device, kind) = match (found.pop(), found.is_empty()) {
        (None, _) => return Ok(None),
        (Some(only), true) => only,
        (Some(last), false) => {
            let all = found.into_iter().chain([last]).map(|(device, _)| device.display().to_string());
            return Err(LabelError::Ambiguous(all.collect()));
        }
    };
    let mounted = Mounted::new(&device, kind, root.join(MOUNT_POINT))?;
    let document = mounted.read(path, max)?;
    let mut signature_path = path.as_os_str().to_owned();
    signature_path.push(".minisig");
    let signature = match mounted.read(Path::new(&signature_path), signature_max) {
        Ok(bytes) => Some(bytes),
        Err(LabelError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Some((document, signature)))
}

/// Block devices with a file system of that label, and its kind for mount(2).
fn devices(root: &Path, label: &str) -> Vec<(PathBuf, &'static str)> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/block")) else { return Vec::new() };
    let mut found: Vec<(PathBuf, &'static str)> = entries
        .filter_map(|entry| {
            let device = root.join("dev").join(entry.ok()?.file_name());
            let (kind, name) = probe(&mut File::open(&device).ok()?)?;
            (name == label).then_some((device, kind))
        })
        .collect();
    found.sort();
    // A hybrid image shows one and the same file system as the whole disk and as its first partition.
    found.dedup_by(|partition, disk| {
        partition.1 == "iso9660" && partition.0.to_string_lossy().starts_with(&*disk.0.to_string_lossy())
    });
    found
}

/// Kind and label of ext2 to ext4, FAT and ISO 9660 file systems.
fn probe(device: &mut (impl io::Read + io::Seek)) -> Option<(&'static str, String)> {
    let mut at = |offset: u64, length: usize| -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        device.seek(SeekFrom::Start(offset)).ok()?;
        device.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    // The superblock at 1024: magic at 56, volume name at 120 (ext4 disk layout).
    if let Some(superblock) = at(1024, 136)
        && superblock[56..58] == [0x53, 0xef]
    {
        return Some(("ext4", text(&superblock[120..136])));
    }
    // The primary volume descriptor: sector 16, identifier at 1, volume identifier at 40 (ECMA-119, 8.4).
    if let Some(descriptor) = at(16 * 2048, 72)
        && descriptor[..6] == *b"\x01CD001"
    {
        return Some(("iso9660", text(&descriptor[40..72])));
    }
    // The boot sector: FAT32 keeps its name at 71, FAT12 and FAT16 at 43, each before its type.
    let sector = at(0, 512)?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    if sector[82..87] == *b"FAT32" {
        return Some(("vfat", text(&sector[71..82])));
    }
    (sector[54..57] == *b"FAT").then(|| ("vfat", text(&sector[43..54])))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// A file system that is there until this is dropped.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(device: &Path, kind: &'static str, at: PathBuf) -> Result<Self, LabelError> {
        let failed = |source| LabelError::Mount { device: device.display().to_string(), kind, source };
        fs::create_dir_all(&at).map_err(failed)?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // A read-only mount of ext4 would otherwise write when it finds a journal to replay.
        let options = (kind == "ext4").then_some("noload");
        mount(Some(device), &at, Some(kind), flags, options).map_err(|error| failed(error.into()))?;
        Ok(Self { at })
    }

    /// Nothing on the medium, links included, leads out of it.
    fn read(&self, path: &Path, max: Bytes) -> Result<Vec<u8>, LabelError> {
        let failed = |source: io::Error| LabelError::File { path: path.to_owned(), source };
        let relative = path.strip_prefix("/").unwrap_or(path);
        let medium = File::open(&self.at).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file: OwnedFd =
            openat2(&medium, relative, flags, Mode::empty(), inside).map_err(|error| failed(error.into()))?;
        let file = File::from(file);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let mut bytes = Vec::new();
        file.take(max.0 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > max.0 {
            return Err(LabelError::TooLong { path: path.to_owned(), max });
        }
        Ok(bytes)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.at, MntFlags::MNT_DETACH) {
            tracing::warn!(at = %self.at.display(), %error, "cannot unmount the config medium");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(parts: &[(usize, &[u8])]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 40 << 10];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        Cursor::new(bytes)
    }

    #[test]
    fn labels_of_the_usual_file_systems() {
        let check = |parts: &[(usize, &[u8])], expected: Option<(&'static str, &str)>| {
            assert_eq!(probe(&mut image(parts)), expected.map(|(kind, label)| (kind, label.to_owned())));
        };
        check(&[(1024 + 56, &[0x53, 0xef]), (1024 + 120, b"SITE")], Some(("ext4", "SITE")));
        check(&[(510, &[0x55, 0xaa]), (82, b"FAT32   "), (71, b"CASTIRON   ")], Some(("vfat", "CASTIRON")));
        check(&[(510, &[0x55, 0xaa]), (54, b"FAT16   "), (43, b"STICK      ")], Some(("vfat", "STICK")));
        check(&[(32768, b"\x01CD001\x01"), (32768 + 40, b"CASTIRON            ")], Some(("iso9660", "CASTIRON")));
        check(&[(510, &[0x55, 0xaa])], None);
        check(&[], None);
        assert_eq!(probe(&mut Cursor::new(vec![0; 100])), None);
    }
}
