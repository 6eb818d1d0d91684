//! What uses a disk now: mounts, swap, and what is built on it or its partitions.
//!
//! In: a root. Out: [`Holder`]s. Invariant: only files below `sys` and `proc` are read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::disk::{Disk, Holder, HolderKind};
use super::sysfs::{attribute, names};

/// What the whole machine uses, read once.
pub struct Users {
    mounts: Vec<Mount>,
    /// Kernel names.
    swaps: BTreeSet<String>,
    /// Of each mounted btrfs, the kernel names of all its devices.
    btrfs: Vec<(String, Vec<String>)>,
}

struct Mount {
    /// `8:1`; of a file system on several devices it is none of theirs.
    number: String,
    point: String,
    kind: String,
    /// The kernel's name if the source is a device.
    source: String,
}

impl Users {
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read(root.join(path)).unwrap_or_default();
        let text = |path: &str| String::from_utf8_lossy(&text(path)).into_owned();
        let btrfs = root.join("sys/fs/btrfs");
        Self {
            mounts: parse_mounts(&text("proc/self/mountinfo")),
            swaps: parse_swaps(&text("proc/swaps")),
            btrfs: names(&btrfs).into_iter().map(|id| (id.clone(), names(&btrfs.join(&id).join("devices")))).collect(),
        }
    }

    /// Sets the holders of a disk and its partitions.
    pub fn hold(&self, root: &Path, disk: &mut Disk) {
        let directory = root.join("sys/block").join(&disk.name);
        let mut found = Vec::new();
        self.of(root, &directory, &disk.name, &mut found);
        for partition in &disk.partitions {
            self.of(root, &directory.join(&partition.name), &partition.name, &mut found);
        }
        for holder in found {
            if !disk.holders.contains(&holder) {
                disk.holders.push(holder);
            }
        }
    }

    /// Adds what uses one block device, then what uses that, and so on.
    fn of(&self, root: &Path, directory: &Path, name: &str, found: &mut Vec<Holder>) {
        let number = attribute(&directory.join("dev")).unwrap_or_default();
        let on = |kind, holder: &str, detail: String| Holder { kind, name: holder.to_owned(), detail };
        let mut mounted = false;
        for mount in self.mounts.iter().filter(|mount| mount.number == number || mount.source == name) {
            found.push(on(HolderKind::Mount, &mount.point, format!("{} on {name}", mount.kind)));
            mounted = true;
        }
        if self.swaps.contains(name) {
            found.push(on(HolderKind::Swap, name, "in use".to_owned()));
        }
        for (id, devices) in &self.btrfs {
            if !mounted && devices.iter().any(|device| device == name) {
                found.push(on(HolderKind::Other, &format!("btrfs {id}"), format!("mounted, on {name}")));
            }
        }
        for holder in names(&directory.join("holders")) {
            let upper = root.join("sys/block").join(&holder);
            let (kind, holder_name, detail) = describe(&upper, &holder);
            let detail = if detail.is_empty() { format!("on {name}") } else { format!("{detail}, on {name}") };
            found.push(Holder { kind, name: holder_name, detail });
            // A device cannot stand on itself, so this ends.
            self.of(root, &upper, &holder, found);
            for partition in names(&upper).iter().filter(|partition| upper.join(partition).join("partition").exists()) {
                self.of(root, &upper.join(partition), partition, found);
            }
        }
        for user in loops_on(root, name) {
            found.push(on(HolderKind::Loop, &user, format!("on {name}")));
        }
    }
}

/// Loop devices whose file is this device.
fn loops_on(root: &Path, name: &str) -> Vec<String> {
    let block = root.join("sys/block");
    let is_on = |device: &String| {
        device.starts_with("loop")
            && attribute(&block.join(device).join("loop/backing_file"))
                .is_some_and(|file| file == format!("/dev/{name}"))
    };
    names(&block).into_iter().filter(is_on).collect()
}

/// Kind, name and detail of what is built on others. Device-mapper's users say who they are before the first dash.
fn describe(directory: &Path, name: &str) -> (HolderKind, String, String) {
    if let Some(level) = attribute(&directory.join("md/level")) {
        return (HolderKind::Md, name.to_owned(), level);
    }
    let mapping = attribute(&directory.join("dm/name")).unwrap_or_else(|| name.to_owned());
    let id = attribute(&directory.join("dm/uuid")).unwrap_or_default();
    let kind = match id.split('-').next() {
        Some("LVM") => HolderKind::Lvm,
        Some("CRYPT") => HolderKind::Crypt,
        Some("mpath") => HolderKind::Multipath,
        _ => HolderKind::Other,
    };
    (kind, mapping, String::new())
}

/// proc_pid_mountinfo(5).
fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(2);
            let (number, point) = (before.next()?.to_owned(), unescape(before.nth(1)?));
            let mut after = after.split(' ');
            let kind = after.next()?.to_owned();
            let source = after.next()?.strip_prefix("/dev/").unwrap_or_default().to_owned();
            Some(Mount { number, point, kind, source })
        })
        .collect()
}

/// `\040` is a blank, and so on.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, c)| text.replace(code, c))
}

/// proc_swaps(5): a heading, then a device or file a line.
fn parse_swaps(text: &str) -> BTreeSet<String> {
    text.lines()
        .skip(1)
        .filter_map(|line| Some(line.split_whitespace().next()?.strip_prefix("/dev/")?.to_owned()))
        .collect()
}
