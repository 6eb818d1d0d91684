//! A plan as text for people. Programs take the JSON.

use std::fmt::Write as _;

use super::{Effect, Plan};
use crate::block::{Kind, Target};
use crate::spec::Spec;

/// What would be done and what would be lost.
pub fn text(spec: &Spec, plan: &Plan) -> String {
    let mut out = String::new();
    for (id, disk) in spec.graph.disks() {
        let target = match &disk.target {
            Target::ImageFile => "image file".to_owned(),
            Target::Disk(identity) => identity.to_string(),
        };
        writeln!(out, "disk      {id}: {target}, {}", disk.size).expect("a string takes everything");
    }
    for (table, partition) in spec.graph.partitions() {
        let content = spec.graph.nodes().iter().find_map(|node| match &node.kind {
            Kind::Filesystem(fs) if fs.base == partition.node => Some((fs.kind.name(), Some(&node.id))),
            Kind::Swap(swap) if swap.base == partition.node => Some(("swap", None)),
            _ => None,
        });
        let mount = content
            .and_then(|(_, fs)| spec.graph.mounts().find(|mount| Some(&mount.base) == fs))
            .map(|mount| format!(" {}", mount.at))
            .unwrap_or_default();
        let content = content.map(|(name, _)| format!(" {name}")).unwrap_or_default();
        writeln!(
            out,
            "partition {}{:<3} {:<12} {:>10} at {:>10}{content}{mount}",
            table.base, partition.number, partition.node, partition.length, partition.start
        )
        .expect("a string takes everything");
    }
    if let Some(packages) = &spec.packages {
        writeln!(
            out,
            "packages  {} to fetch ({}), {} when installed",
            packages.packages.len(),
            packages.download_size(),
            packages.installed_size()
        )
        .expect("a string takes everything");
    }
    out.push('\n');
    match plan.losses.is_empty() {
        true => out.push_str("Nothing would be lost.\n"),
        false => {
            out.push_str("WOULD BE LOST:\n");
            for loss in &plan.losses {
                writeln!(out, "  {loss}").expect("a string takes everything");
            }
        }
    }
    out.push('\n');
    for (index, step) in plan.steps.iter().enumerate() {
        writeln!(out, "{:>3}  {:<12} {}", index + 1, step.phase.name(), step.title).expect("a string takes everything");
        for effect in &step.effects {
            writeln!(out, "     {}", effect).expect("a string takes everything");
        }
    }
    if !plan.on_failure.is_empty() {
        out.push_str("\nafter a failure:\n");
        for effect in &plan.on_failure {
            writeln!(out, "     {effect}").expect("a string takes everything");
        }
    }
    let tools: Vec<_> = plan.tools().into_iter().map(|tool| tool.source().name).collect();
    let tools = if tools.is_empty() { "none".to_owned() } else { tools.join(" ") };
    writeln!(out, "\ntools: {tools}\nplan:  {}", plan.digest()).expect("a string takes everything");
    out
}

impl std::fmt::Display for Effect {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Verify { identity, .. } => write!(out, "verify {identity}"),
            Self::CreateFile { path, size, .. } => write!(out, "create {path} ({size}, sparse)"),
            Self::RemoveFile { path } => write!(out, "remove {path}"),
            Self::Wipe { disk, wipe } => write!(out, "wipe {disk} ({wipe:?})"),
            Self::WriteSectors { node, what, pieces } => {
                let bytes: usize = pieces.iter().map(|piece| piece.content.len()).sum();
                write!(out, "write {what} to {node} ({bytes} bytes in {} places)", pieces.len())
            }
            Self::ClearTable { disk } => write!(out, "clear the table of {disk}"),
            Self::ScanPartitions { disk, partitions } => {
                write!(out, "register {} partitions of {disk}", partitions.len())
            }
            Self::FormatFat { node, volume_id, sector_size, .. } => {
                let (high, low) = (volume_id >> 16, volume_id & 0xffff);
                write!(out, "format {node} as vfat ({high:04X}-{low:04X}, sectors of {sector_size})")
            }
            Self::Mount { node, at, .. } => write!(out, "mount {node} at {at}"),
            Self::Unmount { at } => write!(out, "unmount {at}"),
            Self::MakeDirectory { path, mode, .. } => write!(out, "directory {path} {mode}"),
            Self::WriteFile { file, .. } => {
                write!(
                    out,
                    "{} {} {} {}:{}",
                    if file.append { "append to" } else { "file" },
                    file.path,
                    file.mode,
                    file.user,
                    file.group
                )
            }
            Self::RemoveTargetFile { path, .. } => write!(out, "remove {path} of the target"),
            Self::Symlink { path, to, .. } => write!(out, "link {path} -> {to}"),
            Self::CopyFolder { from, to, .. } => write!(out, "copy {from} to {to}"),
            Self::Unpack { packages, .. } => write!(out, "unpack {} packages", packages.packages.len()),
            Self::Configure { packages, .. } => write!(out, "configure {} packages", packages.packages.len()),
            Self::Exec(cmd) => match &cmd.program {
                super::Program::Target { .. } => write!(out, "run in the target: {cmd}"),
                super::Program::Tool(_) | super::Program::Host(_) => write!(out, "run: {cmd}"),
            },
            Self::GrubConfig(config) => write!(out, "write {} for the kernels in {}", config.path, config.kernels),
            Self::FillFat { node, from, .. } => write!(out, "move the content of {from} into {node}"),
            Self::EmbedGrub { disk, .. } => write!(out, "write GRUB's core image and the boot sector of {disk}"),
            Self::BootEntry(entry) => write!(out, "firmware boot entry `{}` for {}", entry.label, entry.loader),
            Self::KeepKernel { kernels, to, .. } => write!(out, "copy the newest kernel of {kernels} to {to}"),
            Self::Sync { .. } => write!(out, "write everything out"),
        }
    }
}
