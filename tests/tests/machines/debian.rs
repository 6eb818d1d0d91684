//! The real Debian, once: on UEFI, in 512 MiB, from the machine's own mirror by way of the cache.

use std::time::Duration;

use castiron_engine::event::EventResult;
use castiron_tests::appliance::{Appliance, SUITE};
use castiron_tests::debian;
use castiron_tests::host;
use castiron_tests::http::Server;
use castiron_tests::proxy;
use castiron_tests::qemu::{Boot, Disk, Firmware, KERNEL_ARGUMENTS, Machine, free_port};
use castiron_tests::site::SiteKey;

const DISK_BYTES: u64 = 4 << 30;
const INSTALL_WITHIN: Duration = Duration::from_secs(25 * 60);
const LOGIN_WITHIN: Duration = Duration::from_secs(6 * 60);

/// What the finished system says about itself, a line each: the entry that the firmware started comes last.
const QUESTIONS: &str = "hostname; cd /; dpkg --audit; apt-get -o Debug::NoLocking=1 check >/dev/null && echo consistent; \
    cd /sys/firmware/efi/efivars; \
    n=$(od -An -tx1 -j4 -N2 BootCurrent-* | awk '{ print toupper($2 $1) }'); cat Boot$n-* | tr -d '\\0'";

#[test]
fn debian_is_installed_on_uefi_in_512_mib_and_its_boot_entry_starts_it() {
    let folder = host::fresh("debian-uefi").unwrap();
    let server = Server::start().unwrap();
    proxy::serve(&server, SUITE).unwrap();
    let appliance = Appliance::shared().unwrap();
    let key = SiteKey::make(&folder, "site").unwrap();
    let (ssh_key, ssh_line) = debian::ssh_key(&folder).unwrap();
    let url = server.guest_url();
    let config = folder.join("machine.yaml");
    std::fs::write(&config, debian::config(&url, "serial: IRON", &ssh_line)).unwrap();
    key.sign(&config, &["--machine", "mac:52:54:00:12:34:56"]).unwrap();
    server.folder("/configs", &folder);
    let arguments = format!(
        "{KERNEL_ARGUMENTS} castiron.config={url}/configs/machine.yaml castiron.key={} castiron.on_error=poweroff",
        key.public
    );
    let (kernel, initramfs) = (appliance.file("vmlinuz"), appliance.file("initramfs.img"));
    let mut machine = Machine::new(&folder.join("machine"), Boot::Kernel { kernel, initramfs, arguments });
    machine.firmware = Firmware::Uefi;
    machine.memory_mib = 512;
    machine.disks = vec![Disk::empty(&folder.join("disk.raw"), "IRON", DISK_BYTES).unwrap()];
    let mut running = machine.start().unwrap();
    if let Err(failure) = running.expect_end(INSTALL_WITHIN) {
        panic!("{failure}");
    }
    let failed = running.events().unwrap().into_iter().find(|event| event.result == Some(EventResult::Fail));
    assert!(failed.is_none(), "{failed:?}\n{}", running.console().tail());
    drop(running);

    // The same machine once more, with the variables that its firmware kept.
    let mut machine = Machine::new(&folder.join("machine"), Boot::Disk);
    machine.firmware = Firmware::Uefi;
    machine.disks = vec![Disk::raw(&folder.join("disk.raw"), "IRON")];
    let port = free_port().unwrap();
    machine.ssh_port = Some(port);
    let running = machine.start().unwrap();
    let said = debian::log_in(&ssh_key, port, QUESTIONS, LOGIN_WITHIN)
        .unwrap_or_else(|failure| panic!("{failure}\n{}", running.console().tail()));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["iron", "consistent"], "{said}");
    assert!(said.contains("grubx64.efi") || said.contains("Debian"), "the firmware started something else: {said}");
}
