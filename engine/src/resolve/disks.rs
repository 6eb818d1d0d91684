//! Which disk is meant: the one place that decides what may be overwritten.
//!
//! In: a `disk` of the config and the disks of the machine. Out: one disk and what would be lost with it, or why
//! there is none. Invariant: the order and the kernel's names of the disks decide nothing (unless `match.name`
//! asks for one), and with `pick: only` one more disk can make the choice ambiguous but never another.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use uuid::Uuid;

use crate::config::storage::{self, DiskMatch, Pick, Wipe};
use crate::config::values::Glob;
use crate::diagnostic::Diagnostic;
use crate::inventory::{self, Disk, Partition, Signature, Transport};

/// The disk that is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice<'a> {
    pub disk: &'a Disk,
    /// What is lost with it, one finding a line; nothing when it is empty.
    pub losses: Vec<String>,
}

/// Finds the disk that is meant. A table in `own_tables` (GPT disk GUIDs) is what an interrupted run of the same
/// config left, so it does not make a disk one that holds something.
pub fn select<'a>(wanted: &storage::Disk, own_tables: &[Uuid], disks: &'a [Disk]) -> Result<Choice<'a>, Diagnostic> {
    refuse_name_alone(wanted)?;
    let mut fitting = Vec::new();
    let mut misfits = Vec::new();
    for disk in disks {
        match misfit(wanted, disk) {
            None => fitting.push(disk),
            Some(reason) => misfits.push(format!("{disk}: {reason}")),
        }
    }
    misfits.sort();
    let disk = pick(wanted, fitting, misfits)?;
    refuse_twin(wanted, disk, disks)?;
    refuse_held(wanted, disk)?;
    let losses = losses(disk);
    let is_own = disk.signatures.iter().any(|signature| is_own_table(signature, own_tables));
    if wanted.wipe == Wipe::Refuse && !losses.is_empty() && !is_own {
        return Err(refuse_not_empty(wanted, disk, &losses));
    }
    Ok(Choice { disk, losses })
}

fn error(rule: &str, message: String, list: &[String]) -> Diagnostic {
    Diagnostic::error(rule, list.iter().fold(message, |text, line| format!("{text}\n    {line}")))
}

fn refuse_name_alone(wanted: &storage::Disk) -> Result<(), Diagnostic> {
    let others = DiskMatch { name: None, ..wanted.r#match.clone() };
    match &wanted.r#match.name {
        Some(name) if others == DiskMatch::default() => Err(Diagnostic::error(
            "disk.name-alone",
            format!("disk `{}` is known by the kernel's name `{}` alone", wanted.name, name.as_str()),
        )
        .hint(
            "that name may be another disk's at the next boot; give serial, wwn or by_path (see `castiron inventory`)",
        )),
        _ => Ok(()),
    }
}

/// Why a disk is not meant.
fn misfit(wanted: &storage::Disk, disk: &Disk) -> Option<String> {
    never(disk)
        .or_else(|| {
            (disk.is_boot_medium && !wanted.allow_boot_medium).then(|| "the machine was started from it".into())
        })
        .or_else(|| mismatch(&wanted.r#match, disk))
}

/// Why a disk can never be meant.
fn never(disk: &Disk) -> Option<String> {
    let reason = match disk.transport {
        Transport::Loop | Transport::Nbd | Transport::Zram | Transport::Ram => "not a disk of its own",
        Transport::Optical => "an optical drive",
        Transport::Floppy => "a floppy drive",
        _ if is_emmc_boot_area(disk) => "a boot area of an eMMC",
        _ if disk.size.0 == 0 => "no medium in it",
        _ if disk.read_only => "read-only",
        Transport::Nvme
        | Transport::Sata
        | Transport::Ata
        | Transport::Sas
        | Transport::Scsi
        | Transport::Usb
        | Transport::Virtio
        | Transport::Mmc
        | Transport::Fc
        | Transport::Iscsi
        | Transport::Xen
        | Transport::Other => return None,
    };
    Some(reason.to_owned())
}

/// `mmcblk0boot0`, `mmcblk0gp1`, `mmcblk0rpmb`: hardware partitions of their own (JESD84-B51 section 6.2).
fn is_emmc_boot_area(disk: &Disk) -> bool {
    disk.name.strip_prefix("mmcblk").is_some_and(|rest| rest.contains(|c: char| c.is_ascii_alphabetic()))
}

/// The first key that does not fit, in the order of the schema.
fn mismatch(wanted: &DiskMatch, disk: &Disk) -> Option<String> {
    // Exhaustive on purpose: a new key must be thought of here.
    let DiskMatch { transport, size, model, vendor, serial, wwn, by_path, by_id, rotational, removable, name } = wanted;
    if let Some(wanted) = transport
        && !same_transport(*wanted, disk.transport)
    {
        let wanted = format!("{wanted:?}").to_lowercase();
        return Some(format!("transport is {}, not {wanted}", disk.transport));
    }
    if let Some(range) = size
        && !range.contains(disk.size)
    {
        return Some(format!("size is {} ({} bytes), not {range}", disk.size, disk.size.0));
    }
    let own = |text: &Option<String>| text.iter().cloned().collect::<Vec<_>>();
    let texts = [
        ("model", model, own(&disk.model)),
        ("vendor", vendor, own(&disk.vendor)),
        ("serial", serial, own(&disk.serial)),
        ("wwn", wwn, wwn_forms(disk)),
        ("by_path", by_path, own(&disk.by_path)),
        ("by_id", by_id, disk.by_id()),
        ("name", name, vec![disk.name.clone()]),
    ];
    for (key, pattern, values) in texts {
        if let Some(pattern) = pattern
            && !values.iter().any(|value| pattern.matches(value))
        {
            return Some(text_mismatch(key, pattern, values.first()));
        }
    }
    let flags = [("rotational", rotational, disk.rotational), ("removable", removable, disk.removable)];
    flags.into_iter().find_map(|(key, wanted, own)| {
        wanted.is_some_and(|wanted| wanted != own).then(|| format!("{key} is {own}, not {}", !own))
    })
}

fn text_mismatch(key: &str, pattern: &Glob, own: Option<&String>) -> String {
    match own {
        Some(own) => format!("{key} is `{}`, not `{}`", own.escape_debug(), pattern.as_str()),
        None => format!("it has no {key}, wanted `{}`", pattern.as_str()),
    }
}

fn same_transport(wanted: storage::Transport, own: Transport) -> bool {
    use storage::Transport as Wanted;
    match own {
        Transport::Nvme => wanted == Wanted::Nvme,
        Transport::Sata => wanted == Wanted::Sata,
        Transport::Ata => wanted == Wanted::Ata,
        Transport::Sas => wanted == Wanted::Sas,
        Transport::Scsi => wanted == Wanted::Scsi,
        Transport::Usb => wanted == Wanted::Usb,
        Transport::Virtio => wanted == Wanted::Virtio,
        Transport::Mmc => wanted == Wanted::Mmc,
        Transport::Fc => wanted == Wanted::Fc,
        Transport::Iscsi => wanted == Wanted::Iscsi,
        Transport::Xen | Transport::Other => wanted == Wanted::Other,
        // Never candidates.
        Transport::Loop
        | Transport::Nbd
        | Transport::Zram
        | Transport::Ram
        | Transport::Optical
        | Transport::Floppy => false,
    }
}

/// As lsblk writes it, and as the kernel does.
fn wwn_forms(disk: &Disk) -> Vec<String> {
    let Some(wwn) = &disk.wwn else { return Vec::new() };
    let kernel = wwn.strip_prefix("0x").map(|digits| format!("naa.{digits}"));
    [Some(wwn.clone()), kernel].into_iter().flatten().collect()
}

fn pick<'a>(wanted: &storage::Disk, fitting: Vec<&'a Disk>, misfits: Vec<String>) -> Result<&'a Disk, Diagnostic> {
    if fitting.is_empty() {
        let (message, hint) = match misfits.is_empty() {
            true => ("this machine has no disk for", "is the driver of its controller in the appliance?"),
            false => ("no disk fits", "these were seen, each with the first thing that does not fit"),
        };
        return Err(error("disk.none", format!("{message} `{}`", wanted.name), &misfits).hint(hint));
    }
    let first = match wanted.pick {
        Pick::Only => fitting,
        Pick::Smallest => least(fitting, |a, b| a.size.cmp(&b.size)),
        Pick::Largest => least(fitting, |a, b| b.size.cmp(&a.size)),
        Pick::FirstByPath => least(fitting, by_path_order),
    };
    match first[..] {
        [disk] => Ok(disk),
        _ => Err(refuse_ambiguous(wanted, &first)),
    }
}

/// All that nothing is less than.
fn least(disks: Vec<&Disk>, order: impl Fn(&Disk, &Disk) -> Ordering) -> Vec<&Disk> {
    let least = disks.iter().copied().min_by(|a, b| order(a, b));
    disks.into_iter().filter(|disk| least.is_some_and(|least| order(disk, least).is_eq())).collect()
}

/// Disks without a path come last.
fn by_path_order(a: &Disk, b: &Disk) -> Ordering {
    match (&a.by_path, &b.by_path) {
        (Some(a), Some(b)) => natural(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// Numbers count by their value: `…-nvme-2` comes before `…-nvme-10`.
fn natural(a: &str, b: &str) -> Ordering {
    natural_parts(a).cmp(&natural_parts(b)).then_with(|| a.cmp(b))
}

fn natural_parts(text: &str) -> Vec<(u128, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let is_digit = rest.starts_with(|c: char| c.is_ascii_digit());
        let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push((part.parse().unwrap_or(0), if is_digit { "" } else { part }));
        rest = after;
    }
    parts
}

fn listed(disks: &[&Disk]) -> Vec<String> {
    let mut lines: Vec<String> = disks.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

fn refuse_ambiguous(wanted: &storage::Disk, disks: &[&Disk]) -> Diagnostic {
    if let [first, others @ ..] = disks
        && others.iter().all(|other| is_same_drive(first, other))
    {
        let message = format!("what fits `{}` is {} paths to one drive", wanted.name, disks.len());
        return error("disk.multipath", message, &listed(disks))
            .hint("installing onto a multipath drive is not in this version; leave one path connected");
    }
    let message = format!("{} disks fit `{}` equally", disks.len(), wanted.name);
    error("disk.ambiguous", message, &listed(disks)).hint(distinction(disks))
}

/// The same world wide name on the same size is one drive seen twice, where several ways to a drive exist. Serials
/// must agree too; and there are USB bridges that give all their drives one name.
fn is_same_drive(a: &Disk, b: &Disk) -> bool {
    let may_have_paths = match a.transport {
        Transport::Nvme | Transport::Sas | Transport::Scsi | Transport::Fc | Transport::Iscsi | Transport::Other => {
            true
        }
        Transport::Sata | Transport::Ata | Transport::Usb | Transport::Virtio | Transport::Mmc | Transport::Xen => {
            false
        }
        // Never candidates.
        Transport::Loop | Transport::Nbd | Transport::Zram | Transport::Ram => false,
        Transport::Optical | Transport::Floppy => false,
    };
    may_have_paths && a.wwn.is_some() && a.wwn == b.wwn && a.serial == b.serial && a.size == b.size
}

/// What to write so that one disk is left.
fn distinction(disks: &[&Disk]) -> String {
    type Value = fn(&Disk) -> Option<String>;
    let keys: [(&str, Value); 5] = [
        ("serial", |disk| disk.serial.clone()),
        ("wwn", |disk| disk.wwn.clone()),
        ("by_path", |disk| disk.by_path.clone()),
        ("model", |disk| disk.model.clone()),
        ("size", |disk| Some(disk.size.0.to_string())),
    ];
    let telling: Vec<String> = keys
        .into_iter()
        .filter(|(_, value)| {
            let values: BTreeSet<String> = disks.iter().filter_map(|disk| value(disk)).collect();
            values.len() == disks.len()
        })
        .map(|(key, _)| format!("`{key}`"))
        .collect();
    match telling.is_empty() {
        true => "nothing tells them apart; leave only one of them connected".to_owned(),
        false => format!("add {} to `match`", telling.join(" or ")),
    }
}

/// Refuses a disk that could not be told from another one just before the first write.
fn refuse_twin(wanted: &storage::Disk, disk: &Disk, disks: &[Disk]) -> Result<(), Diagnostic> {
    match inventory::find(disks, &disk.identity()) {
        Ok(_) => Ok(()),
        Err(_) => {
            let twins: Vec<&Disk> = disks
                .iter()
                .filter(|other| inventory::find(std::slice::from_ref(other), &disk.identity()).is_ok())
                .collect();
            let message = format!("the disk for `{}` cannot be told from another", wanted.name);
            Err(error("disk.ambiguous", message, &listed(&twins)).hint("leave only one of them connected"))
        }
    }
}

fn refuse_held(wanted: &storage::Disk, disk: &Disk) -> Result<(), Diagnostic> {
    if disk.holders.is_empty() {
        return Ok(());
    }
    let holders: Vec<String> = disk.holders.iter().map(ToString::to_string).collect();
    let message = format!("the disk for `{}` is in use: {disk}", wanted.name);
    Err(error("disk.held", message, &holders).hint("release it first: unmount, swapoff, stop the array or the volumes"))
}

fn refuse_not_empty(wanted: &storage::Disk, disk: &Disk, losses: &[String]) -> Diagnostic {
    let message = format!("the disk for `{}` is not empty: {disk}", wanted.name);
    error("disk.not-empty", message, losses)
        .hint("to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk")
}

fn is_own_table(signature: &Signature, own_tables: &[Uuid]) -> bool {
    signature.kind == "gpt"
        && signature.uuid.as_deref().and_then(|text| text.parse().ok()).is_some_and(|uuid| own_tables.contains(&uuid))
}

/// Everything on the disk, one finding a line.
fn losses(disk: &Disk) -> Vec<String> {
    let whole = disk.signatures.iter().map(|signature| match signature.kind.as_str() {
        "gpt" | "dos" => format!("{} partition table{}", signature.kind, told(None, &signature.uuid)),
        kind => format!("whole disk: {kind}{}", told(signature.label.as_ref(), &signature.uuid)),
    });
    whole.chain(disk.partitions.iter().map(partition_line)).collect()
}

fn partition_line(partition: &Partition) -> String {
    let head = format!("partition {}: {}", partition.number, partition.size);
    match &partition.filesystem {
        Some(found) => format!("{head}, {}{}", found.kind, told(found.label.as_ref(), &found.uuid)),
        None => format!("{head}, nothing known{}", told(partition.label.as_ref(), &None)),
    }
}

fn told(label: Option<&String>, uuid: &Option<String>) -> String {
    let label = label.map(|label| format!(", label `{}`", label.escape_debug()));
    let uuid = uuid.as_ref().map(|uuid| format!(", uuid {uuid}"));
    label.into_iter().chain(uuid).collect()
}
