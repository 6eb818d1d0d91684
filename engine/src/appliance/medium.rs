//! The boot medium: one image that boots as CD and as USB disk, on BIOS and on UEFI.
//!
//! In: kernel, initramfs and the board's GRUB. Out: files and command lines for a [`Workshop`], a small root file system
//! that holds the distribution's own `grub-mkimage` and `xorriso`, so that the host needs neither.
//!
//! Both firmwares come to the same GRUB menu and the same two files: on BIOS by El Torito or by the MBR code of GRUB's
//! hybrid image, on UEFI by a FAT image that is the El Torito entry for a CD and a GPT partition for a disk.
//! Invariant: dates, volume ids and GUIDs derive from `SOURCE_DATE_EPOCH`; the same inputs give the same bytes.

use std::io::{self, Cursor};

use lamfat::{StdIoWrapper, Write as _};

use crate::catalogue::{Board, Grub};
use crate::units::Bytes;

use super::assemble::{INITRAMFS, KERNEL};
use super::texts;

/// Packages that have these programs, besides the board's GRUB.
pub const PACKAGES: &[&str] = &["grub-common", "xorriso"];
/// Programs that the workshop needs, with their libraries.
pub const PROGRAMS: &[&str] = &["usr/bin/grub-mkimage", "usr/bin/xorriso"];

/// The volume's name.
const LABEL: &str = "CASTIRON";
/// What GRUB looks for to know its own medium among others.
const MARKER: &str = "/.castiron-medium";
const MENU: &str = "/boot/grub/grub.cfg";

/// Paths inside the workshop.
const TREE: &str = "/work/tree";
const EARLY: &str = "/work/early.cfg";
const BIOS_CORE: &str = "/work/tree/boot/grub/eltorito.img";
pub const EFI_CORE: &str = "/work/core.efi";
pub const EFI_IMAGE: &str = "/work/efi.img";
pub const IMAGE: &str = "/work/castiron.iso";

/// GRUB modules for both firmwares: find the medium, show the menu, load Linux.
const MODULES: &[&str] = &[
    "configfile",
    "echo",
    "fat",
    "halt",
    "iso9660",
    "linux",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "serial",
    "sleep",
    "terminal",
    "test",
];

/// What is done inside the workshop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workshop {
    /// Folders of the packages that must be there.
    pub folders: Vec<String>,
    /// Files to write first: path and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Makes GRUB's core images; [`EFI_IMAGE`] is made from [`EFI_CORE`] after that, by [`efi_image`].
    pub make_grub: Vec<Vec<String>>,
    /// Makes [`IMAGE`].
    pub make_image: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// The work for a board; `date` is in seconds since 1970.
pub fn workshop(board: &Board, kernel: &[u8], initramfs: &[u8], cmdline: &str, date: i64) -> Workshop {
    let menu = texts::grub_menu(
        &format!("castiron appliance for {}", board.title),
        &format!("/{KERNEL}"),
        &format!("/{INITRAMFS}"),
        cmdline,
    );
    let files = [
        (format!("{TREE}/{KERNEL}"), kernel.to_vec()),
        (format!("{TREE}/{INITRAMFS}"), initramfs.to_vec()),
        (format!("{TREE}{MARKER}"), Vec::new()),
        (format!("{TREE}{MENU}"), menu.into_bytes()),
        (EARLY.to_owned(), texts::grub_early(MARKER, MENU).into_bytes()),
    ];
    let mut make_image = words("/usr/bin/xorriso -as mkisofs -quiet -rational-rock -joliet --set_all_file_dates");
    make_image.extend([format!("={date}"), "-volid".to_owned(), LABEL.to_owned()]);
    let mut make_grub = Vec::new();
    let mut folders = Vec::new();
    if let Some(bios) = &board.bios {
        folders.push(modules_of(&bios.grub));
        make_grub.push(mkimage(&bios.grub, "-eltorito", BIOS_CORE, &["biosdisk"]));
        let core = BIOS_CORE.strip_prefix(TREE).unwrap_or(BIOS_CORE).trim_start_matches('/');
        make_image.extend(words("--mbr-force-bootable --grub2-boot-info --grub2-mbr"));
        make_image.push(format!("/{}/boot_hybrid.img", modules_of(&bios.grub)));
        make_image.extend(words(&format!("-eltorito-boot {core} -no-emul-boot -boot-load-size 4 -boot-info-table")));
    }
    if let Some(efi) = &board.efi {
        folders.push(modules_of(&efi.grub));
        make_grub.push(mkimage(&efi.grub, "", EFI_CORE, &["efi_gop", "all_video"]));
        make_image.extend(words(&format!(
            "-append_partition 2 0xef {EFI_IMAGE} -appended_part_as_gpt -partition_offset 16 \
             -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot"
        )));
    }
    make_image.extend(words(&format!("-output {IMAGE} {TREE}")));
    Workshop {
        folders,
        files: files.to_vec(),
        make_grub,
        make_image,
        env: vec![("SOURCE_DATE_EPOCH".to_owned(), date.to_string())],
    }
}

fn modules_of(grub: &Grub) -> String {
    format!("usr/lib/grub/{}", grub.platform)
}

fn mkimage(grub: &Grub, format: &str, output: &str, more: &[&str]) -> Vec<String> {
    let mut argv = words("/usr/bin/grub-mkimage --prefix /boot/grub --config");
    argv.push(EARLY.to_owned());
    argv.extend(["--directory".to_owned(), format!("/{}", modules_of(grub))]);
    argv.extend(["--format".to_owned(), format!("{}{format}", grub.platform)]);
    argv.extend(["--output".to_owned(), output.to_owned()]);
    argv.extend(MODULES.iter().chain(more).map(|module| (*module).to_owned()));
    argv
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A FAT file system that holds `program` as `EFI/BOOT/NAME`, just large enough.
pub fn efi_image(name: &str, program: &[u8]) -> io::Result<Vec<u8>> {
    // Two sectors a cluster, room for the tables, the two folders and the program.
    let size = Bytes(program.len() as u64 + program.len() as u64 / 64) + Bytes::kib(256);
    let size = size.round_up(Bytes::kib(64)).0;
    let mut bytes = vec![0; size as usize];
    let volume_id = crc32fast::hash(program);
    let format = lamfat::FormatVolumeOptions::new().volume_id(volume_id).volume_label(*b"CASTIRON   ");
    lamfat::format_volume(&mut StdIoWrapper::new(Cursor::new(&mut bytes[..])), format)?;
    let options = lamfat::FsOptions::new().time_provider(lamfat::NullTimeProvider::new());
    {
        let system = lamfat::FileSystem::new(Cursor::new(&mut bytes[..]), options)?;
        let mut file = system.root_dir().create_dir("EFI")?.create_dir("BOOT")?.create_file(name)?;
        file.write_all(program)?;
        file.flush()?;
        drop(file);
        system.unmount()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use lamfat::Read as _;

    use super::*;

    #[test]
    fn the_efi_image_holds_the_program_and_can_be_repeated() {
        let program: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let image = efi_image("BOOTX64.EFI", &program).unwrap();
        assert_eq!(image, efi_image("BOOTX64.EFI", &program).unwrap());
        let system = lamfat::FileSystem::new(Cursor::new(image), lamfat::FsOptions::new()).unwrap();
        let mut read = vec![0; program.len()];
        system.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap().read_exact(&mut read).unwrap();
        assert_eq!(read, program);
    }

    #[test]
    fn a_board_without_bios_asks_for_no_bios_parts() {
        let mut board = Board::parse("board.toml", include_str!("../../../board-support/x86_64/board.toml")).unwrap();
        let both = workshop(&board, b"kernel", b"initramfs", "quiet", 0);
        assert_eq!(both.make_grub.len(), 2);
        assert!(both.make_image.contains(&"--grub2-mbr".to_owned()));
        board.bios = None;
        let efi_only = workshop(&board, b"kernel", b"initramfs", "quiet", 0);
        assert_eq!(efi_only.folders, ["usr/lib/grub/x86_64-efi"]);
        assert!(!efi_only.make_image.iter().any(|word| word.contains("grub2")));
    }
}
