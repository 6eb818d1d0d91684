//! GRUB's sectors and menu, written natively.

use std::fs::File;
use std::os::unix::fs::FileExt;

use camino::Utf8Path;
use rustix::fs::FileType;

use super::tree::Tree;
use crate::plan::effect::{CorePlace, GrubConfig};
use crate::spec::{Content, FileSpec, Secrets};
use crate::system::{Context, EffectError};
use crate::units::{Bytes, Mode};

/// Offsets of `boot.S` and `diskboot.S` (GRUB 2, `include/grub/i386/pc/boot.h`).
const BOOT_CODE_LENGTH: usize = 440;
const KERNEL_SECTOR: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: usize = 0x66;
const BLOCK_LIST: usize = 0x1f4;
const SECTOR: u64 = 512;

/// The core image first, written out, then the boot code that starts it: an interruption in between leaves a disk
/// that firmware passes over.
pub fn embed(disk: &File, boot_image: &[u8], core_image: &[u8], place: &CorePlace) -> Result<(), EffectError> {
    let (start, room) = match place {
        CorePlace::Partition { start, length } => (*start, *length),
        CorePlace::Gap { length } => (Bytes(SECTOR), *length - Bytes(SECTOR)),
    };
    if core_image.len() as u64 > room.0 {
        let message = format!("GRUB's core image has {} bytes, its place {}", core_image.len(), room);
        return Err(EffectError::new(message).with_hint("make the bios-boot partition larger"));
    }
    if core_image.len() < 512 || boot_image.len() < 512 {
        return Err(EffectError::new("GRUB's images are too short to be what they claim"));
    }
    let core = core_with_place(core_image, start);
    disk.write_all_at(&core, start.0).context("cannot write GRUB's core image")?;
    disk.sync_all().context("cannot write out GRUB's core image")?;
    let code = boot_code(boot_image, start);
    disk.write_all_at(&code, 0).context("cannot write the boot sector")?;
    disk.sync_all().context("cannot write out the boot sector")
}

/// The first block list entry of `diskboot.img` tells where the rest of the image is.
fn core_with_place(image: &[u8], start: Bytes) -> Vec<u8> {
    let mut core = image.to_vec();
    let sectors = (image.len() as u64).div_ceil(SECTOR);
    core.resize((sectors * SECTOR) as usize, 0);
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(start.0 / SECTOR + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&((sectors - 1) as u16).to_le_bytes());
    core
}

fn boot_code(image: &[u8], start: Bytes) -> Vec<u8> {
    let mut code = image[..BOOT_CODE_LENGTH].to_vec();
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&(start.0 / SECTOR).to_le_bytes());
    // The drive that the BIOS started from.
    code[BOOT_DRIVE] = 0xff;
    // Two no-operations keep the drive number that the BIOS gave, as for every hard disk.
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    code
}

/// An entry for each kernel, the newest first.
pub fn write_menu(tree: &Tree, config: &GrubConfig) -> Result<usize, EffectError> {
    let (versions, names) = kernels(tree, &config.kernels)?;
    let text = menu(config, &versions, &names);
    let file = FileSpec {
        path: config.path.clone(),
        mode: Mode(0o600),
        user: "root".into(),
        group: "root".into(),
        content: Content::Text(text),
        append: false,
    };
    tree.write(&file, &Secrets::new())?;
    Ok(versions.len())
}

/// The versions of the kernels in a folder, the newest first, and all names there.
fn kernels(tree: &Tree, folder: &Utf8Path) -> Result<(Vec<String>, Vec<String>), EffectError> {
    let names: Vec<String> = tree
        .list(folder)?
        .into_iter()
        .filter(|(_, kind)| *kind == FileType::RegularFile)
        .map(|(name, _)| name)
        .collect();
    let mut versions: Vec<String> =
        names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).map(str::to_owned).collect();
    if versions.is_empty() {
        return Err(EffectError::new(format!("there is no kernel in {folder} of the target"))
            .with_hint("add a kernel package to `packages`"));
    }
    versions.sort_by(|a, b| crate::debian::version::compare(b, a));
    Ok((versions, names))
}

/// `vmlinuz` and `initrd.img` of the newest version, outside the target.
pub fn keep_kernel(tree: &Tree, folder: &Utf8Path, to: &Utf8Path) -> Result<(), EffectError> {
    let (versions, _) = kernels(tree, folder)?;
    std::fs::create_dir_all(to).context(format!("cannot make {to}"))?;
    for name in ["vmlinuz", "initrd.img"] {
        let from = folder.join(format!("{name}-{}", versions[0]));
        let mut copy = File::create(to.join(name)).context(format!("cannot make {to}/{name}"))?;
        std::io::copy(&mut tree.open_file(&from)?, &mut copy).context(format!("cannot copy {from}"))?;
    }
    Ok(())
}

fn menu(config: &GrubConfig, versions: &[String], names: &[String]) -> String {
    let mut text = format!(
        "# Written by castiron; `update-grub` replaces it.\nset default=0\nset timeout={}\n",
        config.timeout_seconds
    );
    if let Some(serial) = crate::plan::boot::serial_command(&config.consoles) {
        text.push_str(&format!("{serial}\nterminal_input console serial\nterminal_output console serial\n"));
    }
    for version in versions {
        let folder = &config.kernels_in_filesystem;
        let arguments = config.arguments.join(" ");
        text.push_str(&format!(
            "menuentry '{}, Linux {version}' --class gnu-linux --class os {{\n\tsearch --no-floppy --fs-uuid --set=root {}\n\tlinux {folder}/vmlinuz-{version} {arguments}\n",
            config.title.replace('\'', ""),
            config.filesystem_uuid,
        ));
        let initrd = format!("initrd.img-{version}");
        if names.contains(&initrd) {
            text.push_str(&format!("\tinitrd {folder}/{initrd}\n"));
        }
        text.push_str("}\n");
    }
    text
}

/// Reads an image of the target.
pub fn image(tree: &Tree, path: &Utf8Path) -> Result<Vec<u8>, EffectError> {
    tree.read(path).map_err(|error| error.with_hint("the target needs GRUB's packages for its firmware"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_code_points_at_the_core_and_the_core_at_its_rest() {
        let code = boot_code(&[0; 512], Bytes::mib(1));
        assert_eq!(code[KERNEL_SECTOR..KERNEL_SECTOR + 8], 2048u64.to_le_bytes());
        let core = core_with_place(&[0; 1300], Bytes::mib(1));
        assert_eq!(core.len(), 3 * 512);
        assert_eq!(core[BLOCK_LIST..BLOCK_LIST + 8], 2049u64.to_le_bytes());
        assert_eq!(core[BLOCK_LIST + 8..BLOCK_LIST + 10], 2u16.to_le_bytes());
    }

    #[test]
    fn a_core_that_does_not_fit_is_refused_and_nothing_is_written() {
        let disk = tempfile::tempfile().unwrap();
        let place = CorePlace::Partition { start: Bytes::mib(1), length: Bytes(1024) };
        assert!(embed(&disk, &[1; 512], &[1; 2048], &place).is_err());
        assert_eq!(disk.metadata().unwrap().len(), 0);
    }
}
