//! The disks and image files that everything else is made on.

use std::collections::BTreeMap;

use super::{ALIGNMENT, Flat};
use crate::block::{self, Target};
use crate::config::storage;
use crate::config::values::Size;
use crate::diagnostic::Diagnostic;
use crate::inventory;
use crate::resolve::{Context, disks};
use crate::units::Bytes;

/// Those of drives; optical media and the like have others.
const SECTOR_SIZES: [Bytes; 2] = [Bytes(512), Bytes(4096)];

/// The disks and images by name; `None` where one could not be decided.
pub fn level_zero(flat: &Flat<'_>, context: &mut Context<'_>) -> BTreeMap<String, Option<block::Disk>> {
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
        let chosen = chosen.filter(|choice| check_sectors(path, choice.disk, context));
        decided.insert(written.name.clone(), chosen.map(|choice| disk_node(&choice, wipe)));
    }
    for (path, image) in &flat.images {
        let sector_size = Bytes(u64::from(image.block_size.unwrap_or(512)));
        if !SECTOR_SIZES.contains(&sector_size) {
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

fn check_sectors(path: &str, disk: &inventory::Disk, context: &mut Context<'_>) -> bool {
    let known = SECTOR_SIZES.contains(&disk.logical_sector_size);
    if !known {
        let message = format!("the disk has sectors of {}: {disk}", disk.logical_sector_size);
        context.refuse(path, Diagnostic::error("disk.sector", message).hint("choose one with sectors of 512 or 4096"));
    }
    known
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
