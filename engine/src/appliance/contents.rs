//! What the initramfs holds, in three layers that change at different times.
//!
//! In: a board, unpacked packages, the init and what its owner bakes in. Out: [`Layer`]s: modules and firmware (change
//! with the kernel), tools (change with the distribution), own files (change with every build). Each is packed for
//! itself, because the kernel unpacks several archives one after the other.
//! Invariant: every file knows its package; nothing is taken that is not listed or needed.

use std::collections::BTreeMap;
use std::io;

use rayon::prelude::*;
use thiserror::Error;

use super::archive::{Archive, Node};
use super::elf::ElfError;
use super::kmod::{Index, ModInfo, ModuleError};
use super::libraries::{self, LibraryError};
use super::overlay::{Kind, MERGED, Overlay, OverlayError, canonical};
use crate::catalogue::Board;

/// A part of the initramfs and where its files come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    pub archive: Archive,
    /// By path: an index into [`Overlay::packages`]. What is not here, castiron made itself.
    pub origins: BTreeMap<String, usize>,
}

#[derive(Debug, Error)]
pub enum ContentsError {
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("cannot read module {path}")]
    Modinfo {
        path: String,
        #[source]
        cause: ElfError,
    },
    #[error("the packages hold {count} kernels; exactly one is needed")]
    Kernels { count: usize },
    #[error("cannot compress {path}")]
    Compress {
        path: String,
        #[source]
        cause: io::Error,
    },
}

/// What the module layer was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleReport {
    pub modules: usize,
    /// Listed by the board, not in this kernel.
    pub absent: Vec<String>,
    /// Named by a chosen module, in none of the packages.
    pub missing_firmware: Vec<String>,
}

/// Compresses one file; handed in because a cache may know the result.
pub type Compress<'a> = &'a (dyn Fn(&[u8]) -> io::Result<Vec<u8>> + Sync);

impl Layer {
    /// Takes a file of the packages and the links that lead to it.
    pub fn take(&mut self, overlay: &Overlay, path: &str) -> Result<(), OverlayError> {
        let found = overlay.get(path)?;
        for (link, item) in &found.links {
            if let Kind::Link { target } = &item.kind {
                self.archive.link(link, target);
                self.origins.insert(link.clone(), item.package);
            }
        }
        if let Kind::File { mode } = found.item.kind {
            self.archive.file(&found.path, mode & 0o755, found.item.read()?);
            self.origins.insert(found.path, found.item.package);
        }
        Ok(())
    }
}

/// The release of the one kernel that the packages hold, as `uname -r` will say.
pub fn kernel_release(overlay: &Overlay) -> Result<String, ContentsError> {
    let mut releases: Vec<&str> = overlay
        .below("boot")
        .filter_map(|(path, _)| path.strip_prefix("boot/vmlinuz-"))
        .filter(|name| !name.contains('/'))
        .collect();
    match (releases.pop(), releases.len()) {
        (Some(release), 0) => Ok(release.to_owned()),
        (last, others) => Err(ContentsError::Kernels { count: others + usize::from(last.is_some()) }),
    }
}

/// The board's modules with all they need, each compressed for itself: they cost a quarter of the memory, and only
/// those that a machine wants are ever unpacked.
pub fn modules(
    overlay: &Overlay,
    board: &Board,
    release: &str,
    compress: Compress,
) -> Result<(Layer, ModuleReport), ContentsError> {
    let folder = format!("usr/lib/modules/{release}");
    let within = |path: &str| path.strip_prefix(&folder).map(|path| path.trim_start_matches('/').to_owned());
    let modules: Vec<_> = overlay.below(&folder).filter(|(path, _)| path.ends_with(".ko")).collect();
    let read: Result<Vec<_>, ContentsError> = modules
        .par_iter()
        .map(|(path, item)| {
            let info = ModInfo::of_module(&item.read()?)
                .map_err(|cause| ContentsError::Modinfo { path: (*path).to_owned(), cause })?;
            Ok((within(path).unwrap_or_default(), info))
        })
        .collect();
    let builtin = overlay.get(&format!("{folder}/modules.builtin"))?.item.read()?;
    let index = Index::new(read?, &String::from_utf8_lossy(&builtin));
    let selection = index.select(board.modules.classes.values().flatten(), &board.modules.required)?;

    let packed: Result<Vec<_>, ContentsError> = selection
        .paths
        .par_iter()
        .map(|path| {
            let item = overlay.get(&format!("{folder}/{path}"))?.item;
            let content =
                compress(&item.read()?).map_err(|cause| ContentsError::Compress { path: path.clone(), cause })?;
            Ok((format!("{folder}/{path}.zst"), item.package, content))
        })
        .collect();
    let mut layer = Layer::default();
    for (path, package, content) in packed? {
        layer.archive.file(&path, 0o644, content);
        layer.origins.insert(path, package);
    }
    layer.archive.file(&format!("{folder}/modules.builtin"), 0o644, builtin);
    layer.archive.file(&format!("{folder}/modules.dep"), 0o644, index.dep(&selection, ".zst")?);
    layer.archive.file(&format!("{folder}/modules.alias"), 0o644, index.alias(&selection));
    layer.archive.file(&format!("{folder}/modules.softdep"), 0o644, index.softdep(&selection));

    let mut report =
        ModuleReport { modules: selection.paths.len(), absent: selection.absent, missing_firmware: Vec::new() };
    let excluded = |name: &str| board.firmware_packages.exclude.iter().any(|prefix| name.starts_with(prefix));
    for name in selection.firmware.iter().filter(|name| !excluded(name)) {
        let path = format!("usr/lib/firmware/{name}");
        match overlay.find(&path)? {
            Some(_) => layer.take(overlay, &path)?,
            None => report.missing_firmware.push(name.clone()),
        }
    }
    Ok((layer, report))
}

/// A program that plans can call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it is called by.
    pub name: String,
    /// Where its package has it.
    pub path: String,
}

/// Programs with their libraries, the settings that their packages keep right below `/etc`, and the names they are
/// called by.
pub fn tools(overlay: &Overlay, programs: &[Program], multiarch: &str) -> Result<Layer, ContentsError> {
    let mut layer = Layer::default();
    let paths: Vec<&str> = programs.iter().map(|program| program.path.as_str()).collect();
    for path in libraries::closure(overlay, &paths, multiarch)? {
        layer.take(overlay, &path)?;
    }
    for program in programs {
        let found = overlay.get(&program.path)?;
        let is_setting = |path: &str| path.ends_with(".conf") && path.matches('/').count() == 1;
        let settings =
            overlay.below("etc").filter(|(path, item)| item.package == found.item.package && is_setting(path));
        for (path, _) in settings {
            layer.take(overlay, path)?;
        }
        let asked = canonical(&program.path);
        let (folder, file) = asked.rsplit_once('/').unwrap_or(("", &asked));
        if file != program.name {
            let link = format!("{folder}/{}", program.name);
            layer.archive.link(&link, file);
            layer.origins.insert(link, found.item.package);
        }
    }
    Ok(layer)
}

/// What is neither a module nor a tool.
#[derive(Clone, Debug, Default)]
pub struct Own<'a> {
    pub init: &'a [u8],
    /// Public keys that configs may be signed with: file name and content.
    pub trusted_keys: &'a [(String, Vec<u8>)],
    /// Certificate authorities for https besides the usual ones: file name and PEM.
    pub authorities: &'a [(String, Vec<u8>)],
    pub config: Option<&'a [u8]>,
    /// Where Debian packages come from unless the config says otherwise: lines of sources.list(5).
    pub sources: Option<&'a str>,
    /// OpenPGP keys of that archive, where they are not the distribution's own.
    pub archive_keys: Option<&'a [u8]>,
    /// The dates of the archives as they were when this was built, as `debian::Memory` keeps them: file name and content.
    pub releases: &'a [(String, Vec<u8>)],
    /// Seconds since 1970; the clock of the machine is at least this.
    pub date: i64,
}

/// Where the appliance looks for the archive's keys before it looks where the distribution keeps them; below the root.
pub const ARCHIVE_KEYS: &str = "etc/castiron/archive-keys.gpg";

/// Where the appliance keeps the dates of archives (`debian::Memory`); below the root.
pub const RELEASES: &str = "etc/castiron/releases";

/// Folders that mounts and programs expect.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib32", 0o755),
    ("usr/lib64", 0o755),
    ("usr/libx32", 0o755),
    ("usr/sbin", 0o755),
    ("var/tmp", 0o1777),
];

/// Commands of busybox that a person in the rescue shell expects.
const RESCUE_COMMANDS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "basename",
    "blkid",
    "cat",
    "chmod",
    "clear",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "du",
    "echo",
    "env",
    "find",
    "free",
    "fdisk",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "less",
    "ln",
    "ls",
    "lsmod",
    "lspci",
    "lsusb",
    "mkdir",
    "more",
    "mount",
    "mv",
    "netstat",
    "nslookup",
    "ping",
    "ping6",
    "poweroff",
    "ps",
    "pwd",
    "readlink",
    "reboot",
    "rm",
    "rmdir",
    "route",
    "sed",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "test",
    "tftp",
    "top",
    "touch",
    "traceroute",
    "tr",
    "true",
    "umount",
    "uname",
    "uptime",
    "vi",
    "wc",
    "wget",
    "which",
    "xargs",
    "zcat",
];

/// The init, the owner's files, and what the distribution knows about trust.
pub fn own(overlay: &Overlay, board: &Board, own: &Own) -> Result<Layer, ContentsError> {
    let mut layer = Layer::default();
    let archive = &mut layer.archive;
    for (path, mode) in FOLDERS {
        archive.folder(path, *mode);
    }
    for name in MERGED {
        archive.link(name, &format!("usr/{name}"));
    }
    archive.link("init", "usr/sbin/castiron-init");
    archive.file("usr/sbin/castiron-init", 0o755, own.init);
    archive.file("etc/castiron/build-date", 0o644, format!("{}\n", own.date));
    archive.file("etc/castiron/board", 0o644, format!("{}\n", board.name));
    archive.file("etc/castiron/modules-load", 0o644, board.modules.preload.join("\n") + "\n");
    archive.folder("etc/castiron/trusted-keys", 0o755);
    for (name, key) in own.trusted_keys {
        archive.file(&format!("etc/castiron/trusted-keys/{name}"), 0o644, key.as_slice());
    }
    archive.folder(RELEASES, 0o755);
    for (name, date) in own.releases {
        archive.file(&format!("{RELEASES}/{name}"), 0o644, date.as_slice());
    }
    for (name, authority) in own.authorities {
        archive.file(&format!("etc/castiron/ca/{name}"), 0o644, authority.as_slice());
    }
    if let Some(config) = own.config {
        archive.file("etc/castiron/config.yaml", 0o600, config);
    }
    if let Some(sources) = own.sources {
        archive.file("etc/castiron/sources.list", 0o644, sources);
    }
    if let Some(keys) = own.archive_keys {
        archive.file(ARCHIVE_KEYS, 0o644, keys);
    }
    archive.link("etc/mtab", "../proc/self/mounts");
    if overlay.find("usr/bin/busybox")?.is_some() {
        for command in RESCUE_COMMANDS {
            archive.link(&format!("usr/bin/{command}"), "busybox");
        }
    }
    let mut certificates = Vec::new();
    for (_, item) in overlay.below("usr/share/ca-certificates").filter(|(path, _)| path.ends_with(".crt")) {
        certificates.extend(item.read()?);
        layer.origins.entry("etc/ssl/certs/ca-certificates.crt".to_owned()).or_insert(item.package);
    }
    if !certificates.is_empty() {
        layer.archive.file("etc/ssl/certs/ca-certificates.crt", 0o644, certificates);
    }
    let keyrings: Vec<String> = overlay
        .below("usr/share/keyrings")
        .filter(|(path, _)| path.contains("archive-keyring"))
        .map(|(path, _)| path.to_owned())
        .collect();
    for path in keyrings.iter().filter(|path| !path.contains("removed")) {
        layer.take(overlay, path)?;
    }
    Ok(layer)
}

impl Layer {
    /// The size of all files, unpacked.
    pub fn content_bytes(&self) -> u64 {
        self.archive
            .iter()
            .map(|(_, node)| if let Node::File { content, .. } = node { content.len() as u64 } else { 0 })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn the_keys_of_another_archive_are_baked_in() {
        let catalogue = Catalogue::shipped().unwrap();
        let overlay = Overlay::read([]).unwrap();
        for keys in [Some(&b"keys"[..]), None] {
            let layer = own(&overlay, &catalogue.boards[0], &Own { archive_keys: keys, ..Own::default() }).unwrap();
            let baked = layer.archive.iter().find(|(path, _)| *path == ARCHIVE_KEYS).map(|(_, node)| node.clone());
            assert_eq!(baked, keys.map(|keys| Node::File { mode: 0o644, content: keys.to_vec() }));
        }
    }
}
