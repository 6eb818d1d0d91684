//! A whole config on each machine: through the parser, `resolve` and the planner, to the bytes of the table.
//!
//! What is shown beside each case: what a person sees of the plan, and the table as an independent reader finds it in
//! what would be written, counted in the disk's own sectors.

mod cases;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use castiron_engine::block::{Disk, FsKind, TableKind};
use castiron_engine::catalogue::Catalogue;
use castiron_engine::config;
use castiron_engine::diagnostic::Diagnostics;
use castiron_engine::inventory::Inventory;
use castiron_engine::plan::{Effect, Piece, Plan, disk, render};
use castiron_engine::resolve;
use castiron_engine::spec::Spec;
use castiron_engine::units::Bytes;
use uuid::Uuid;

use super::{machine, recordings};
use cases::cases;

/// A config for this machine; the architecture is written, because lsblk tells none.
fn decide(machine: &Inventory, rest: &str) -> Result<(Spec, Plan), Diagnostics> {
    let text = format!("castiron: 1\nsource: {{ bootstrap: {{ release: trixie, architecture: amd64 }} }}\n{rest}");
    let config = config::parse(text.as_bytes(), "image.yaml")?;
    let spec = resolve::resolve(&config, machine, &Catalogue::shipped().unwrap(), None, Uuid::nil())?;
    let places = disk::Places { root: "/target".into(), images: Default::default() };
    let plan = disk::plan(&spec, &places).expect("what resolve lets through can be planned");
    check(machine, &spec, &plan);
    Ok((spec, plan))
}

/// What holds for every plan on every machine.
fn check(machine: &Inventory, spec: &Spec, plan: &Plan) {
    for (table, partition) in spec.graph.partitions() {
        let (_, disk) = spec.graph.disks().find(|(id, _)| **id == table.base).unwrap();
        let sector = disk.sector_size.0;
        assert!(partition.start.0.is_multiple_of(1 << 20), "{} begins at {}", partition.node, partition.start.0);
        assert!(partition.length.0.is_multiple_of(sector), "{} is {} long", partition.node, partition.length.0);
        assert!(partition.start.0 + partition.length.0 <= disk.size.0 - sector, "{} is too long", partition.node);
    }
    for effect in plan.effects() {
        match effect {
            // Drives take whole sectors only.
            Effect::WriteSectors { node, pieces, .. } => {
                let Some((_, disk)) = spec.graph.disks().find(|(id, _)| *id == node) else { continue };
                for Piece { offset, content } in pieces {
                    assert!(offset.0.is_multiple_of(disk.sector_size.0), "{node} at {}", offset.0);
                    assert!(offset.0 + content.len() as u64 <= disk.size.0, "{node} at {}", offset.0);
                }
            }
            Effect::Verify { disk, identity } => {
                let found = machine.find(identity).expect("the disk is told from all others");
                let (_, planned) = spec.graph.disks().find(|(id, _)| *id == disk).unwrap();
                assert_eq!((planned.size, planned.sector_size), (found.size, found.logical_sector_size));
            }
            _ => {}
        }
    }
    // Names of devices are the kernel's to give; only the identity tells where a disk was seen.
    let text = serde_json::to_string(plan).unwrap();
    for disk in &machine.disks {
        assert!(!text.contains(&format!("/dev/{}", disk.name)), "the plan names {}", disk.path);
    }
}

/// The layout and the losses as a person sees them; what is done to the disks; the tables; what firmware starts.
fn outcome(machine: &Inventory, rest: &str) -> String {
    let (spec, plan) = match decide(machine, rest) {
        Err(found) => return found.to_string(),
        Ok(decided) => decided,
    };
    let text = render::text(&spec, &plan);
    let mut shown = text[..text.find("\n\n  1  ").expect("a plan has steps") + 1].to_owned();
    for effect in plan.effects() {
        match effect {
            Effect::WriteSectors { node, pieces, .. } => match spec.graph.disks().find(|(id, _)| *id == node) {
                None => writeln!(shown, "{effect}").unwrap(),
                Some((_, disk)) => {
                    let table = spec.graph.tables().find(|table| table.base == *node).unwrap();
                    match table.kind {
                        TableKind::Gpt => gpt(&mut shown, disk, pieces),
                        TableKind::Mbr => mbr(&mut shown, disk, pieces),
                    }
                }
            },
            Effect::Wipe { .. } | Effect::FormatFat { .. } => writeln!(shown, "{effect}").unwrap(),
            Effect::Exec(cmd) if cmd.name() == "mkfs.ext4" => {
                let text = cmd.to_string();
                let (_, label) = text.split_once(" -L ").unwrap();
                writeln!(shown, "mkfs.ext4 {label}").unwrap();
            }
            Effect::BootEntry(entry) => {
                let end = entry.start_sector + entry.sectors - 1;
                writeln!(shown, "firmware starts partition {}: {}-{end}", entry.partition_number, entry.start_sector)
                    .unwrap();
            }
            Effect::EmbedGrub { disk, place, .. } => writeln!(shown, "BIOS starts {disk} by {place:?}").unwrap(),
            _ => {}
        }
    }
    shown
}

/// The bytes that would lie at a sector of the disk.
fn at(pieces: &[Piece], sector: u64, disk: &Disk) -> Vec<u8> {
    let offset = Bytes(sector * disk.sector_size.0);
    pieces.iter().find(|piece| piece.offset == offset).expect("something is written there").content.clone()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

/// Both copies, as firmware reads them (UEFI 2.10, tables 5.5 and 5.6).
fn gpt(out: &mut String, disk: &Disk, pieces: &[Piece]) {
    let last = disk.size.0 / disk.sector_size.0 - 1;
    let mut copies = Vec::new();
    for own in [1, last] {
        let header = at(pieces, own, disk);
        let long = |place| u64::from_le_bytes(number(&header, place));
        assert_eq!((&header[..8], long(24), long(32)), (&b"EFI PART"[..], own, if own == 1 { last } else { 1 }));
        let mut unsigned = header[..92].to_vec();
        unsigned[16..20].fill(0);
        assert_eq!(u32::from_le_bytes(number(&header, 16)), crc32(&unsigned));
        let entries = at(pieces, long(72), disk);
        assert_eq!(u32::from_le_bytes(number(&header, 88)), crc32(&entries));
        copies.push((long(40), long(48), entries));
    }
    assert_eq!(copies[0], copies[1]);
    let (first_usable, last_usable, entries) = &copies[0];
    writeln!(out, "GPT in sectors of {}: {first_usable}-{last_usable} of 0-{last}", disk.sector_size).unwrap();
    for (index, entry) in entries.chunks_exact(128).enumerate().filter(|(_, entry)| entry[..16] != [0; 16]) {
        let (first, end) = (u64::from_le_bytes(number(entry, 32)), u64::from_le_bytes(number(entry, 40)));
        let units = entry[56..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let name = String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).unwrap();
        assert!(first >= *first_usable && end <= *last_usable);
        writeln!(out, "  {} {first}-{end} {name}", index + 1).unwrap();
    }
}

fn mbr(out: &mut String, disk: &Disk, pieces: &[Piece]) {
    let sector = at(pieces, 0, disk);
    writeln!(out, "MBR in sectors of {} of 0-{}", disk.sector_size, disk.size.0 / disk.sector_size.0 - 1).unwrap();
    for (index, entry) in sector[446..510].chunks_exact(16).enumerate().filter(|(_, entry)| entry[4] != 0) {
        let (first, count) = (u32::from_le_bytes(number(entry, 8)), u32::from_le_bytes(number(entry, 12)));
        writeln!(out, "  {} {first}-{} {:02x}", index + 1, u64::from(first) + u64::from(count) - 1, entry[4]).unwrap();
    }
}

/// CRC-32 as zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn every_case_gives_what_was_reviewed() {
    for case in cases() {
        case.expected.assert_eq(&outcome(&machine(case.recording), case.config));
    }
}

#[test]
fn every_recording_has_a_case() {
    let with_case: BTreeSet<String> = cases().iter().map(|case| case.recording.to_owned()).collect();
    assert_eq!(with_case, recordings());
}

/// Each disk that was ever recorded, wiped and laid out whole by UEFI: planned in its own sectors, or refused for one
/// of the reasons that there are.
#[test]
fn every_disk_that_was_recorded_is_planned_or_refused() {
    let mut planned = [0, 0];
    for recording in recordings() {
        let machine = machine(&recording);
        for disk in &machine.disks {
            let mut keys = vec![format!("name: {}", disk.name), format!("size: '{}'", disk.size.0)];
            keys.extend(disk.wwn.iter().map(|wwn| format!("wwn: '{wwn}'")));
            let config = format!(
                "boot: {{ firmware: uefi }}\nstorage: {{ layout: [ {{ disk: {{ name: system, match: {{ {} }},
  wipe: superblock-recursive, partitioning: {{ label: gpt, partitions: [
    {{ name: esp, type: esp, size: 64MiB, esp: {{}} }},
    {{ name: root, size: 100%, mkfs: {{ type: ext4, mount: {{ mount_point: / }} }} }} ] }} }} }} ] }}\n",
                keys.join(", ")
            );
            match decide(&machine, &config) {
                Err(found) => {
                    let known = ["disk.none", "disk.held", "disk.too-small", "disk.multipath", "disk.ambiguous"];
                    assert_eq!(found.0.len(), 1, "{recording} {disk}: {found}");
                    assert!(known.contains(&found.0[0].rule.as_str()), "{recording} {disk}: {found}");
                }
                Ok((spec, plan)) => {
                    let (_, target) = spec.graph.disks().next().unwrap();
                    assert_eq!(target.sector_size, disk.logical_sector_size);
                    for (_, filesystem) in spec.graph.filesystems().filter(|(_, made)| made.kind == FsKind::Vfat) {
                        let formatted = |effect: &Effect| match effect {
                            Effect::FormatFat { node, sector_size, .. } if *node == filesystem.base => {
                                Some(*sector_size)
                            }
                            _ => None,
                        };
                        assert_eq!(plan.effects().find_map(formatted), Some(disk.logical_sector_size));
                    }
                    planned[usize::from(disk.logical_sector_size == Bytes(4096))] += 1;
                }
            }
        }
    }
    assert!(planned[0] > 70 && planned[1] == 2, "{planned:?}");
}
