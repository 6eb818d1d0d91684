//! `castiron build`: one config, an image that boots by BIOS and by UEFI, and nothing left behind however it ends.

#![allow(clippy::disallowed_methods, reason = "the program under test is started as a user starts it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use castiron_tests::host::program;
use castiron_tests::leaks::Snapshot;
use castiron_tests::qemu::{Boot, Disk, Firmware, Machine, Network};
use castiron_tests::site::Site;
use castiron_tests::toy;

const BOOT_WITHIN: Duration = Duration::from_secs(150);

/// A site and the config of a toy image, the disk of which the build ignores.
fn site(name: &str) -> (Site, PathBuf) {
    let site = Site::new(name).unwrap();
    let config = site.toy_config(&site.server.url(), "serial: NONE", &[]).unwrap();
    let path = site.folder.join("image.yaml");
    std::fs::write(&path, config).unwrap();
    (site, path)
}

fn build(config: &Path, output: &Path) -> Command {
    let mut command = Command::new(program("castiron").unwrap());
    command.arg("build").arg(config).arg("-o").arg(output).args(["--size", "1GiB"]).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{text}", output.status);
    text
}

/// Only what names the folder, and loop devices: other work on this host is not ours to judge.
fn leaked(before: &Snapshot, folder: &Path) -> Vec<String> {
    let after = Snapshot::take(folder).unwrap();
    let ours = folder.to_string_lossy().into_owned();
    before.leaked(&after).into_iter().filter(|line| line.contains(&ours)).collect()
}

fn boots(site: &Site, image: &Path, firmware: Firmware) {
    let mut machine = Machine::new(&site.folder.join(format!("boot-{firmware:?}")), Boot::Disk);
    machine.firmware = firmware;
    machine.network = Network::None;
    machine.memory_mib = 512;
    machine.disks = vec![Disk { format: "qcow2", ..Disk::raw(image, "IMAGE") }];
    let mut running = machine.start().unwrap();
    if let Err(failure) = running.expect(toy::UP, &["Kernel panic", "no root file system"], BOOT_WITHIN) {
        panic!("{failure}");
    }
    let report = toy::report(&running.console().0);
    assert_eq!(report.get("hostname").map(String::as_str), Some("toybox"), "{report:?}");
    assert_eq!(report.get("audit").map(String::as_str), Some("clean"), "{report:?}");
}

#[test]
fn one_image_boots_by_bios_and_by_uefi_and_nothing_is_left_behind() {
    let (site, config) = site("image");
    let before = Snapshot::take(&site.folder).unwrap();
    let image = site.folder.join("toy.qcow2");
    run(&mut build(&config, &image));
    assert_eq!(leaked(&before, &site.folder), Vec::<String>::new());
    let names: Vec<_> = std::fs::read_dir(&site.folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".castiron")), "{names:?}");
    run(Command::new("qemu-img").arg("check").arg(&image));
    boots(&site, &image, Firmware::Bios);
    boots(&site, &image, Firmware::Uefi);
}

/// Old machines: four primary partitions, the loader in the gap behind the table.
#[test]
fn an_image_with_an_mbr_boots() {
    let (site, config) = site("image-mbr");
    let gpt = std::fs::read_to_string(&config).unwrap();
    let begin = gpt.find("        label: gpt").unwrap();
    let end = gpt.find("          - name: root").unwrap();
    let mbr = format!("{}        label: mbr\n        partitions:\n{}", &gpt[..begin], &gpt[end..]);
    let mbr =
        mbr.replace("            type: root\n", "            type: \"0x83\"\n            flags: [boot, primary]\n");
    let mbr = mbr.replace("boot:\n", "boot:\n  firmware: bios\n");
    std::fs::write(&config, mbr).unwrap();
    let image = site.folder.join("toy.qcow2");
    run(&mut build(&config, &image));
    boots(&site, &image, Firmware::Bios);
}

/// However far it came, a killed build leaves no mount, loop device or process, and `clean` removes its directory.
#[test]
fn a_killed_build_leaves_nothing_that_clean_does_not_remove() {
    let (site, config) = site("image-killed");
    let image = site.folder.join("toy.raw");
    let before = Snapshot::take(&site.folder).unwrap();
    run(&mut build(&config, &image));
    std::fs::remove_file(&image).unwrap();
    // The second build has a warm cache, as those that are killed.
    let whole = Instant::now();
    run(&mut build(&config, &image));
    let whole = whole.elapsed();
    std::fs::remove_file(&image).unwrap();
    for part in 1..8 {
        let mut child = build(&config, &image).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * part / 8);
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = Instant::now() + Duration::from_secs(5);
        while !leaked(&before, &site.folder).is_empty() && Instant::now() < gone {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(leaked(&before, &site.folder), Vec::<String>::new(), "killed at {part}/8");
        run(Command::new(program("castiron").unwrap()).arg("clean").arg(&site.folder));
        let left: Vec<_> = std::fs::read_dir(&site.folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".castiron")), "{left:?}");
        // The last ones may have been complete when the signal came.
        if image.exists() {
            assert!(part > 4, "complete after {part}/8 of its time");
            let table = run(Command::new("/usr/sbin/sgdisk").arg("--verify").arg(&image));
            assert!(table.contains("No problems found"), "{table}");
            std::fs::remove_file(&image).unwrap();
        }
    }
}

#[test]
fn after_a_failure_each_error_command_has_its_turn() {
    let (site, config) = site("image-error-commands");
    let note = site.folder.join("noted");
    let say = |word: &str| format!("'echo {word} >> {}'", note.display());
    let text = std::fs::read_to_string(&config).unwrap();
    let failing = text.replace("in_target: [ ", "in_target: [ [\"false\"], ");
    assert_ne!(failing, text);
    let commands = format!("error_commands: [ {}, [\"false\"], {} ]\n", say("one"), say("two"));
    std::fs::write(&config, failing + &commands).unwrap();
    let output = build(&config, &site.folder.join("toy.raw")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(std::fs::read_to_string(&note).unwrap_or_default(), "one\ntwo\n", "{said}");
    let failure = said.find("run the in-target commands failed").unwrap_or_else(|| panic!("{said}"));
    let commands = said.find("1 of 3 error commands failed").unwrap_or_else(|| panic!("{said}"));
    assert!(failure < commands, "the failure is told first: {said}");
}

#[test]
fn an_interrupt_ends_a_build_within_two_seconds_and_leaves_nothing() {
    let (site, config) = site("image-interrupted");
    let image = site.folder.join("toy.raw");
    let before = Snapshot::take(&site.folder).unwrap();
    let mut child = build(&config, &image).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_workspace(&site.folder, &mut child);
    let asked = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(leaked(&before, &site.folder), Vec::<String>::new());
    assert!(!image.exists());
    let left: Vec<_> = std::fs::read_dir(&site.folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".castiron")), "{left:?}");
}

/// Until the build has begun to fill its disk.
fn wait_for_workspace(folder: &Path, child: &mut Child) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let begun = std::fs::read_dir(folder).unwrap().flatten().any(|entry| entry.path().join("disk.raw").exists());
        if begun {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the build ended early");
        assert!(Instant::now() < end, "the build did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}
