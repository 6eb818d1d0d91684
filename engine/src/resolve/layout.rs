//! The layout in one form: dib's tree and digraph, mixed as they may be, become flat entries with a base each.
//!
//! In: [`Storage`] as written. Out: [`Flat`], in the order of the config, children behind what they stand in.
//! A missing `base` is the name of what the entry stands in; a missing `name` is the module and the base.

use crate::config::storage::{Disk, DiskMatch, LocalLoop, Pick, Wipe};
use crate::config::storage::{
    Esp, FileSystemType, Fstab, Layout, Mkfs, Mount, Partition, Partitioning, Storage, TableKind,
};
use crate::config::values::{OneOrMany, Size};
use crate::diagnostic::Diagnostic;
use crate::units::Bytes;

/// Something with a name, a base and a place in the config.
#[derive(Debug)]
pub struct Item<'a, T> {
    pub path: String,
    pub name: String,
    pub base: String,
    pub written: &'a T,
}

#[derive(Debug, Default)]
pub struct Flat<'a> {
    pub disks: Vec<(String, &'a Disk)>,
    pub images: Vec<(String, &'a LocalLoop)>,
    pub tables: Vec<Item<'a, Partitioning>>,
    pub filesystems: Vec<FlatFilesystem<'a>>,
    pub mounts: Vec<FlatMount<'a>>,
    pub fstabs: Vec<Item<'a, Fstab>>,
    pub found: Vec<(String, Diagnostic)>,
}

#[derive(Debug)]
pub struct FlatFilesystem<'a> {
    pub path: String,
    pub name: String,
    pub base: String,
    pub kind: FileSystemType,
    pub label: Option<&'a str>,
    pub opts: &'a [String],
    pub uuid: Option<&'a str>,
}

#[derive(Debug)]
pub struct FlatMount<'a> {
    pub path: String,
    pub name: String,
    pub base: String,
    /// Swap has none.
    pub mount_point: Option<&'a str>,
}

/// Without a layout: what starts by BIOS and by UEFI, on the only disk.
pub fn default() -> Storage {
    let partition = |name: &str, kind: &str, size: Size| Partition {
        name: name.to_owned(),
        size,
        r#type: Some(kind.to_owned()),
        flags: Vec::new(),
        label: None,
        mkfs: None,
        mount: None,
        esp: None,
        luks: None,
        lvm: None,
        raid: None,
        btrfs: None,
    };
    let esp = Esp { name: None, base: OneOrMany::default(), mount_point: None, label: None, sync: None };
    let root = Mkfs {
        name: None,
        base: None,
        r#type: FileSystemType::Ext4,
        label: Some("root".to_owned()),
        opts: OneOrMany::default(),
        uuid: None,
        mount: Some(Box::new(Mount {
            name: None,
            base: None,
            mount_point: "/".parse().ok(),
            format: None,
            fstab: Some(Box::new(Fstab {
                name: None,
                base: None,
                options: Some("errors=remount-ro".to_owned()),
                dump_freq: None,
                fsck_passno: None,
            })),
        })),
    };
    let partitions = vec![
        partition("bios", "bios-boot", Size::Exact(Bytes::mib(1))),
        Partition { esp: Some(Box::new(esp)), ..partition("esp", "esp", Size::Exact(Bytes::mib(128))) },
        Partition { mkfs: Some(Box::new(root)), ..partition("root", "root", Size::REST) },
    ];
    let table = Partitioning { name: None, base: None, label: TableKind::Gpt, align: None, partitions };
    let disk = Disk {
        name: "system".to_owned(),
        r#match: DiskMatch::default(),
        pick: Pick::Only,
        wipe: Wipe::Refuse,
        allow_boot_medium: false,
        preserve: None,
        partitioning: Some(Box::new(table)),
        mkfs: None,
    };
    Storage { layout: vec![Layout::Disk(Box::new(disk))] }
}

/// Never fails: what is wrong stands in [`Flat::found`], and the rest is still looked at.
pub fn flatten(storage: &Storage) -> Flat<'_> {
    let mut flat = Flat::default();
    for (index, entry) in storage.layout.iter().enumerate() {
        let path = format!("storage.layout[{index}]");
        match entry {
            Layout::Disk(disk) => {
                let path = format!("{path}.disk");
                flat.disks.push((path.clone(), disk));
                flat.children(&path, &disk.name, disk.partitioning.as_deref(), disk.mkfs.as_deref());
            }
            Layout::LocalLoop(image) => {
                let path = format!("{path}.local_loop");
                flat.images.push((path.clone(), image));
                flat.children(&path, &image.name, image.partitioning.as_deref(), image.mkfs.as_deref());
            }
            Layout::Partitioning(table) => flat.table(format!("{path}.partitioning"), None, table),
            Layout::Mkfs(mkfs) => flat.mkfs(format!("{path}.mkfs"), None, mkfs),
            Layout::Mount(mount) => flat.mount(format!("{path}.mount"), None, mount),
            Layout::Fstab(fstab) => flat.fstab(format!("{path}.fstab"), None, fstab),
            Layout::Esp(esp) => flat.esp(format!("{path}.esp"), None, esp),
            Layout::Raid(later) | Layout::Luks(later) | Layout::Lvm(later) | Layout::Btrfs(later) => match *later {},
        }
    }
    flat
}

impl<'a> Flat<'a> {
    fn children(&mut self, path: &str, name: &str, table: Option<&'a Partitioning>, mkfs: Option<&'a Mkfs>) {
        if let Some(table) = table {
            self.table(format!("{path}.partitioning"), Some(name), table);
        }
        if let Some(mkfs) = mkfs {
            self.mkfs(format!("{path}.mkfs"), Some(name), mkfs);
        }
    }

    /// The base as written, else what the entry stands in; a base that is missing is noted.
    fn base(&mut self, path: &str, written: Option<&String>, parent: Option<&str>) -> Option<String> {
        let base = written.map(String::as_str).or(parent).map(str::to_owned);
        if base.is_none() {
            let missing = Diagnostic::error("storage.base", "key `base` is missing");
            let hint = "name what this is made on, or put it inside that";
            self.found.push((path.to_owned(), missing.hint(hint)));
        }
        base
    }

    fn table(&mut self, path: String, parent: Option<&str>, written: &'a Partitioning) {
        let Some(base) = self.base(&path, written.base.as_ref(), parent) else { return };
        let name = written.name.clone().unwrap_or_else(|| format!("partitioning_{base}"));
        for (index, partition) in written.partitions.iter().enumerate() {
            let path = format!("{path}.partitions[{index}]");
            // A name that stands on several disks is told apart by the disk's.
            let qualified = format!("{base}/{}", partition.name);
            if let Some(mkfs) = &partition.mkfs {
                self.mkfs_in(format!("{path}.mkfs"), &qualified, &partition.name, mkfs);
            }
            if let Some(mount) = &partition.mount {
                self.mount(format!("{path}.mount"), Some(&qualified), mount);
            }
            if let Some(esp) = &partition.esp {
                self.esp(format!("{path}.esp"), Some((&qualified, &partition.name)), esp);
            }
        }
        self.tables.push(Item { path, name, base, written });
    }

    fn mkfs(&mut self, path: String, parent: Option<&str>, written: &'a Mkfs) {
        let Some(base) = self.base(&path, written.base.as_ref(), parent) else { return };
        self.mkfs_in(path, &base, &base, written);
    }

    fn mkfs_in(&mut self, path: String, parent: &str, short: &str, written: &'a Mkfs) {
        let base = written.base.clone().unwrap_or_else(|| parent.to_owned());
        let name = written.name.clone().unwrap_or_else(|| format!("mkfs_{short}"));
        if let Some(mount) = &written.mount {
            self.mount(format!("{path}.mount"), Some(&name), mount);
        }
        self.filesystems.push(FlatFilesystem {
            path,
            name,
            base,
            kind: written.r#type,
            label: written.label.as_deref(),
            opts: &written.opts.0,
            uuid: written.uuid.as_deref(),
        });
    }

    fn mount(&mut self, path: String, parent: Option<&str>, written: &'a Mount) {
        let Some(base) = self.base(&path, written.base.as_ref(), parent) else { return };
        let name = written.name.clone().unwrap_or_else(|| format!("mount_{base}"));
        if let Some(fstab) = &written.fstab {
            self.fstab(format!("{path}.fstab"), Some(&name), fstab);
        }
        let mount_point = written.mount_point.as_ref().map(|path| path.0.as_str()).filter(|path| *path != "none");
        self.mounts.push(FlatMount { path, name, base, mount_point });
    }

    fn fstab(&mut self, path: String, parent: Option<&str>, written: &'a Fstab) {
        let Some(base) = self.base(&path, written.base.as_ref(), parent) else { return };
        let name = written.name.clone().unwrap_or_else(|| format!("fstab_{base}"));
        self.fstabs.push(Item { path, name, base, written });
    }

    /// A vfat file system and its mount.
    fn esp(&mut self, path: String, parent: Option<(&str, &str)>, written: &'a Esp) {
        let (base, short) = match (written.base.0.as_slice(), parent) {
            ([], Some((qualified, short))) => (qualified.to_owned(), short.to_owned()),
            ([base], _) => (base.clone(), base.clone()),
            ([], None) => {
                self.base(&path, None, None);
                return;
            }
            (several, _) => {
                let message =
                    format!("{} bases; an ESP on several disks is not in this version of castiron", several.len());
                self.found.push((
                    format!("{path}.base"),
                    Diagnostic::error("config.later", message).hint("name one partition"),
                ));
                return;
            }
        };
        let name = written.name.clone().unwrap_or_else(|| format!("esp_{short}"));
        let mount_point = written.mount_point.as_ref().map_or("/boot/efi", |path| path.0.as_str());
        self.mounts.push(FlatMount {
            path: path.clone(),
            name: format!("mount_{name}"),
            base: name.clone(),
            mount_point: Some(mount_point),
        });
        let label = written.label.as_deref().or(Some("ESP"));
        self.filesystems.push(FlatFilesystem {
            path,
            name,
            base,
            kind: FileSystemType::Vfat,
            label,
            opts: &[],
            uuid: None,
        });
    }
}
