//! What goes wrong on the way: the disk then boots nothing, and a second run finishes.

use std::time::{Duration, Instant};

use castiron_tests::qemu::{Boot, Disk, Firmware, Machine, Network, Running};
use castiron_tests::site::Site;
use castiron_tests::toy;

use crate::support::{INSTALL_WITHIN, TARGET, boots, installed, machine};

fn site(name: &str) -> Site {
    let site = Site::new(name).unwrap();
    let config = site.toy_config(&site.server.guest_url(), &format!("serial: {TARGET}"), toy::MISCHIEF).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    site
}

/// The firmware looks at the disk and finds nothing that it could start.
fn boots_nothing(site: &Site, firmware: Firmware) {
    let mut machine = Machine::new(&site.folder.join(format!("nothing-{firmware:?}")), Boot::Disk);
    machine.firmware = firmware;
    machine.network = Network::None;
    machine.memory_mib = 128;
    machine.disks = vec![Disk::raw(&site.folder.join("target.raw"), TARGET)];
    machine.start().unwrap().expect_nothing_to_boot(Duration::from_secs(120)).unwrap();
}

/// Once more, with the disk as it was left.
fn again(site: &Site) -> Running {
    let mut machine = machine(site, &site.server.guest_url(), "toy");
    machine.folder = site.folder.join("again");
    machine.start().unwrap()
}

#[test]
fn the_mirror_dies_during_the_download() {
    let site = site("mirror-dies");
    let mut running = machine(&site, &site.server.guest_url(), "toy").start().unwrap();
    // The config and the indices are small; this is in the middle of the packages.
    site.server.die_after(8 << 20);
    if let Err(failure) = running.expect_end(INSTALL_WITHIN) {
        panic!("{failure}");
    }
    assert!(site.server.is_dead(), "the download ended before the mirror died");
    let console = running.console();
    assert!(console.0.contains("/toy/pool/"), "the file that could not be fetched is not named:\n{}", console.tail());
    // Only so many machines run at a time: this one makes room.
    drop(running);
    boots_nothing(&site, Firmware::Bios);
    site.server.heal();
    let mut running = again(&site);
    installed(&site, &mut running);
    drop(running);
    boots(&site, Firmware::Bios, &["links"]);
}

#[test]
fn the_power_fails_during_the_bootstrap() {
    let site = site("power-cut");
    let mut running = machine(&site, &site.server.guest_url(), "toy").start().unwrap();
    let started = |running: &Running| {
        let events = running.events().unwrap_or_default();
        events.iter().any(|event| event.name.contains("bootstrap") && event.progress.is_some_and(|at| at.done > 0))
    };
    let end = Instant::now() + INSTALL_WITHIN;
    while !started(&running) {
        assert!(Instant::now() < end, "no progress of the bootstrap:\n{}", running.console().tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    running.cut_power().unwrap();
    assert!(running.writes(TARGET).unwrap().changes() > 0, "nothing was written yet: the cut came too early");
    drop(running);
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        boots_nothing(&site, firmware);
    }
    let mut running = again(&site);
    installed(&site, &mut running);
    drop(running);
    boots(&site, Firmware::Bios, &["links"]);
}
