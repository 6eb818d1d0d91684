//! The appliance from a real archive: built twice, read back, and booted in every way a machine can.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use castiron_engine::units::Digest;
use castiron_tests::host::{self, Failure, Result, fresh, program, run};
use castiron_tests::qemu::{Boot, Firmware, Machine};
use serde_json::Value;

/// The smallest kernel that boots in a virtual machine, and no firmware: half a minute less for every case.
const SMALL: &[&str] = &["--kernel-package", "linux-image-cloud-amd64", "--no-firmware", "--cmdline", "no_timer_check"];

/// Longer than any of these takes, also where the processor is emulated and shared.
const PATIENCE: Duration = Duration::from_secs(300);

fn build(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let folder = fresh(name)?;
    let mut command = Command::new(program("castiron")?);
    run(command.arg("appliance").args(SMALL).args(arguments).arg("-o").arg(&folder))?;
    Ok(folder)
}

/// One appliance for all cases of this file.
fn shared() -> &'static Path {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build("appliance-small", &[]).map_err(|failure| failure.0));
    built.as_ref().unwrap_or_else(|failure| panic!("{failure}"))
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// The second build has nothing in its cache but the downloads, so everything is unpacked and packed anew.
#[test]
fn the_same_inputs_give_the_same_bytes() {
    let cache = host::scratch("appliance-empty-cache").unwrap();
    for part in ["unpacked", "packed"] {
        std::fs::remove_dir_all(cache.join(part)).ok();
    }
    let again = build("appliance-again", &["--cache", cache.to_str().unwrap()]).unwrap();
    for name in ["vmlinuz", "initramfs.img", "castiron.efi", "boot.ipxe", "castiron.iso", "manifest.json"] {
        let [one, other] = [shared(), &again].map(|folder| std::fs::read(folder.join(name)).unwrap());
        assert!(one == other, "{name} differs between two builds");
    }
}

#[test]
fn the_manifest_tells_the_truth() {
    let manifest = manifest(shared());
    let outputs = manifest["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 5);
    for output in outputs {
        let bytes = std::fs::read(shared().join(output["name"].as_str().unwrap())).unwrap();
        assert_eq!(output["size"].as_u64().unwrap(), bytes.len() as u64, "{output}");
        assert_eq!(output["sha256"].as_str().unwrap(), Digest::of(&bytes).hex(), "{output}");
    }
    let packages: Vec<&str> =
        manifest["packages"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for file in manifest["files"].as_array().unwrap() {
        let package = file["package"].as_str().unwrap();
        assert!(package == "castiron" || packages.contains(&package), "{file}");
    }
    for package in manifest["packages"].as_array().unwrap() {
        assert!(!package["licences"].as_array().unwrap().is_empty(), "{package}");
        assert_eq!(package["sha256"].as_str().unwrap().len(), "sha256-".len() + 64, "{package}");
    }
}

/// The tools are those that plans can call, each with what it needs to run: every one is started in the unpacked tree.
#[test]
fn the_tools_run_in_the_initramfs() {
    let root = fresh("appliance-unpacked").unwrap();
    let archive = std::fs::read(shared().join("initramfs.img")).unwrap();
    unpack_archives(&archive, &root);
    for argv in [["/sbin/mkfs.ext4", "-V"], ["/bin/sh", "-n"], ["/bin/ls", "/init"]] {
        run(Command::new("chroot").arg(&root).args(argv)).unwrap();
    }
    std::fs::remove_dir_all(&root).unwrap();
}

/// As the kernel does it (init/initramfs.c): archives one after the other, each as it is or packed with zstd.
fn unpack_archives(mut rest: &[u8], root: &Path) {
    while !rest.is_empty() {
        if rest[0] == 0 {
            rest = &rest[1..];
        } else if rest.starts_with(b"070701") {
            rest = unpack_archive(rest, root);
        } else {
            let size = zstd::zstd_safe::find_frame_compressed_size(rest).expect("a zstd frame");
            unpack_archive(&zstd::decode_all(&rest[..size]).unwrap(), root);
            rest = &rest[size..];
        }
    }
}

/// Unpacks one newc archive and gives what follows it.
fn unpack_archive<'a>(mut rest: &'a [u8], root: &Path) -> &'a [u8] {
    let number = |bytes: &[u8], field: usize| {
        let text = std::str::from_utf8(&bytes[6 + field * 8..14 + field * 8]).unwrap();
        usize::from_str_radix(text, 16).unwrap()
    };
    loop {
        let (mode, size, name_size) = (number(rest, 1), number(rest, 6), number(rest, 11));
        let name = std::str::from_utf8(&rest[110..110 + name_size - 1]).unwrap();
        let start = (110 + name_size).next_multiple_of(4);
        let (content, next) = (&rest[start..start + size], (start + size).next_multiple_of(4));
        if name == "TRAILER!!!" {
            return &rest[next.min(rest.len())..];
        }
        let path = root.join(name);
        match mode & 0o170000 {
            0o040000 => std::fs::create_dir_all(&path).unwrap(),
            0o120000 => drop(std::os::unix::fs::symlink(std::str::from_utf8(content).unwrap(), &path)),
            0o100000 => {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::write(&path, content).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode as u32 & 0o7777)).unwrap();
            }
            kind => panic!("{name}: kind {kind:o}"),
        }
        rest = &rest[next..];
    }
}

#[test]
fn mistakes_are_named_before_anything_is_fetched() {
    let folder = fresh("appliance-mistakes").unwrap();
    let key = folder.join("hello.pub");
    std::fs::write(&key, "hello\n").unwrap();
    for (arguments, message) in [
        (vec!["--board", "toaster"], "there is no board `toaster`"),
        (vec!["--trusted-key", key.to_str().unwrap()], "is not what it should be"),
        (vec!["--init", "/no/such/init"], "cannot read /no/such/init"),
    ] {
        let failure = build("appliance-mistake", &arguments).unwrap_err().0;
        assert!(failure.contains(message), "{failure}");
    }
}

/// Boots with 512 MiB until the init has loaded drivers.
fn boots(name: &str, firmware: Firmware, boot: Boot) {
    let check = || -> Result<()> {
        let mut machine = Machine::new(&fresh(&format!("appliance-{name}"))?, boot);
        machine.firmware = firmware;
        machine.memory_mib = 512;
        let mut running = machine.start()?;
        let never = ["Kernel panic", "Out of memory", "error: file"];
        running.expect("modules loaded, devices have settled", &never, PATIENCE)?;
        Ok(())
    };
    check().unwrap_or_else(|Failure(text)| panic!("{text}"));
}

#[test]
fn boots_from_kernel_and_initramfs() {
    let [kernel, initramfs] = ["vmlinuz", "initramfs.img"].map(|name| shared().join(name));
    boots(
        "kernel",
        Firmware::Bios,
        Boot::Kernel { kernel, initramfs, arguments: "console=ttyS0 no_timer_check".into() },
    );
}

#[test]
fn boots_over_the_network_on_bios_by_ipxe() {
    boots("ipxe", Firmware::Bios, Boot::Network { folder: shared().to_owned(), file: "boot.ipxe".into() });
}

#[test]
fn boots_over_the_network_on_uefi_as_one_program() {
    boots("uki", Firmware::Uefi, Boot::Network { folder: shared().to_owned(), file: "castiron.efi".into() });
}

#[test]
fn boots_as_cd_on_bios() {
    boots("cd-bios", Firmware::Bios, Boot::Cdrom(shared().join("castiron.iso")));
}

#[test]
fn boots_as_cd_on_uefi() {
    boots("cd-uefi", Firmware::Uefi, Boot::Cdrom(shared().join("castiron.iso")));
}

#[test]
fn boots_as_usb_disk_on_bios() {
    boots("usb-bios", Firmware::Bios, Boot::Usb(shared().join("castiron.iso")));
}

#[test]
fn boots_as_usb_disk_on_uefi() {
    boots("usb-uefi", Firmware::Uefi, Boot::Usb(shared().join("castiron.iso")));
}
