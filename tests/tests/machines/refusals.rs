//! What must be refused, by name, before a single byte is written to any disk.
//!
//! The oracle is the emulator's log of write and discard requests, for the target and for a disk beside it.

use castiron_tests::host::tool;
use castiron_tests::http::{Fault, Rule};
use castiron_tests::qemu::{Disk, Running};
use castiron_tests::site::{LOG, Site, SiteKey};

use crate::support::{BYSTANDER, INSTALL_WITHIN, TARGET, machine};

/// Waits for the end and checks that it was a refusal: each of `names` is said, and nothing was written.
fn refused(running: &mut Running, names: &[&str]) {
    if let Err(failure) = running.expect_end(INSTALL_WITHIN) {
        panic!("{failure}");
    }
    let console = running.console();
    for name in names {
        let found = console.0.to_lowercase().contains(&name.to_lowercase());
        assert!(found, "{name:?} is not named:\n{}", console.tail());
    }
    for (disk, writes) in running.all_writes().unwrap() {
        assert_eq!(writes.changes(), 0, "{disk} was written to:\n{}", console.tail());
    }
}

/// A site whose toy config is published under `name`, signed with `arguments`.
fn site(name: &str, disk: &str, arguments: &[&str]) -> Site {
    let site = Site::new(name).unwrap();
    let config = site.toy_config(&site.server.guest_url(), disk, &[]).unwrap();
    site.publish("toy", &config, arguments).unwrap();
    site
}

fn on_target() -> String {
    format!("serial: {TARGET}")
}

fn run(site: &Site) -> Running {
    machine(site, &site.server.guest_url(), "toy").start().unwrap()
}

#[test]
fn a_bad_signature() {
    let site = site("bad-signature", &on_target(), &[]);
    let path = site.folder.join("configs/toy.yaml");
    let changed = std::fs::read_to_string(&path).unwrap().replace("hostname: toybox", "hostname: foybox");
    std::fs::write(&path, changed).unwrap();
    refused(&mut run(&site), &["signature", "toy.yaml"]);
}

#[test]
fn an_expired_config() {
    let site = site("expired", &on_target(), &["--not-before", "2026-01-01", "--not-after", "2026-02-01"]);
    refused(&mut run(&site), &["2026-02-01", "toy.yaml"]);
}

#[test]
fn a_config_for_another_machine() {
    let site = site("other-machine", &on_target(), &["--machine", "mac:52:54:00:00:00:01"]);
    refused(&mut run(&site), &["52:54:00:00:00:01"]);
}

#[test]
fn an_unknown_key() {
    let mut site = Site::new("unknown-key").unwrap();
    site.key = SiteKey::make(&site.folder, "stranger").unwrap();
    let config = site.toy_config(&site.server.guest_url(), &on_target(), &[]).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    refused(&mut run(&site), &["key", "toy.yaml"]);
}

#[test]
fn an_ambiguous_disk() {
    let site = site("ambiguous", "transport: virtio", &[]);
    refused(&mut run(&site), &[TARGET, BYSTANDER]);
}

#[test]
fn a_disk_too_small() {
    let site = site("too-small", &on_target(), &[]);
    let mut machine = machine(&site, &site.server.guest_url(), "toy");
    machine.disks[0] = Disk::empty(&site.folder.join("small.raw"), TARGET, 32 << 20).unwrap().recorded();
    refused(&mut machine.start().unwrap(), &[TARGET, "32 MiB"]);
}

/// The word `no` on the console; then the error commands, each with its output in the log that is uploaded.
#[test]
fn an_answer_that_is_not_the_word() {
    let site = Site::new("unconfirmed").unwrap();
    let config = site.toy_config(&site.server.guest_url(), &on_target(), &[]).unwrap();
    let more =
        "install: { confirm: console }\nerror_commands: [ 'echo 1=$((6*7)); false', [sh, -c, 'echo 2=$((6*9))'] ]\n";
    let config = config.replace("name: system, match", "name: system, wipe: superblock-recursive, match");
    site.publish("toy", &format!("{config}{more}"), &[]).unwrap();
    let machine = machine(&site, &site.server.guest_url(), "toy");
    tool("mkfs.ext4", ["-q", "-L", "OLDDATA", machine.disks[0].path.to_str().unwrap()]).unwrap();
    let mut running = machine.start().unwrap();
    if let Err(failure) = running.expect("type `yes` and Enter", &["NOT INSTALLED"], INSTALL_WITHIN) {
        panic!("{failure}");
    }
    running.type_in("no\n").unwrap();
    refused(&mut running, &["LOST: ", "OLDDATA", "not confirmed: `no` was the answer", "1 of 2 error commands failed"]);
    let logs = site.server.posted(LOG);
    let log = String::from_utf8_lossy(logs.last().map_or(&[], |log| &log[..])).into_owned();
    let order = ["not confirmed", "1=42", "2=54"].map(|text| log.find(text).unwrap_or_else(|| panic!("{text}: {log}")));
    assert!(order.is_sorted(), "{log}");
}

#[test]
fn a_mirror_without_the_suite() {
    let site = site("mirror-404", &on_target(), &[]);
    site.server.fault(Rule::always("/toy/dists/", Fault::Status(404)));
    refused(&mut run(&site), &["404", "/toy/dists/toy/"]);
}

#[test]
fn a_flipped_bit_in_the_release_file() {
    let site = site("flipped-bit", &on_target(), &[]);
    // In the middle of the signed text: after the head of the message.
    site.server.fault(Rule::always("/InRelease", Fault::FlipBit(200)));
    refused(&mut run(&site), &["InRelease"]);
}
