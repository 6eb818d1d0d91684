//! The init in a machine: a stock kernel with modules, its consoles, hot-plug, keys, endings.
//!
//! The initramfs holds the program, a shell and the modules of an emulated PC, so a case takes seconds. A mistake on
//! the command line ends each run before it would install anything.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use castiron_engine::appliance::kmod::{Index, ModInfo};
use castiron_engine::catalogue::ModuleEntry;
use castiron_engine::event::{EventResult, EventType};
use castiron_tests::host;
use castiron_tests::qemu::{Boot, Disk, KERNEL_ARGUMENTS, Machine, Running};
use castiron_tests::toy::real::{Unpacked, behind, fetch};
use castiron_tests::toy::tar::{Tree, to_cpio};

const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio-rng",
    "evdev",
    "button",
    "vfat",
    "efivarfs",
    "i8042",
    "atkbd",
];
const BOOT: Duration = Duration::from_secs(120);
/// Never comes true, so nothing is installed.
const MISTAKE: &str = "castiron.mode=isntall";

fn kernel() -> &'static (PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = host::scratch("init").unwrap();
        let debs = fetch(&[&behind("linux-image-cloud-amd64").unwrap(), "busybox-static"]).unwrap();
        let (kernel, busybox) = (Unpacked::new(&debs[0]).unwrap(), Unpacked::new(&debs[1]).unwrap());
        let image = Tree::read(&kernel.path().join("boot"), |path| path.starts_with("vmlinuz-")).unwrap();
        let (name, bytes) = image.files().next().unwrap();
        let release = name.trim_start_matches("vmlinuz-");
        std::fs::write(folder.join("vmlinuz"), bytes).unwrap();
        let busybox = std::fs::read(busybox.path().join("bin/busybox")).unwrap();
        let tree = Tree::default()
            .file("init", 0o755, std::fs::read(host::program("castiron-init").unwrap()).unwrap())
            .file("bin/busybox", 0o755, busybox)
            .symlink("bin/sh", "busybox");
        let tree = with_modules(tree, &kernel.path().join("lib/modules").join(release), release);
        std::fs::write(folder.join("initramfs"), zstd::encode_all(&to_cpio(&tree)[..], 3).unwrap()).unwrap();
        (folder.join("vmlinuz"), folder.join("initramfs"))
    })
}

/// Adds [`MODULES`] with what they need; one of each way of compression.
fn with_modules(mut tree: Tree, folder: &Path, release: &str) -> Tree {
    let all = Tree::read(folder, |path| path.ends_with(".ko") || path == "modules.builtin").unwrap();
    let info = |(path, bytes): (&String, &Vec<u8>)| Some((path.clone(), ModInfo::of_module(bytes).ok()?));
    let builtin = all.files().find(|(path, _)| *path == "modules.builtin").unwrap().1;
    let builtin = String::from_utf8_lossy(builtin).into_owned();
    let index = Index::new(all.files().filter_map(info), &builtin);
    let entries: Vec<ModuleEntry> = MODULES.iter().map(|name| ModuleEntry::from((*name).to_owned())).collect();
    let selection = index.select(&entries, &[]).unwrap();
    let mut dep = index.dep(&selection, "").unwrap();
    for (path, bytes) in all.files().filter(|(path, _)| selection.paths.contains(path)) {
        let (suffix, bytes) = match path.rsplit('/').next() {
            Some("virtio_blk.ko") => (".xz", xz(bytes)),
            Some("virtio_net.ko") => (".zst", zstd::encode_all(&bytes[..], 3).unwrap()),
            _ => ("", bytes.clone()),
        };
        dep = dep.replace(path.as_str(), &format!("{path}{suffix}"));
        tree = tree.file(&format!("lib/modules/{release}/{path}{suffix}"), 0o644, bytes);
    }
    let text = |name: &str| format!("lib/modules/{release}/{name}");
    tree.file(&text("modules.dep"), 0o644, dep)
        .file(&text("modules.alias"), 0o644, index.alias(&selection))
        .file(&text("modules.softdep"), 0o644, index.softdep(&selection))
        .file(&text("modules.builtin"), 0o644, builtin)
        .file("etc/castiron/modules-load", 0o644, "# by nobody's alias\nvfat\nefivarfs\n")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn boot(arguments: &str) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (kernel, initramfs) = kernel().clone();
    let arguments = arguments.to_owned();
    let mut machine = Machine::new(folder.path(), Boot::Kernel { kernel, initramfs, arguments });
    machine.memory_mib = 256;
    machine.disks = vec![Disk::empty(&folder.path().join("disk"), "EMPTY", 1 << 20).unwrap().recorded()];
    (machine.start().unwrap(), folder)
}

/// A command with arguments for the emulator's monitor.
fn tell(running: &Running, command: &str) {
    let path = running.folder().join("qmp.sock");
    let mut stream = UnixStream::connect(&path).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in ["{\"execute\":\"qmp_capabilities\"}", command] {
        writeln!(stream, "{line}").unwrap();
        let answer =
            lines.by_ref().map(Result::unwrap).find(|line| line.contains("\"return\"") || line.contains("\"error\""));
        assert!(answer.as_ref().is_some_and(|answer| answer.contains("\"return\"")), "{command}: {answer:?}");
    }
}

/// Types as slowly as a serial line's 16-byte buffer takes it; what a closed connection had left would be lost.
fn type_in(running: &Running, text: &str) {
    let mut stream = UnixStream::connect(running.folder().join("console.sock")).unwrap();
    for part in text.as_bytes().chunks(8) {
        stream.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn drivers_are_loaded_and_the_machine_ends_as_it_is_told() {
    let (mut running, _folder) = boot(&format!("{KERNEL_ARGUMENTS} quiet {MISTAKE} castiron.on_error=poweroff"));
    running.expect_end(BOOT).unwrap();
    let console = running.console().0;
    let mut rest = console.as_str();
    for part in [
        "== initial system set-up",
        "== command line",
        "hint: write install, inspect",
        "== modules",
        "devices have settled",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in order in\n{console}"));
        rest = &rest[at..];
    }
    assert!(rest.contains("NOT INSTALLED: the kernel command line has mistakes"), "{console}");
    assert!(rest.contains("power off"), "{console}");
    let events = running.events().unwrap();
    let last = events.last().unwrap();
    assert_eq!(
        (last.event_type, last.name.as_str(), last.result),
        (EventType::Finish, "install", Some(EventResult::Fail))
    );
    // The port's driver is loaded on the way; what was told before that waited for it.
    assert_eq!((events[0].event_type, events[0].name.as_str()), (EventType::Start, "install/system"));
    let seen: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seen, (1..=events.len() as u64).collect::<Vec<_>>());
    // Listed, and of no use to this firmware: nothing to warn of.
    assert!(!console.contains("efivarfs"), "{console}");
    assert!(running.writes("EMPTY").unwrap().writes.is_empty());
    println!("{console}");
}

#[test]
fn a_failure_opens_a_shell_from_which_everything_can_be_seen() {
    let (mut running, _folder) = boot(&format!("{KERNEL_ARGUMENTS} quiet {MISTAKE} castiron.break=modules"));
    running.expect("stopped before modules", &[], BOOT).unwrap();
    running.expect("castiron# ", &[], BOOT).unwrap();
    // A controlling terminal, so that ^C reaches what runs in front and not the shell.
    type_in(&running, "sleep 1000; echo inter'rupted'\n");
    std::thread::sleep(Duration::from_secs(2));
    type_in(&running, "\x03");
    type_in(&running, "busybox tty; echo alive=$((6*7)); ls /sys/class/net /dev/vda; exit\n");
    running.expect("/dev/ttyS0", &["interrupted\r\n"], BOOT).unwrap();
    running.expect("alive=42", &[], BOOT).unwrap();
    running.expect("== modules", &[], BOOT).unwrap();
    // The failure's own shell. Every module is there now, compressed or not.
    running.expect("`exit` reboots", &[], BOOT).unwrap();
    type_in(&running, "ls /sys/class/net; ls /dev/vda; ls -d /sys/module/vfat; kill -9 -1\n");
    for there in ["eth0", "\n/dev/vda", "/sys/module/vfat"] {
        running.expect(there, &["no shell could be opened"], BOOT).unwrap();
    }
    // Killed with all the others; PID 1 is still there, and so is whatever else it opens.
    running.expect("waiting; Ctrl-Alt-Del", &[], BOOT).unwrap();
    tell(
        &running,
        r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"ctrl"},{"type":"qcode","data":"alt"},{"type":"qcode","data":"delete"}]}}"#,
    );
    running.expect_end(BOOT).unwrap();
    assert!(running.console().0.contains("reboot: Restarting system"), "{}", running.console().tail());
}

#[test]
fn devices_that_come_later_get_their_drivers_and_the_power_button_ends_it() {
    let (mut running, _folder) =
        boot(&format!("{KERNEL_ARGUMENTS} quiet castiron.mode=rescue castiron.break=finish castiron.on_success=wait"));
    running.expect("castiron# ", &[], BOOT).unwrap();
    type_in(&running, "ls /sys/bus/virtio/devices | busybox wc -l\n");
    tell(&running, r#"{"execute":"device_add","arguments":{"driver":"virtio-net-pci","id":"later"}}"#);
    type_in(&running, "until ls -d /sys/class/net/*1; do busybox sleep 1; done\n");
    running.expect("eth1", &[], BOOT).unwrap();
    tell(&running, r#"{"execute":"system_powerdown"}"#);
    running.expect("asked to power off", &[], BOOT).unwrap();
    running.expect_end(BOOT).unwrap();
}

#[test]
fn it_works_without_any_console() {
    let (mut running, _folder) = boot(&format!("console=hvc7 no_timer_check {MISTAKE} castiron.on_error=poweroff"));
    running.expect_end(BOOT).unwrap();
    assert!(running.console().0.is_empty(), "{}", running.console().0);
    let events = running.events().unwrap();
    assert!(events.iter().any(|event| event.name == "install" && event.result == Some(EventResult::Fail)));
}
