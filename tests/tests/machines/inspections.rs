//! Machines that are only looked at: the plan is made, shown and reported, and nothing is written.

use castiron_engine::event::EventResult;
use castiron_tests::appliance::{Appliance, SUITE};
use castiron_tests::host;
use castiron_tests::http::Server;
use castiron_tests::proxy;
use castiron_tests::qemu::{Boot, Running};
use castiron_tests::site::{EVENTS, Site};
use castiron_tests::toy;

use crate::support::{BYSTANDER, INSTALL_WITHIN, TARGET, machine};

const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A machine of `site` that inspects, with the kernel and initramfs of `appliance`.
fn inspect(site: &Site, appliance: &Appliance) -> Running {
    let mut machine = machine(site, &site.server.guest_url(), "toy");
    if let Boot::Kernel { kernel, initramfs, .. } = &mut machine.boot {
        (*kernel, *initramfs) = (appliance.file("vmlinuz"), appliance.file("initramfs.img"));
    }
    machine.argument("castiron.mode=inspect");
    machine.start().unwrap()
}

/// Waits for the end of an inspection that found everything as it should be.
fn inspected(running: &mut Running) {
    if let Err(failure) = running.expect_end(INSTALL_WITHIN) {
        panic!("{failure}");
    }
    let events = running.events().unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), last.result), ("install", Some(EventResult::Success)), "{}", last.description);
    assert_eq!(last.description, "inspected, nothing was written");
    for (disk, writes) in running.all_writes().unwrap() {
        assert_eq!(writes.changes(), 0, "{disk} was written to");
    }
}

#[test]
fn the_machine_and_the_plan_are_shown_and_reported() {
    let site = Site::new("inspect").unwrap();
    let config = site.toy_config(&site.server.guest_url(), &format!("serial: {TARGET}"), &[]).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    let mut running = inspect(&site, Appliance::shared().unwrap());
    inspected(&mut running);
    let console = running.console();
    for text in ["Nothing would be lost", "partition system", "finished"] {
        assert!(console.0.contains(text), "{text}: {}", console.tail());
    }
    let reported = site.server.posted(EVENTS);
    let reported: Vec<_> = reported.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect();
    for text in ["of memory, amd64, BIOS", "52:54:00:12:34:56", TARGET, BYSTANDER, "steps, plan sha256-"] {
        assert!(reported.iter().any(|event| event.contains(text)), "{text}: {reported:#?}");
    }
}

/// The keys of another archive, given when the appliance was built; the config names none.
#[test]
fn an_appliance_trusts_the_archive_whose_keys_it_was_built_with() {
    let site = Site::new("own-archive").unwrap();
    let config = site.toy_config(&site.server.guest_url(), &format!("serial: {TARGET}"), &[]).unwrap();
    let without: String =
        config.lines().filter(|line| !line.contains("keyring:")).map(|line| format!("{line}\n")).collect();
    assert_ne!(without, config);
    site.publish("toy", &without, &[]).unwrap();
    // The appliance's own packages are Debian's.
    let keys = [std::fs::read(DEBIAN_KEYS).unwrap(), toy::shared().unwrap().key.keyring().unwrap()].concat();
    let path = site.folder.join("both.gpg");
    std::fs::write(&path, keys).unwrap();
    let server = Server::start().unwrap();
    proxy::serve(&server, SUITE).unwrap();
    let arguments = ["--kernel-package", "linux-image-cloud-amd64", "--no-firmware", "--no-iso", "--keyring"];
    let arguments = [&arguments[..], &[path.to_str().unwrap()]].concat();
    let appliance = Appliance::build("appliance-own-archive", &server, &arguments).unwrap();
    inspected(&mut inspect(&site, &appliance));
    host::fresh("appliance-own-archive").unwrap();
}
