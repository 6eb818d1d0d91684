//! What the cases share: a toy machine, and what is expected of it when it is installed.

use std::time::Duration;

use castiron_engine::event::{Event, EventResult, EventType};
use castiron_tests::appliance::Appliance;
use castiron_tests::qemu::{Boot, Disk, Firmware, Machine, Network, Running};
use castiron_tests::site::Site;
use castiron_tests::toy;

/// The disk that toy machines are installed on.
pub const TARGET: &str = "TARGET0";

/// A disk beside it that nobody may touch.
pub const BYSTANDER: &str = "KEEPOUT1";

pub const DISK_BYTES: u64 = 1 << 30;

/// Under software emulation, on a machine that does other work as well.
pub const BOOT_WITHIN: Duration = Duration::from_secs(150);
pub const INSTALL_WITHIN: Duration = Duration::from_secs(480);

/// A machine of `site` with an empty target and a recorded bystander, started by handing over kernel and initramfs.
pub fn machine(site: &Site, url: &str, config: &str) -> Machine {
    let appliance = Appliance::shared().unwrap();
    let boot = Boot::Kernel {
        kernel: appliance.file("vmlinuz"),
        initramfs: appliance.file("initramfs.img"),
        arguments: site.arguments(url, config),
    };
    let mut machine = Machine::new(&site.folder.join("install"), boot);
    machine.disks = vec![
        Disk::empty(&site.folder.join("target.raw"), TARGET, DISK_BYTES).unwrap().recorded(),
        Disk::empty(&site.folder.join("bystander.raw"), BYSTANDER, 64 << 20).unwrap().recorded(),
    ];
    machine
}

/// Waits for a successful installation and checks what it reported.
pub fn installed(site: &Site, running: &mut Running) {
    if let Err(failure) = running.expect_end(INSTALL_WITHIN) {
        panic!("{failure}");
    }
    let events = running.events().unwrap();
    let failed: Vec<&Event> = events.iter().filter(|event| event.result == Some(EventResult::Fail)).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", running.console().tail());
    let finished = |part: &str| {
        let mut finishes = events.iter().filter(|event| event.event_type == EventType::Finish);
        assert!(finishes.any(|event| event.name.contains(part)), "no end of {part}\n{}", running.console().tail());
    };
    finished("storage");
    finished("bootstrap");
    assert_eq!(running.writes(BYSTANDER).unwrap().changes(), 0, "a disk beside the target was written to");
    assert!(running.writes(TARGET).unwrap().bytes_written() > 10 << 20);
    assert!(!site.server.posted(castiron_tests::site::EVENTS).is_empty(), "the webhook heard nothing");
    assert!(!site.server.posted(castiron_tests::site::LOG).is_empty(), "no log was uploaded");
}

/// Boots the installed toy from its own disk and checks what it says about itself.
pub fn boots(site: &Site, firmware: Firmware, checks: &[&str]) {
    let mut machine = Machine::new(&site.folder.join("boot"), Boot::Disk);
    machine.firmware = firmware;
    machine.network = Network::None;
    machine.memory_mib = 512;
    machine.disks = vec![Disk::raw(&site.folder.join("target.raw"), TARGET)];
    let mut running = machine.start().unwrap();
    if let Err(failure) = running.expect(toy::UP, &["Kernel panic", "no root file system"], BOOT_WITHIN) {
        panic!("{failure}");
    }
    let report = toy::report(&running.console().0);
    let said = |name: &str| report.get(name).map_or("", String::as_str);
    assert_eq!(said("hostname"), "toybox", "{report:?}");
    assert_eq!(said("root"), "ext4", "{report:?}");
    assert_eq!(said("fstab"), "mounted", "{report:?}");
    assert_eq!(said("audit"), "clean", "{report:?}");
    assert_eq!(said("greeting"), "cast 640", "{report:?}");
    assert!(said("cmdline").contains("no_timer_check"), "{report:?}");
    assert!(said("packages").trim().ends_with("ii") && said("packages").split(' ').count() == 2, "{report:?}");
    for check in checks {
        assert_eq!(said(check), "ok", "{report:?}");
    }
}
