//! What must work: every way to start the appliance, every firmware, little memory, one family of addresses.

use base64::Engine as _;
use castiron_tests::appliance::Appliance;
use castiron_tests::qemu::{Boot, Disk, Firmware, Front, Machine, Network};
use castiron_tests::site::{LOG, Site};
use castiron_tests::toy;

use crate::support::{BOOT_WITHIN, INSTALL_WITHIN, TARGET, boots, installed, machine};

/// A site with a toy config on the target disk, fetched from `url_of` the server.
fn site(name: &str, packages: &[&str]) -> Site {
    let site = Site::new(name).unwrap();
    let config = site.toy_config(&site.server.guest_url(), &format!("serial: {TARGET}"), packages).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    site
}

fn install(site: &Site, machine: Machine) {
    installed(site, &mut machine.start().unwrap());
}

/// The way of old machines: iPXE in the card's ROM, a script by TFTP, kernel and initramfs by HTTP; 512 MiB.
#[test]
fn from_ipxe_on_bios_with_512_mib() {
    let site = site("ipxe-bios", &[]);
    let url = site.server.guest_url();
    site.server.folder("/appliance", &Appliance::shared().unwrap().folder);
    let tftp = site.folder.join("tftp");
    std::fs::create_dir(&tftp).unwrap();
    let arguments = site.arguments(&url, "toy");
    let script = format!(
        "#!ipxe\nkernel {url}/appliance/vmlinuz initrd=initramfs.img {arguments} BOOTIF=01-${{mac:hexhyp}}\n\
         initrd {url}/appliance/initramfs.img\nboot\n"
    );
    std::fs::write(tftp.join("boot.ipxe"), script).unwrap();
    let mut machine = machine(&site, &url, "toy");
    machine.boot = Boot::Network { folder: tftp, file: "boot.ipxe".to_owned() };
    machine.memory_mib = 512;
    install(&site, machine);
    boots(&site, Firmware::Bios, &[]);
}

/// On UEFI, with all packages that misbehave, on an NVMe disk; the config lies on a medium that is known by its label.
#[test]
fn on_uefi_with_packages_that_misbehave() {
    let site = site("uefi", toy::MISCHIEF);
    let mut machine = machine(&site, "label:SITECONFIG", "toy");
    let medium = site.medium("SITECONFIG").unwrap();
    machine.disks.push(Disk::raw(&medium, "STICK"));
    machine.firmware = Firmware::Uefi;
    machine.disks[0] = machine.disks[0].clone().on(Front::Nvme);
    let mut running = machine.start().unwrap();
    // Whoever can put a medium in has to say that the disk may go.
    if let Err(failure) = running.expect("type `yes` and Enter", &["NOT INSTALLED"], BOOT_WITHIN) {
        panic!("{failure}");
    }
    assert_eq!(running.writes(TARGET).unwrap().changes(), 0, "written to before the word");
    running.type_in("yes\r").unwrap();
    installed(&site, &mut running);
    drop(running);
    let logs = site.server.posted(LOG);
    let log = logs.last().map(|log| String::from_utf8_lossy(log).into_owned()).unwrap_or_default();
    assert!(log.contains("the config came from a removable medium"), "{log}");
    assert!(log.contains("firmware boot entry") && !log.contains("no boot entry is written"), "{log}");
    assert!(!log.contains("cannot mount"), "{log}");
    boots(&site, Firmware::Uefi, &["slow", "trigger", "conffile", "divert", "links", "daemon"]);
}

/// Router advertisements alone: no DHCP, no IPv4 address anywhere.
#[test]
fn on_a_network_without_ipv4() {
    let site = Site::new("ipv6").unwrap();
    let url = site.server.guest_url_v6();
    let config = site.toy_config(&url, &format!("serial: {TARGET}"), &[]).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    let mut machine = machine(&site, &url, "toy");
    machine.network = Network::Ipv6Only;
    install(&site, machine);
    boots(&site, Firmware::Bios, &[]);
}

/// The config comes over https, by an authority that the command line names, to a machine whose clock says 1970.
/// `castiron.on_success=kexec`: the new system starts without another turn through the firmware, where this machine would end.
#[test]
fn from_https_with_a_clock_at_1970_and_on_by_kexec() {
    let site = Site::new("kexec").unwrap();
    let url = site.server.guest_url();
    let authority = base64::engine::general_purpose::STANDARD.encode(site.server.https().unwrap());
    let config = site.toy_config(&url, &format!("serial: {TARGET}"), &[]).unwrap();
    site.publish("toy", &config, &[]).unwrap();
    let mut machine = machine(&site, &url.replace("http://", "https://"), "toy");
    machine.clock = Some("1970-01-01T00:00:10".to_owned());
    machine.argument(&format!("castiron.ca={authority} castiron.on_success=kexec"));
    let mut running = machine.start().unwrap();
    if let Err(failure) = running.expect(toy::UP, &["Kernel panic", "rebooting instead"], INSTALL_WITHIN) {
        panic!("{failure}");
    }
    let report = toy::report(&running.console().0);
    assert_eq!(report.get("hostname").map(String::as_str), Some("toybox"), "{report:?}");
    assert_eq!(report.get("root").map(String::as_str), Some("ext4"), "{report:?}");
}
