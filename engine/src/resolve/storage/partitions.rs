//! Partition tables: where each partition lies, its type and its identity.

use std::collections::BTreeMap;

use super::{ALIGNMENT, Flat};
use crate::block::{self, Table, Target};
use crate::config::storage::{FileSystemType, PartitionFlag, Partitioning, TableKind};
use crate::config::values::Size;
use crate::diagnostic::Diagnostic;
use crate::resolve::Context;
use crate::resolve::geometry::{self, Extent};
use crate::resolve::layout::Item;
use crate::resolve::partition_type::{self, PartitionType};
use crate::units::{Bytes, NodeId};

const GPT_PARTITIONS_MAX: usize = 128;
const MBR_PARTITIONS_MAX: usize = 4;

/// How often each partition name stands in the layout.
pub fn partition_names(flat: &Flat<'_>) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for partition in flat.tables.iter().flat_map(|table| &table.written.partitions) {
        *names.entry(partition.name.clone()).or_insert(0) += 1;
    }
    names
}

pub fn partition_table(
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
        Some(Size::Exact(align))
            if align.0.is_multiple_of(disk.sector_size.0) && (disk.sector_size..=Bytes::gib(1)).contains(&align) =>
        {
            Some(align)
        }
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
