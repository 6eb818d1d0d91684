//! File systems, swap and where they are mounted.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use uuid::Uuid;

use super::{Flat, Place, unknown_base};
use crate::block::{Filesystem, FsKind, Kind, Mount, Node, Swap};
use crate::config::storage::{FileSystemType, Fstab};
use crate::diagnostic::Diagnostic;
use crate::resolve::Context;
use crate::resolve::layout::FlatFilesystem;
use crate::units::{Bytes, NodeId};

pub fn filesystems(
    flat: &Flat<'_>,
    places: &BTreeMap<String, Place>,
    complete: bool,
    nodes: &mut Vec<Node>,
    context: &mut Context<'_>,
) {
    let mut labels: BTreeMap<String, &str> = BTreeMap::new();
    let mut used: BTreeMap<&NodeId, &str> = BTreeMap::new();
    for written in &flat.filesystems {
        let label = label(written, context);
        if let Some(label) = &label
            && let Some(first) = labels.insert(label.clone(), &written.name)
        {
            let message = format!("label `{label}` is given to `{first}` and to `{}`", written.name);
            let wrong = Diagnostic::error("storage.label", message);
            context.refuse(
                &format!("{}.label", written.path),
                wrong.hint("labels find file systems, so each stands once"),
            );
        }
        let Some(place) = places.get(&written.base) else {
            if complete {
                let known: Vec<&str> = places.keys().map(String::as_str).collect();
                unknown_base(context, &written.path, &written.name, &written.base, &known);
            }
            continue;
        };
        if let Some(first) = used.insert(&place.node, &written.name) {
            let message = format!("`{first}` and `{}` are both made on `{}`", written.name, written.base);
            context.refuse(
                &format!("{}.base", written.path),
                Diagnostic::error("storage.base", message).hint("leave one of them out"),
            );
        }
        let uuid = uuid_of(written, context);
        check_room(written, place.length, context);
        let base = place.node.clone();
        let kind = match written.kind {
            FileSystemType::Ext4 => FsKind::Ext4,
            FileSystemType::Vfat => FsKind::Vfat,
            FileSystemType::Swap => {
                nodes.push(Node { id: NodeId::new(&written.name), kind: Kind::Swap(Swap { base, uuid, label }) });
                continue;
            }
            FileSystemType::Ext2 | FileSystemType::Ext3 | FileSystemType::Xfs | FileSystemType::Btrfs => {
                let message =
                    format!("{} is not in this version of castiron", format!("{:?}", written.kind).to_lowercase());
                let wrong = Diagnostic::error("config.later", message).hint("write ext4, vfat or swap");
                context.refuse(&format!("{}.type", written.path), wrong);
                continue;
            }
        };
        let options = written.opts.iter().flat_map(|text| text.split(' ')).filter(|text| !text.is_empty());
        let options = options.map(str::to_owned).collect();
        let filesystem = Filesystem { base, kind, uuid, label, options };
        nodes.push(Node { id: NodeId::new(&written.name), kind: Kind::Filesystem(filesystem) });
    }
}

/// Longest label and smallest size of each kind that can be made.
fn limits(kind: FileSystemType) -> (usize, Bytes) {
    match kind {
        FileSystemType::Ext2 | FileSystemType::Ext3 | FileSystemType::Ext4 => (16, Bytes::mib(8)),
        FileSystemType::Vfat => (11, Bytes::mib(1)),
        FileSystemType::Swap => (15, Bytes::kib(64)),
        FileSystemType::Xfs => (12, Bytes::mib(300)),
        FileSystemType::Btrfs => (255, Bytes::mib(109)),
    }
}

/// dib's rule: the label as written, else the name where it fits. FAT labels are capital.
fn label(written: &FlatFilesystem<'_>, context: &mut Context<'_>) -> Option<String> {
    let (length_max, _) = limits(written.kind);
    let fits = |label: &str| {
        !label.is_empty()
            && label.len() <= length_max
            && !label.contains(|c: char| c.is_control() || "\"*/:<>?\\|".contains(c))
    };
    let label = match written.label {
        Some(label) if fits(label) => label,
        Some(label) => {
            let message = format!("label `{}` does not fit", label.escape_debug());
            let wrong = Diagnostic::error("storage.label", message);
            context
                .refuse(&format!("{}.label", written.path), wrong.hint(format!("1 to {length_max} plain characters")));
            return None;
        }
        None => Some(written.name.as_str()).filter(|name| fits(name))?,
    };
    Some(if written.kind == FileSystemType::Vfat { label.to_uppercase() } else { label.to_owned() })
}

fn uuid_of(written: &FlatFilesystem<'_>, context: &mut Context<'_>) -> Uuid {
    let chosen = context.identity(&format!("filesystem/{}", written.name));
    let Some(text) = written.uuid else { return chosen };
    let parsed = match written.kind {
        // A FAT volume id, as blkid shows it.
        FileSystemType::Vfat => {
            u32::from_str_radix(&text.replace('-', ""), 16).ok().filter(|_| text.len() <= 9).map(|id| {
                let mut bytes = *chosen.as_bytes();
                bytes[..4].copy_from_slice(&id.to_be_bytes());
                Uuid::from_bytes(bytes)
            })
        }
        _ => Uuid::parse_str(text).ok(),
    };
    parsed.unwrap_or_else(|| {
        let hint = match written.kind {
            FileSystemType::Vfat => "write such as 1A2B-3C4D",
            _ => "write such as 6b1cc5d3-7f1a-4a53-9d0f-0f2b3c4d5e6f, or leave it out",
        };
        let message = format!("`{}` is not the uuid of a file system", text.escape_debug());
        context.refuse(&format!("{}.uuid", written.path), Diagnostic::error("storage.uuid", message).hint(hint));
        chosen
    })
}

fn check_room(written: &FlatFilesystem<'_>, length: Bytes, context: &mut Context<'_>) {
    let (_, least) = limits(written.kind);
    if length < least {
        let message = format!("`{}` has {length}, its file system needs {least}", written.base);
        context.refuse(&written.path, Diagnostic::error("disk.too-small", message).hint("make the partition larger"));
    }
}

pub fn mounts(flat: &Flat<'_>, complete: bool, nodes: &mut Vec<Node>, context: &mut Context<'_>) {
    let mut fstabs: BTreeMap<&str, &Fstab> = BTreeMap::new();
    for fstab in &flat.fstabs {
        fstabs.insert(&fstab.base, fstab.written);
        if !flat.mounts.iter().any(|mount| mount.name == fstab.base) {
            let known: Vec<&str> = flat.mounts.iter().map(|mount| mount.name.as_str()).collect();
            unknown_base(context, &fstab.path, &fstab.name, &fstab.base, &known);
        }
        if let Some(options) = &fstab.written.options
            && (options.is_empty() || options.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            let wrong =
                Diagnostic::error("storage.options", format!("`{}` is not a list of options", options.escape_debug()));
            context.refuse(&format!("{}.options", fstab.path), wrong.hint("join them with commas, without blanks"));
        }
    }
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for written in &flat.mounts {
        let Some(filesystem) = flat.filesystems.iter().find(|made| made.name == written.base) else {
            if complete {
                let known: Vec<&str> = flat.filesystems.iter().map(|made| made.name.as_str()).collect();
                unknown_base(context, &written.path, &written.name, &written.base, &known);
            }
            continue;
        };
        if filesystem.kind == FileSystemType::Swap {
            continue;
        }
        let Some(at) = written.mount_point else {
            let missing = Diagnostic::error("config.missing-key", "key `mount_point` is missing");
            context.refuse(&written.path, missing.hint("write where it is mounted, such as /srv"));
            continue;
        };
        if let Some(first) = taken.insert(at, &written.base) {
            let message = format!("`{first}` and `{}` are both mounted at {at}", written.base);
            let wrong = Diagnostic::error("storage.mount-point", message);
            context.refuse(&format!("{}.mount_point", written.path), wrong.hint("each place takes one file system"));
        }
        if const { &["/proc", "/sys", "/dev", "/run"] }
            .iter()
            .any(|own| at == *own || at.starts_with(&format!("{own}/")))
        {
            let wrong = Diagnostic::error("storage.mount-point", format!("{at} belongs to the running system"));
            context.refuse(&format!("{}.mount_point", written.path), wrong.hint("mount it elsewhere"));
        }
        let fstab = fstabs.get(written.name.as_str());
        let vfat = filesystem.kind == FileSystemType::Vfat;
        let usual = if vfat { "umask=0077" } else { "defaults" };
        let mount = Mount {
            base: NodeId::new(&written.base),
            at: Utf8PathBuf::from(at),
            options: fstab.and_then(|fstab| fstab.options.clone()).unwrap_or_else(|| usual.to_owned()),
            dump_frequency: fstab.and_then(|fstab| fstab.dump_freq).unwrap_or(0),
            // fstab(5): the root is checked first.
            fsck_pass: fstab.and_then(|fstab| fstab.fsck_passno).unwrap_or(if at == "/" { 1 } else { 2 }),
        };
        nodes.push(Node { id: NodeId::new(&written.name), kind: Kind::Mount(mount) });
    }
    if complete && !taken.contains_key("/") {
        let none = Diagnostic::error("storage.no-root", "nothing is mounted at /");
        context.refuse("storage.layout", none.hint("give one file system `mount: { mount_point: / }`"));
    }
}
