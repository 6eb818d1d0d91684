//! From a layout to the block graph: which disk, which bytes, which names and identities.
//!
//! In: the layout in its flat form, the machine's disks. Out: a [`BlockGraph`]. Mistakes are noted one after
//! the other; what depends on something wrong is passed over, so that no mistake is reported twice.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use uuid::Uuid;

use super::geometry::{self, Extent};
use super::layout::{self, Flat, FlatFilesystem, Item};
use super::partition_type::{self, PartitionType};
use super::{Context, disks};
use crate::block::{self, BlockGraph, Filesystem, FsKind, Kind, Mount, Node, Swap, Table, Target};
use crate::config::storage::{self, FileSystemType, Fstab, PartitionFlag, Partitioning, Storage, TableKind};
use crate::config::values::Size;
use crate::diagnostic::Diagnostic;
use crate::units::{Bytes, NodeId};

const ALIGNMENT: Bytes = Bytes::mib(1);
const GPT_PARTITIONS_MAX: usize = 128;
const MBR_PARTITIONS_MAX: usize = 4;

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

/// The disks and images by name; `None` where one could not be decided.
fn level_zero(flat: &Flat<'_>, context: &mut Context<'_>) -> BTreeMap<String, Option<block::Disk>> {
    if flat.disks.is_empty() && flat.images.is_empty() {
        let none = Diagnostic::error("storage.no-disk", "the layout has no disk");
        context.refuse("storage.layout", none.hint("begin it with `- disk: { name: system }`"));
    }
    let mut decided: BTreeMap<String, Option<block::Disk>> = BTreeMap::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, written) in &flat.disks {
        let wipe = wipe(path, written, context);
        if context.any_machine {
            decided.insert(written.name.clone(), Some(any_disk()));
            continue;
        }
        let own_tables = [context.identity(&format!("table/{}", written.name))];
        let chosen = match disks::select(written, &own_tables, &context.inventory.disks) {
            Ok(choice) => Some(choice),
            Err(diagnostic) => {
                context.refuse(path, diagnostic);
                None
            }
        };
        if let Some(choice) = &chosen
            && let Some(first) = taken.insert(&choice.disk.name, &written.name)
        {
            let message = format!("`{first}` and `{}` are the same disk: {}", written.name, choice.disk);
            let wrong = Diagnostic::error("disk.same", message);
            context.refuse(
                &format!("{path}.match"),
                wrong.hint("give each a key that fits one disk only, such as serial"),
            );
        }
        decided.insert(written.name.clone(), chosen.map(|choice| disk_node(&choice, wipe)));
    }
    for (path, image) in &flat.images {
        let sector_size = Bytes(u64::from(image.block_size.unwrap_or(512)));
        if ![512, 4096].contains(&sector_size.0) {
            let wrong = Diagnostic::error("storage.sector", format!("block_size is {}", sector_size.0));
            context.refuse(&format!("{path}.block_size"), wrong.hint("write 512 or 4096"));
        }
        let size = match image.size {
            Some(Size::Exact(size)) => Some(size.round_up(ALIGNMENT)),
            Some(Size::Share(_)) => {
                let wrong = Diagnostic::error("storage.image-size", "an image has no share of anything");
                context.refuse(&format!("{path}.size"), wrong.hint("write a size such as 8GiB"));
                None
            }
            None => Some(image_size(context)),
        };
        let disk = size.map(|size| block::Disk {
            target: Target::ImageFile,
            size,
            sector_size,
            wipe: block::Wipe::Refuse,
            losses: Vec::new(),
        });
        decided.insert(image.name.clone(), disk);
    }
    decided
}

/// Large enough for every layout.
fn any_disk() -> block::Disk {
    block::Disk {
        target: Target::ImageFile,
        size: Bytes(1 << 60),
        sector_size: Bytes(512),
        wipe: block::Wipe::Refuse,
        losses: Vec::new(),
    }
}

fn disk_node(choice: &disks::Choice<'_>, wipe: block::Wipe) -> block::Disk {
    block::Disk {
        target: Target::Disk(choice.disk.identity()),
        size: choice.disk.size,
        sector_size: choice.disk.logical_sector_size,
        wipe,
        losses: choice.losses.clone(),
    }
}

fn wipe(path: &str, written: &storage::Disk, context: &mut Context<'_>) -> block::Wipe {
    match written.wipe {
        storage::Wipe::Refuse => block::Wipe::Refuse,
        storage::Wipe::Superblock => block::Wipe::Superblock,
        storage::Wipe::SuperblockRecursive => block::Wipe::SuperblockRecursive,
        storage::Wipe::Zero => block::Wipe::Zero,
        storage::Wipe::Discard => block::Wipe::Discard,
        later @ (storage::Wipe::Random | storage::Wipe::SecureErase) => {
            let word = if later == storage::Wipe::Random { "random" } else { "secure-erase" };
            let wrong = Diagnostic::error("config.later", format!("wipe `{word}` is not in this version of castiron"));
            context
                .refuse(&format!("{path}.wipe"), wrong.hint("write superblock, superblock-recursive, zero or discard"));
            block::Wipe::Refuse
        }
    }
}

/// Room for what the packages say they need and half as much again, in whole GiB and at least 2.
fn image_size(context: &Context<'_>) -> Bytes {
    let installed = context.packages.map_or(Bytes::ZERO, crate::debian::PackageSet::installed_size);
    Bytes(installed.0 / 2 * 3).round_up(Bytes::gib(1)) + Bytes::gib(1)
}

/// How often each partition name stands in the layout.
fn partition_names(flat: &Flat<'_>) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for partition in flat.tables.iter().flat_map(|table| &table.written.partitions) {
        *names.entry(partition.name.clone()).or_insert(0) += 1;
    }
    names
}

fn partition_table(
    table: &Item<'_, Partitioning>,
    disk: &block::Disk,
    flat: &Flat<'_>,
    bare: &BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<Table> {
    let written = table.written;
    let kind = match written.label {
        TableKind::Gpt => block::TableKind::Gpt,
        TableKind::Mbr => block::TableKind::Mbr,
    };
    let align = alignment(table, disk, context)?;
    check_partitions(table, kind, context)?;
    let sizes: Vec<Size> = written.partitions.iter().map(|partition| partition.size).collect();
    let extents = match geometry::place(kind, disk.size, disk.sector_size, align, &sizes) {
        Ok(extents) => extents,
        Err(error) => {
            too_small(table, disk, &error, context);
            return None;
        }
    };
    let types: Vec<Option<PartitionType>> =
        (0..sizes.len()).map(|index| type_of(table, index, flat, context)).collect();
    let partitions = written.partitions.iter().zip(extents).zip(types).enumerate();
    let partitions = partitions.map(|(index, ((partition, Extent { start, length }), kind))| {
        let kind = kind?;
        let node = match bare.get(&partition.name) {
            Some(1) => partition.name.clone(),
            _ => format!("{}/{}", table.base, partition.name),
        };
        Some(block::Partition {
            uuid: context.identity(&format!("partition/{}/{}", table.base, partition.name)),
            node: NodeId(node),
            number: index as u32 + 1,
            start,
            length,
            type_guid: kind.guid,
            type_byte: kind.byte,
            name: partition.label.clone().unwrap_or_else(|| partition.name.clone()),
            active: partition.flags.contains(&PartitionFlag::Boot),
        })
    });
    let partitions = partitions.collect::<Option<Vec<_>>>()?;
    let uuid = context.identity(&format!("table/{}", table.base));
    Some(Table { base: NodeId::new(&table.base), kind, uuid, partitions })
}

fn alignment(table: &Item<'_, Partitioning>, disk: &block::Disk, context: &mut Context<'_>) -> Option<Bytes> {
    match table.written.align {
        None => Some(ALIGNMENT),
        Some(Size::Exact(align)) if align.0.is_multiple_of(disk.sector_size.0) && align <= Bytes::gib(1) => Some(align),
        Some(_) => {
            let message = format!("partitions cannot be aligned to that on sectors of {}", disk.sector_size);
            let wrong = Diagnostic::error("storage.align", message);
            context.refuse(
                &format!("{}.align", table.path),
                wrong.hint("write a multiple of the sector size, such as 1MiB"),
            );
            None
        }
    }
}

fn check_partitions(table: &Item<'_, Partitioning>, kind: block::TableKind, context: &mut Context<'_>) -> Option<()> {
    let path = format!("{}.partitions", table.path);
    let written = &table.written.partitions;
    let (max, word) = match kind {
        block::TableKind::Gpt => (GPT_PARTITIONS_MAX, "gpt"),
        block::TableKind::Mbr => (MBR_PARTITIONS_MAX, "mbr"),
    };
    let before = context.found.0.len();
    if written.is_empty() || written.len() > max {
        let message = format!("{} partitions; a table with label {word} holds 1 to {max}", written.len());
        let hint = if written.is_empty() { "add a partition" } else { "use label gpt, or fewer partitions" };
        context.refuse(&path, Diagnostic::error("storage.partition-count", message).hint(hint));
    }
    for (index, partition) in written.iter().enumerate() {
        if kind == block::TableKind::Gpt && partition.flags.contains(&PartitionFlag::Primary) {
            let wrong = Diagnostic::error("storage.flags", "flag `primary` has no meaning in a GPT");
            context.refuse(&format!("{path}[{index}].flags"), wrong.hint("leave it out, or use label mbr"));
        }
        let label = partition.label.as_ref().unwrap_or(&partition.name);
        if kind == block::TableKind::Gpt && (label.encode_utf16().count() > 36 || label.chars().any(char::is_control)) {
            let wrong =
                Diagnostic::error("storage.label", format!("`{}` does not fit into a GPT", label.escape_debug()));
            context.refuse(&format!("{path}[{index}].label"), wrong.hint("at most 36 characters"));
        }
    }
    (context.found.0.len() == before).then_some(())
}

fn too_small(
    table: &Item<'_, Partitioning>,
    disk: &block::Disk,
    error: &geometry::TooSmall,
    context: &mut Context<'_>,
) {
    let partition = table.written.partitions.get(error.index).map_or("", |partition| partition.name.as_str());
    let shown = match &disk.target {
        Target::ImageFile => format!("the image has {}", disk.size),
        Target::Disk(identity) => format!("{identity}"),
    };
    let (message, hint) = match error.need {
        Some(need) => (
            format!("disk `{}` is too small for partition `{partition}`: needs {need}, {shown}", table.base),
            "make partitions smaller, or choose a larger disk".to_owned(),
        ),
        None => (
            format!("nothing is left for partition `{partition}` on disk `{}`", table.base),
            "a partition of 100% takes all that is left, so it must be the last".to_owned(),
        ),
    };
    let path = format!("{}.partitions[{}].size", table.path, error.index);
    context.refuse(&path, Diagnostic::error("disk.too-small", message).hint(hint));
}

/// The type as written, else what is made on the partition tells it.
fn type_of(
    table: &Item<'_, Partitioning>,
    index: usize,
    flat: &Flat<'_>,
    context: &mut Context<'_>,
) -> Option<PartitionType> {
    let partition = &table.written.partitions[index];
    if let Some(text) = &partition.r#type {
        return match partition_type::parse(text, &context.board.arch) {
            Ok(kind) => Some(kind),
            Err(hint) => {
                let message = format!("partition type `{}` is not known", text.escape_debug());
                let wrong = Diagnostic::error("storage.partition-type", message).hint(hint);
                context.refuse(&format!("{}.partitions[{index}].type", table.path), wrong);
                None
            }
        };
    }
    let qualified = format!("{}/{}", table.base, partition.name);
    let made = flat.filesystems.iter().find(|made| made.base == partition.name || made.base == qualified);
    Some(match (partition.esp.is_some(), made.map(|made| made.kind)) {
        (true, _) => partition_type::EFI_SYSTEM,
        (false, Some(FileSystemType::Swap)) => partition_type::SWAP,
        (false, _) => partition_type::LINUX,
    })
}

fn filesystems(
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

fn mounts(flat: &Flat<'_>, complete: bool, nodes: &mut Vec<Node>, context: &mut Context<'_>) {
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
