//! The disk plan: claim the disks, lay them out, fill them in place, make them bootable last.

use std::collections::BTreeMap;

use base64::Engine as _;
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::effect::{Effect, PartitionPlace, Piece};
use super::{Cmd, Plan, StepPhase, Tool, boot, provision};
use crate::block::{Disk, Filesystem, FsKind, Kind, Mount, Swap, Table, TableKind, Target, Wipe, gpt, mbr, swap};
use crate::spec::{CommandSpec, Spec};
use crate::units::{Bytes, Mode, NodeId};

/// Where things are while the plan runs; the caller's to say.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where the target's file systems are mounted.
    pub root: Utf8PathBuf,
    /// The files that image disks become.
    pub images: BTreeMap<NodeId, Utf8PathBuf>,
}

#[derive(Debug, Error)]
pub enum PlanError {
    #[error("the layout of `{disk}` cannot be written")]
    Gpt { disk: NodeId, source: gpt::GptError },
    #[error("the layout of `{disk}` cannot be written")]
    Mbr { disk: NodeId, source: mbr::MbrError },
    #[error("nothing says which file the image `{0}` becomes")]
    NoImagePath(NodeId),
    #[error("the disk that holds `{0}` is not part of the layout")]
    NoDisk(NodeId),
    #[error("the system cannot be started: {0}")]
    Boot(String),
}

/// Everything that is done, in order. Pure.
pub fn plan(spec: &Spec, places: &Places) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let losses = |(id, disk): (&NodeId, &Disk)| disk.losses.iter().map(|loss| format!("{id}: {loss}")).collect();
    plan.losses = spec.graph.disks().flat_map::<Vec<_>, _>(losses).collect();
    early_commands(spec, &mut plan);
    claim(spec, places, &mut plan)?;
    for node in spec.graph.nodes() {
        match &node.kind {
            Kind::Disk(disk) => wipe(&node.id, disk, &mut plan),
            Kind::Table(table) => partition(spec, table, &mut plan)?,
            Kind::Filesystem(filesystem) => format(spec, &node.id, filesystem, &mut plan),
            Kind::Swap(swap) => make_swap(spec, swap, &mut plan),
            Kind::Mount(mount) => attach(spec, places, mount, &mut plan),
        }
    }
    provision::plan(spec, &places.root, &mut plan);
    boot::prepare(spec, &places.root, &mut plan)?;
    late_commands(spec, &places.root, &mut plan);
    boot::commit(spec, &places.root, &mut plan)?;
    plan.on_failure = on_failure(spec);
    Ok(plan)
}

/// What the config wants done when it cannot be carried out, also where there is no plan.
pub fn on_failure(spec: &Spec) -> Vec<Effect> {
    spec.commands.on_error.iter().map(|command| Effect::Exec(host_command(command))).collect()
}

fn early_commands(spec: &Spec, plan: &mut Plan) {
    let effects = spec.commands.early.iter().map(|command| Effect::Exec(host_command(command))).collect();
    plan.add(StepPhase::Storage, "early-commands", "run the early commands", effects);
}

/// All disks are proven before the first one is written.
fn claim(spec: &Spec, places: &Places, plan: &mut Plan) -> Result<(), PlanError> {
    let effects: Result<Vec<_>, PlanError> = spec
        .graph
        .disks()
        .map(|(id, disk)| match &disk.target {
            Target::Disk(identity) => Ok(Effect::Verify { disk: id.clone(), identity: identity.clone() }),
            Target::ImageFile => {
                let path = places.images.get(id).ok_or_else(|| PlanError::NoImagePath(id.clone()))?;
                Ok(Effect::CreateFile { disk: id.clone(), path: path.clone(), size: disk.size })
            }
        })
        .collect();
    plan.add(StepPhase::Storage, "claim", "find the disks and prove that they are the right ones", effects?);
    Ok(())
}

fn wipe(id: &NodeId, disk: &Disk, plan: &mut Plan) {
    if matches!(disk.target, Target::Disk(_)) {
        // An empty disk is cleared too: what nobody recognised may still confuse the next reader.
        let wipe = if disk.wipe == Wipe::Refuse { Wipe::Superblock } else { disk.wipe };
        let effects = vec![Effect::Wipe { disk: id.clone(), wipe }];
        plan.add(StepPhase::Storage, format!("wipe-{id}"), format!("wipe {id}"), effects);
    }
}

pub(super) fn disk_of<'a>(spec: &'a Spec, table: &Table) -> Result<&'a Disk, PlanError> {
    let found = spec.graph.disks().find(|(id, _)| **id == table.base);
    found.map(|(_, disk)| disk).ok_or_else(|| PlanError::NoDisk(table.base.clone()))
}

fn partition(spec: &Spec, table: &Table, plan: &mut Plan) -> Result<(), PlanError> {
    let disk = disk_of(spec, table)?;
    let base = &table.base;
    let pieces = match table.kind {
        TableKind::Gpt => gpt::pieces(table, disk.size, disk.sector_size)
            .map_err(|source| PlanError::Gpt { disk: base.clone(), source })?,
        TableKind::Mbr => {
            let sector =
                mbr::sector(table, disk.sector_size).map_err(|source| PlanError::Mbr { disk: base.clone(), source })?;
            vec![(Bytes::ZERO, sector)]
        }
    };
    let pieces = pieces.into_iter().map(|(offset, content)| Piece { offset, content }).collect();
    let partitions = table
        .partitions
        .iter()
        .map(|partition| PartitionPlace {
            node: partition.node.clone(),
            number: partition.number,
            start: partition.start,
            length: partition.length,
        })
        .collect();
    let what = match table.kind {
        TableKind::Gpt => "a GPT",
        TableKind::Mbr => "an MBR",
    };
    let effects = vec![
        Effect::WriteSectors { node: base.clone(), what: what.to_owned(), pieces },
        Effect::ScanPartitions { disk: base.clone(), partitions },
    ];
    plan.add(StepPhase::Storage, format!("partition-{base}"), format!("partition {base}"), effects);
    Ok(())
}

fn format(spec: &Spec, id: &NodeId, filesystem: &Filesystem, plan: &mut Plan) {
    let sector_size = sector_size(spec, filesystem);
    let effect = match filesystem.kind {
        FsKind::Ext4 => Effect::Exec(mkfs_ext4(filesystem, sector_size)),
        FsKind::Vfat => Effect::FormatFat {
            node: filesystem.base.clone(),
            label: filesystem.label.clone(),
            volume_id: filesystem.volume_id(),
            sector_size,
        },
    };
    let title = format!("format {} as {}", filesystem.base, filesystem.kind.name());
    plan.add(StepPhase::Storage, format!("format-{id}"), title, vec![effect]);
}

/// Of the disk that holds the file system, by way of a partition or without one.
fn sector_size(spec: &Spec, filesystem: &Filesystem) -> Bytes {
    let table = spec.graph.partitions().find(|(_, partition)| partition.node == filesystem.base);
    let disk = table.map_or(&filesystem.base, |(table, _)| &table.base);
    spec.graph.disks().find(|(id, _)| *id == disk).map_or(Bytes(512), |(_, disk)| disk.sector_size)
}

/// `hash_seed` and the options keep the bytes the same for the same spec (mke2fs(8)). A small file system gets
/// blocks of 1 KiB, which no kernel mounts from larger sectors; mke2fs cannot know those of an image.
fn mkfs_ext4(filesystem: &Filesystem, sector_size: Bytes) -> Cmd {
    let cmd = Cmd::new(Tool::MkfsExt4)
        .args(["-q", "-F", "-t", "ext4"])
        .opt("-U", filesystem.uuid.to_string())
        .opt("-E", format!("hash_seed={},lazy_itable_init=1,lazy_journal_init=1", filesystem.uuid));
    let cmd = match &filesystem.label {
        Some(label) => cmd.opt("-L", label),
        None => cmd,
    };
    let chosen = filesystem.options.iter().any(|option| option.starts_with("-b"));
    let cmd = if sector_size > Bytes::kib(1) && !chosen { cmd.opt("-b", sector_size.0.to_string()) } else { cmd };
    cmd.args(filesystem.options.iter().map(String::as_str)).node(&filesystem.base)
}

fn make_swap(spec: &Spec, swap: &Swap, plan: &mut Plan) {
    let length = spec.graph.partitions().find(|(_, partition)| partition.node == swap.base);
    let length = length.map_or(Bytes::ZERO, |(_, partition)| partition.length);
    let pieces = vec![Piece { offset: Bytes::ZERO, content: swap::header(swap, length) }];
    let effects = vec![Effect::WriteSectors { node: swap.base.clone(), what: "a swap header".to_owned(), pieces }];
    let title = format!("make {} swap space", swap.base);
    plan.add(StepPhase::Storage, format!("swap-{}", swap.base), title, effects);
}

/// FAT file systems are filled at the end instead, so no kernel needs to know them.
fn attach(spec: &Spec, places: &Places, mount: &Mount, plan: &mut Plan) {
    let Some(filesystem) = spec.graph.filesystem(&mount.base) else { return };
    let inside = mount.at.strip_prefix("/").unwrap_or(&mount.at);
    let at = if inside == "" { places.root.clone() } else { places.root.join(inside) };
    let mut effects = Vec::new();
    if inside != "" {
        let path = mount.at.clone();
        effects.push(Effect::MakeDirectory { root: places.root.clone(), path, mode: Mode(0o755) });
    }
    if filesystem.kind == FsKind::Ext4 {
        let options = vec!["noatime".to_owned()];
        effects.push(Effect::Mount { node: filesystem.base.clone(), kind: filesystem.kind, at, options });
    }
    let name = if inside == "" { "root".to_owned() } else { inside.as_str().replace('/', "-") };
    plan.add(StepPhase::Storage, format!("mount-{name}"), format!("mount {} at {}", mount.base, mount.at), effects);
}

fn late_commands(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let effects = spec
        .commands
        .late
        .iter()
        .map(|command| Effect::Exec(host_command(command).env("TARGET_ROOT", root.as_str())))
        .collect();
    plan.add(StepPhase::BootLoader, "late-commands", "run the late commands", effects);
}

fn host_command(command: &CommandSpec) -> Cmd {
    match command {
        CommandSpec::Shell(script) => Cmd::new(Tool::Sh).arg("-c").arg(script),
        CommandSpec::Exec(argv) => {
            let mut words = argv.iter();
            let program = words.next().cloned().unwrap_or_default();
            Cmd::host(program).args(words.map(String::as_str))
        }
    }
}

/// What a file's text is in a plan: text where it is text.
pub fn encoded(bytes: &[u8]) -> crate::spec::Content {
    match std::str::from_utf8(bytes) {
        Ok(text) => crate::spec::Content::Text(text.to_owned()),
        Err(_) => crate::spec::Content::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}
