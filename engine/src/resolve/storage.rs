//! From a layout to the block graph: which disk, which bytes, which names and identities.
//!
//! In: the layout in its flat form, the machine's disks. Out: a [`BlockGraph`]. Mistakes are noted one after
//! the other; what depends on something wrong is passed over, so that no mistake is reported twice.

mod filesystems;
mod level_zero;
mod partitions;

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::layout::{self, Flat};
use crate::block::{self, BlockGraph, FsKind, Kind, Node};
use crate::config::storage::Storage;
use crate::diagnostic::Diagnostic;
use crate::units::{Bytes, NodeId};
use filesystems::{filesystems, mounts};
use level_zero::level_zero;
use partitions::{partition_names, partition_table};

const ALIGNMENT: Bytes = Bytes::mib(1);

/// A name that a file system can be made on.
struct Place {
    node: NodeId,
    length: Bytes,
}

/// `None` if there is no graph; the reasons are noted.
pub fn resolve(storage: &Storage, context: &mut Context<'_>) -> Option<BlockGraph> {
    let mut flat = layout::flatten(storage);
    for (path, diagnostic) in std::mem::take(&mut flat.found) {
        context.refuse(&path, diagnostic);
    }
    check_names(&flat, context);
    let disks = level_zero(&flat, context);
    let mut nodes: Vec<Node> = Vec::new();
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for (name, disk) in &disks {
        if let Some(disk) = disk {
            places.insert(name.clone(), Place { node: NodeId::new(name), length: disk.size });
            nodes.push(Node { id: NodeId::new(name), kind: Kind::Disk(disk.clone()) });
        }
    }
    let known_disks: BTreeSet<&str> = disks.keys().map(String::as_str).collect();
    let bare = partition_names(&flat);
    for table in &flat.tables {
        match disks.get(&table.base) {
            Some(Some(disk)) => {
                let Some(decided) = partition_table(table, disk, &flat, &bare, context) else { continue };
                for (partition, written) in decided.partitions.iter().zip(&table.written.partitions) {
                    let place = || Place { node: partition.node.clone(), length: partition.length };
                    places.insert(format!("{}/{}", table.base, written.name), place());
                    if bare[&written.name] == 1 {
                        places.insert(written.name.clone(), place());
                    }
                }
                nodes.push(Node { id: NodeId::new(&table.name), kind: Kind::Table(decided) });
            }
            Some(None) => {}
            None => {
                let known: Vec<&str> = known_disks.iter().copied().collect();
                unknown_base(context, &table.path, &table.name, &table.base, &known);
            }
        }
    }
    // Without all disks and tables it is not known which names are wrong.
    let complete = !context.found.has_errors();
    filesystems(&flat, &places, complete, &mut nodes, context);
    mounts(&flat, complete, &mut nodes, context);
    if context.found.has_errors() {
        return None;
    }
    match BlockGraph::new(nodes) {
        Ok(graph) => {
            check_root(&graph, context);
            Some(graph)
        }
        Err(error) => {
            let rule = match &error {
                block::GraphError::Duplicate(_) => "storage.duplicate",
                block::GraphError::UnknownBase { .. } => "storage.base",
                block::GraphError::Ring(_) => "storage.ring",
            };
            context.refuse("storage.layout", Diagnostic::error(rule, error.to_string()));
            None
        }
    }
}

/// dib: every name stands for one thing.
fn check_names(flat: &Flat<'_>, context: &mut Context<'_>) {
    let mut names: Vec<(&str, String)> = Vec::new();
    names.extend(flat.disks.iter().map(|(path, disk)| (disk.name.as_str(), format!("{path}.name"))));
    names.extend(flat.images.iter().map(|(path, image)| (image.name.as_str(), format!("{path}.name"))));
    names.extend(flat.tables.iter().map(|item| (item.name.as_str(), item.path.clone())));
    names.extend(flat.filesystems.iter().map(|item| (item.name.as_str(), item.path.clone())));
    names.extend(flat.mounts.iter().map(|item| (item.name.as_str(), item.path.clone())));
    names.extend(flat.fstabs.iter().map(|item| (item.name.as_str(), item.path.clone())));
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (name, path) in names {
        check_name(name, &path, context);
        if let Some(first) = seen.insert(name, path.clone()) {
            duplicate(context, name, &path, &first);
        }
    }
    for table in &flat.tables {
        let mut on_this_disk: BTreeMap<&str, String> = BTreeMap::new();
        for (index, partition) in table.written.partitions.iter().enumerate() {
            let path = format!("{}.partitions[{index}].name", table.path);
            check_name(&partition.name, &path, context);
            let first = on_this_disk
                .insert(&partition.name, path.clone())
                .or_else(|| seen.get(partition.name.as_str()).cloned());
            if let Some(first) = first {
                duplicate(context, &partition.name, &path, &first);
            }
        }
    }
}

fn check_name(name: &str, path: &str, context: &mut Context<'_>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let derived = |c: char| plain(c) || c == '/';
    let written = path.ends_with(".name");
    if name.is_empty() || name.len() > 64 || !name.chars().all(|c| if written { plain(c) } else { derived(c) }) {
        let message = format!("`{}` is not a name", name.escape_debug());
        context.refuse(
            path,
            Diagnostic::error("storage.name", message).hint("at most 64 letters, digits, `_`, `-` and `.`"),
        );
    }
}

fn duplicate(context: &mut Context<'_>, name: &str, path: &str, first: &str) {
    let place = context.config.places.of(first).map_or_else(String::new, |place| format!(" in line {}", place.line));
    let wrong = Diagnostic::error("storage.duplicate", format!("two things are called `{name}`"));
    context.refuse(path, wrong.hint(format!("the first stands{place}; give one of them another `name`")));
}

fn unknown_base(context: &mut Context<'_>, path: &str, name: &str, base: &str, known: &[&str]) {
    let near = known
        .iter()
        .min_by_key(|known| strsim::osa_distance(base, known))
        .filter(|known| strsim::osa_distance(base, known) <= 2);
    let hint = match (near, known) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "no disk is defined; begin the layout with `- disk: { name: system }`".to_owned(),
        (None, known) => format!("it may be based on: {}", known.join(", ")),
    };
    let message = format!("`{name}` is based on `{base}`, which nothing defines");
    context.refuse(&format!("{path}.base"), Diagnostic::error("storage.base", message).hint(hint));
}

/// The packages must fit on what is mounted at `/`, as far as other mounts do not take them.
fn check_root(graph: &BlockGraph, context: &mut Context<'_>) {
    let Some(packages) = context.packages else { return };
    // What packages say, and a tenth for the package database, caches, the journal and the initramfs.
    let installed = packages.installed_size();
    let need = Bytes(installed.0 / 10 * 11);
    let on_targets: Bytes = graph
        .mounts()
        .filter_map(|mount| graph.filesystem(&mount.base))
        .filter(|filesystem| filesystem.kind == FsKind::Ext4)
        .filter_map(|filesystem| {
            let partition = graph.partitions().find(|(_, partition)| partition.node == filesystem.base);
            let disk = graph.disks().find(|(id, _)| **id == filesystem.base).map(|(_, disk)| disk.size);
            partition.map(|(_, partition)| partition.length).or(disk)
        })
        .sum();
    if need > on_targets {
        let message = format!(
            "the disk is too small: {} packages need {need}, the file systems have {on_targets}",
            packages.packages.len()
        );
        context.refuse(
            "storage",
            Diagnostic::error("disk.too-small", message).hint("choose a larger disk, or fewer packages"),
        );
    }
}
