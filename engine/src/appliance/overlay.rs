//! Unpacked packages seen as one tree, each file with the package it came from.
//!
//! In: the folders that packages were unpacked into. Out: files by their path in the merged tree,
//! symbolic links followed inside it. Debian's merged `/usr` (`/bin`, `/lib`, … are links) is applied,
//! because packages may ship either form.
//! Invariant: nothing outside the given folders is ever read, whatever a link says.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::units::Digest;

/// A package as the archive names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// Of the package file.
    pub sha256: Option<Digest>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { mode: u32 },
    Link { target: String },
}

/// One file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Index into [`Overlay::packages`].
    pub package: usize,
    pub kind: Kind,
    /// Where it lies on this machine.
    pub host: PathBuf,
    /// Seconds since 1970.
    pub modified: i64,
}

/// The merged tree.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    pub packages: Vec<Package>,
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Error)]
pub enum OverlayError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("none of the packages has {path}")]
    Missing { path: String },
    #[error("{path}: the links that lead there go in a circle")]
    Circle { path: String },
}

/// dpkg's own notes: made when a package is unpacked, no part of it.
const DATABASE: &str = "var/lib/dpkg";

/// Folders that are links into `/usr` in every Debian since bookworm (policy: merged `/usr`).
pub const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// A path as the overlay knows it: no leading slash, no `.` and `..`, merged `/usr`.
pub fn canonical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.first().is_some_and(|first| MERGED.contains(first)) && parts.len() > 1 {
        parts.insert(0, "usr");
    }
    parts.join("/")
}

/// A file and the links that were followed to it.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    pub path: String,
    pub item: &'a Item,
    pub links: Vec<(String, &'a Item)>,
}

impl Overlay {
    /// Reads the folders; a later package wins where two have the same path.
    pub fn read(packages: impl IntoIterator<Item = (Package, PathBuf)>) -> Result<Self, OverlayError> {
        let mut overlay = Self::default();
        for (package, folder) in packages {
            overlay.packages.push(package);
            overlay.add(&folder, "")?;
        }
        Ok(overlay)
    }

    fn add(&mut self, folder: &Path, below: &str) -> Result<(), OverlayError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |cause| OverlayError::Read { path, cause }
        };
        for entry in std::fs::read_dir(folder).map_err(error(folder))? {
            let host = entry.map_err(error(folder))?.path();
            let name = host.file_name().unwrap_or_default().to_string_lossy();
            let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            let metadata = host.symlink_metadata().map_err(error(&host))?;
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => {
                    if path == DATABASE {
                        continue;
                    }
                    self.add(&host, &path)?;
                    continue;
                }
                kind if kind.is_symlink() => {
                    Kind::Link { target: host.read_link().map_err(error(&host))?.to_string_lossy().into_owned() }
                }
                kind if kind.is_file() => Kind::File { mode: metadata.mode() & 0o7777 },
                _ => continue,
            };
            let item = Item { package: self.packages.len() - 1, kind, host, modified: metadata.mtime() };
            self.items.insert(canonical(&path), item);
        }
        Ok(())
    }

    /// The file that `path` leads to, links followed.
    pub fn find(&self, path: &str) -> Result<Option<Found<'_>>, OverlayError> {
        const LINKS_MAX: usize = 40; // as the kernel: path_resolution(7)
        let mut wanted = canonical(path);
        let mut links = Vec::new();
        while let Some((end, item, target)) = self.first_link(&wanted) {
            if links.len() == LINKS_MAX {
                return Err(OverlayError::Circle { path: path.to_owned() });
            }
            let (at, rest) = wanted.split_at(end);
            let folder = at.rsplit_once('/').map_or("", |(folder, _)| folder);
            let next = match target.starts_with('/') {
                true => format!("{target}{rest}"),
                false => format!("{folder}/{target}{rest}"),
            };
            links.push((at.to_owned(), item));
            wanted = canonical(&next);
        }
        Ok(self.items.get(&wanted).map(|item| Found { path: wanted, item, links }))
    }

    /// Where the first part of `path` that is a link ends, and the link with its target.
    fn first_link(&self, path: &str) -> Option<(usize, &Item, &str)> {
        let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.find_map(|end| match self.items.get(&path[..end]) {
            Some(item @ Item { kind: Kind::Link { target }, .. }) => Some((end, item, target.as_str())),
            _ => None,
        })
    }

    /// As [`Overlay::find`], but a missing file is an error.
    pub fn get(&self, path: &str) -> Result<Found<'_>, OverlayError> {
        self.find(path)?.ok_or_else(|| OverlayError::Missing { path: path.to_owned() })
    }

    /// Everything below a folder, sorted by path.
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Item)> + use<'a> {
        let folder = format!("{}/", canonical(folder));
        let from = folder.clone();
        self.items
            .range(from..)
            .take_while(move |(path, _)| path.starts_with(&folder))
            .map(|(path, item)| (path.as_str(), item))
    }

    pub fn package_of(&self, item: &Item) -> &Package {
        &self.packages[item.package]
    }

    /// The newest file's time in seconds since 1970: a date that depends on the packages alone.
    pub fn newest(&self) -> i64 {
        self.items
            .values()
            .filter(|item| matches!(item.kind, Kind::File { .. }))
            .map(|item| item.modified)
            .max()
            .unwrap_or(0)
    }
}

impl Item {
    pub fn read(&self) -> Result<Vec<u8>, OverlayError> {
        std::fs::read(&self.host).map_err(|cause| OverlayError::Read { path: self.host.clone(), cause })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn package(name: &str) -> Package {
        Package { name: name.into(), version: "1".into(), architecture: "amd64".into(), sha256: None }
    }

    #[test]
    fn links_are_followed_inside_the_tree_and_merged_usr_applies() {
        let root = tempfile::tempdir().unwrap();
        let (libc, tool) = (root.path().join("libc"), root.path().join("tool"));
        std::fs::create_dir_all(libc.join("lib/x86_64-linux-gnu")).unwrap();
        std::fs::create_dir_all(libc.join("lib64")).unwrap();
        std::fs::write(libc.join("lib/x86_64-linux-gnu/ld.so"), "loader").unwrap();
        symlink("/lib/x86_64-linux-gnu/ld.so", libc.join("lib64/ld-linux.so.2")).unwrap();
        std::fs::create_dir_all(tool.join("usr/sbin")).unwrap();
        symlink("../../../../../../etc/passwd", tool.join("usr/sbin/escape")).unwrap();
        symlink("b", tool.join("usr/sbin/a")).unwrap();
        symlink("a", tool.join("usr/sbin/b")).unwrap();
        let overlay = Overlay::read([(package("libc"), libc), (package("tool"), tool)]).unwrap();

        let found = overlay.get("/lib64/ld-linux.so.2").unwrap();
        assert_eq!(found.path, "usr/lib/x86_64-linux-gnu/ld.so");
        assert_eq!(found.links[0].0, "usr/lib64/ld-linux.so.2");
        assert_eq!(overlay.package_of(found.item).name, "libc");
        assert_eq!(found.item.read().unwrap(), b"loader");
        assert!(overlay.find("/sbin/escape").unwrap().is_none(), "a link must not lead out of the tree");
        assert!(matches!(overlay.find("/sbin/a"), Err(OverlayError::Circle { .. })));
        assert_eq!(overlay.below("/usr/sbin").count(), 3);
    }

    #[test]
    fn the_date_is_that_of_the_newest_file_of_a_package() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("var/lib/dpkg/info")).unwrap();
        std::fs::write(root.path().join("var/lib/dpkg/status"), "written today").unwrap();
        for (name, seconds) in [("old", 1_000), ("new", 2_000)] {
            let file = std::fs::File::create(root.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        let overlay = Overlay::read([(package("p"), root.path().to_owned())]).unwrap();
        assert_eq!(overlay.newest(), 2_000);
    }

    #[test]
    fn paths_have_one_form() {
        for (path, form) in
            [("/bin/sh", "usr/bin/sh"), ("usr//lib/./x", "usr/lib/x"), ("/lib", "lib"), ("/etc/../lib/x", "usr/lib/x")]
        {
            assert_eq!(canonical(path), form);
        }
    }
}
