//! Which loader, for which firmware, with which arguments; and whether the layout lets it start.

use super::Context;
use crate::block::table::{BIOS_BOOT, ESP};
use crate::block::{BlockGraph, FsKind, TableKind, Target};
use crate::config::system::{EfiOrder, FirmwareChoice, Loader as WrittenLoader};
use crate::diagnostic::Diagnostic;
use crate::spec::{BootSpec, Firmware, Loader};
use crate::{catalogue, units::Bytes};

/// GRUB's core image with what it needs to read ext4 on a GPT.
const BIOS_BOOT_MIN: Bytes = Bytes::kib(512);

/// `None` if the loader cannot be decided; the reasons are noted. Without a graph only the words are checked.
pub fn resolve(graph: Option<&BlockGraph>, context: &mut Context<'_>) -> Option<BootSpec> {
    let loader = loader(context);
    let firmware = firmware(graph, context);
    if let (Some(Loader::Grub), Some(graph)) = (loader, graph) {
        for kind in &firmware {
            match kind {
                Firmware::Bios => check_bios(graph, context),
                Firmware::Uefi => check_uefi(graph, context),
            }
        }
    }
    let written = &context.config.boot;
    let mut consoles: Vec<String> = written.console.iter().map(|console| console.0.clone()).collect();
    if consoles.is_empty() {
        consoles.clone_from(&context.board.kernel.consoles);
    }
    let deleted = |argument: &&String| !written.kernel_arguments.delete.iter().any(|delete| delete.0 == **argument);
    let appended = written.kernel_arguments.append.iter().map(|argument| argument.0.clone());
    let kernel_arguments = context.board.kernel.cmdline.iter().filter(deleted).cloned().chain(appended).collect();
    let efi_label = match written.efi.order {
        EfiOrder::Keep => None,
        EfiOrder::NetworkFirst => {
            let later = Diagnostic::error("config.later", "`network-first` is not in this version of castiron");
            context.refuse("boot.efi.order", later.hint("write disk-first, or keep"));
            None
        }
        EfiOrder::DiskFirst => Some(written.efi.label.clone().unwrap_or_else(|| context.distribution.vendor.clone())),
    };
    Some(BootSpec {
        loader: loader?,
        firmware,
        kernel_arguments,
        consoles,
        timeout_seconds: written.timeout.map_or(1, |span| u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX)),
        title: format!("{} ({})", context.distribution.title, context.bootstrap.release),
        vendor: context.distribution.vendor.clone(),
        efi_label,
    })
}

fn loader(context: &mut Context<'_>) -> Option<Loader> {
    match context.config.boot.loader {
        WrittenLoader::Auto | WrittenLoader::Grub => Some(Loader::Grub),
        WrittenLoader::None => Some(Loader::None),
        later @ (WrittenLoader::SystemdBoot | WrittenLoader::Uki | WrittenLoader::Extlinux | WrittenLoader::Rpi) => {
            let word = match later {
                WrittenLoader::SystemdBoot => "systemd-boot",
                WrittenLoader::Uki => "uki",
                WrittenLoader::Extlinux => "extlinux",
                _ => "rpi",
            };
            let message = format!("loader `{word}` is not in this version of castiron");
            context.refuse("boot.loader", Diagnostic::error("config.later", message).hint("write grub, none or auto"));
            None
        }
    }
}

/// Both that the board knows, for an image; that of the machine otherwise.
fn firmware(graph: Option<&BlockGraph>, context: &mut Context<'_>) -> Vec<Firmware> {
    let of_board = |kind: &catalogue::Firmware| match kind {
        catalogue::Firmware::Uefi => Firmware::Uefi,
        catalogue::Firmware::Bios => Firmware::Bios,
    };
    let board: Vec<Firmware> = context.board.firmware.iter().map(of_board).collect();
    let image = graph.is_some_and(|graph| graph.disks().any(|(_, disk)| disk.target == Target::ImageFile));
    let bios_can = |kind: &Firmware| *kind != Firmware::Bios || graph.is_none_or(bios_reads_the_disk);
    let wanted = match context.config.boot.firmware {
        FirmwareChoice::Auto if image => board.iter().copied().filter(bios_can).collect(),
        FirmwareChoice::Auto => vec![context.inventory.firmware],
        FirmwareChoice::Uefi => vec![Firmware::Uefi],
        FirmwareChoice::Bios => vec![Firmware::Bios],
        FirmwareChoice::Both => vec![Firmware::Bios, Firmware::Uefi],
    };
    if let Some(unknown) = wanted.iter().find(|kind| !board.contains(kind)) {
        let message = format!("board `{}` does not boot by {unknown:?}", context.board.name);
        context.refuse("boot.firmware", Diagnostic::error("boot.firmware", message).hint("write auto"));
    }
    wanted
}

/// A BIOS and the loader's first sector count in 512 bytes; drives with larger sectors are for UEFI alone.
fn bios_reads_the_disk(graph: &BlockGraph) -> bool {
    root_table(graph)
        .and_then(|table| graph.disks().find(|(id, _)| **id == table.base))
        .is_none_or(|(_, disk)| disk.sector_size == Bytes(512))
}

/// GRUB's core image lies in a BIOS boot partition of a GPT, or in the gap after an MBR.
fn check_bios(graph: &BlockGraph, context: &mut Context<'_>) {
    if !bios_reads_the_disk(graph) {
        let wrong = Diagnostic::error("boot.bios", "a BIOS cannot start a disk with sectors of 4096 bytes");
        context.refuse("storage", wrong.hint("start the machine by UEFI, or choose a disk with sectors of 512"));
        return;
    }
    let Some(table) = root_table(graph) else {
        let none = Diagnostic::error("boot.bios", "a BIOS cannot start a disk without partitions");
        context.refuse("storage", none.hint("put a partition table on the disk"));
        return;
    };
    let has_room = table.partitions.iter().any(|part| part.type_guid == BIOS_BOOT && part.length >= BIOS_BOOT_MIN);
    let missing = match table.kind {
        TableKind::Gpt if !has_room => Some("- { name: bios, type: bios-boot, size: 1MiB }"),
        TableKind::Mbr if table.partitions.iter().any(|part| part.start < BIOS_BOOT_MIN) => Some("align: 1MiB"),
        TableKind::Gpt | TableKind::Mbr => None,
    };
    if let Some(add) = missing {
        let message = format!("disk `{}` leaves no room for the loader that a BIOS starts", table.base);
        context.refuse(
            "storage",
            Diagnostic::error("boot.bios", message).hint(format!("add `{add}`, or write `boot: {{ firmware: uefi }}`")),
        );
    }
}

/// UEFI starts a program from a FAT file system on a partition of type ESP (UEFI 2.10, 13.3).
fn check_uefi(graph: &BlockGraph, context: &mut Context<'_>) {
    let esp = graph.partitions().find(|(table, part)| match table.kind {
        TableKind::Gpt => part.type_guid == ESP,
        TableKind::Mbr => part.type_byte == 0xef,
    });
    let mounted = esp.is_some_and(|(_, part)| {
        graph.filesystems().any(|(id, filesystem)| {
            filesystem.base == part.node
                && filesystem.kind == FsKind::Vfat
                && graph.mounts().any(|mount| mount.base == *id)
        })
    });
    if !mounted {
        let message = match esp {
            Some((_, part)) => format!("the ESP `{}` has no mounted FAT file system", part.node),
            None => "no disk has an EFI system partition".to_owned(),
        };
        let hint = "add `- { name: esp, type: esp, size: 128MiB, esp: {} }`, or write `boot: { firmware: bios }`";
        context.refuse("storage", Diagnostic::error("boot.uefi", message).hint(hint));
    }
}

/// The table of the disk that holds `/boot`, or `/`.
fn root_table(graph: &BlockGraph) -> Option<&crate::block::Table> {
    let mount =
        graph.mounts().find(|mount| mount.at == "/boot").or_else(|| graph.mounts().find(|mount| mount.at == "/"))?;
    let base = &graph.filesystem(&mount.base)?.base;
    graph.partitions().find(|(_, part)| part.node == *base).map(|(table, _)| table)
}
