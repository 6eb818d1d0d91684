//! The bill of materials: every file of the appliance, where it comes from and under which licence.
//!
//! In: layers, packages, outputs. Out: `manifest.json`. Invariant: sorted, and free of anything that differs between
//! two builds of the same inputs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::archive::Node;
use super::contents::Layer;
use super::licence::licences;
use super::overlay::{Overlay, Package};
use crate::units::{Bytes, Digest};

#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    pub schema: u32,
    pub castiron: String,
    pub board: String,
    pub arch: String,
    /// `uname -r`.
    pub kernel: String,
    pub cmdline: String,
    /// Seconds since 1970: the date that all files carry.
    pub date: i64,
    pub totals: Totals,
    pub outputs: Vec<Output>,
    pub packages: Vec<PackageEntry>,
    pub files: Vec<FileEntry>,
    /// Modules that the board lists and this kernel does not have.
    pub absent_modules: Vec<String>,
    /// Firmware that a module names and none of the packages has.
    pub missing_firmware: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub packages: usize,
    pub files: usize,
    pub modules: usize,
    /// The size of all files, unpacked.
    pub unpacked: Bytes,
    /// The size of the initramfs.
    pub packed: Bytes,
}

/// A file to boot from.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    pub name: String,
    pub size: Bytes,
    pub sha256: String,
}

/// A package that a file of the appliance comes from.
#[derive(Clone, Debug, Serialize)]
pub struct PackageEntry {
    #[serde(flatten)]
    pub package: Package,
    /// Short names; empty if the package's copyright file cannot be read by a machine.
    pub licences: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    pub path: String,
    pub mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The package's name; `castiron` for what the build made itself.
    pub package: String,
}

impl Output {
    pub fn new(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), size: Bytes(content.len() as u64), sha256: Digest::of(content).hex() }
    }
}

/// Every file and link of the layers; where two layers have the same path, the later one counts, as in the kernel.
pub fn files(overlay: &Overlay, layers: &[&Layer]) -> Vec<FileEntry> {
    let mut files = BTreeMap::new();
    for layer in layers {
        for (path, node) in layer.archive.iter() {
            let package = layer.origins.get(path).map_or("castiron", |index| &overlay.packages[*index].name).to_owned();
            let entry = |mode: u32| FileEntry {
                path: path.to_owned(),
                mode: format!("{mode:04o}"),
                size: None,
                sha256: None,
                link: None,
                package,
            };
            let entry = match node {
                Node::Folder { .. } => continue,
                Node::File { mode, content } => FileEntry {
                    size: Some(Bytes(content.len() as u64)),
                    sha256: Some(Digest::of(content).hex()),
                    ..entry(*mode)
                },
                Node::Link { target } => FileEntry { link: Some(target.clone()), ..entry(0o777) },
            };
            files.insert(path, entry);
        }
    }
    files.into_values().collect()
}

/// The packages that files or outputs come from, with their licences.
pub fn packages(overlay: &Overlay, layers: &[&Layer], others: &[usize]) -> Vec<PackageEntry> {
    let used: BTreeSet<usize> = layers.iter().flat_map(|layer| layer.origins.values()).chain(others).copied().collect();
    let mut entries: Vec<PackageEntry> = used
        .into_iter()
        .map(|index| {
            let package = overlay.packages[index].clone();
            let copyright = overlay.find(&format!("usr/share/doc/{}/copyright", package.name)).ok().flatten();
            let text = copyright.and_then(|found| found.item.read().ok()).unwrap_or_default();
            PackageEntry { licences: licences(&String::from_utf8_lossy(&text)), package }
        })
        .collect();
    entries.sort_by(|a, b| a.package.cmp(&b.package));
    entries
}

impl Manifest {
    /// The text of `manifest.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("the manifest holds nothing but text and numbers") + "\n"
    }
}
