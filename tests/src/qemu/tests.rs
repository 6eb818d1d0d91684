use std::time::Duration;

use super::*;

/// Reads the first sector of disk 0x80, then writes it back: `mov ax,0x0201/0x0301; …; int 13h`, then a letter on
/// the serial port and a halt. Enough to see the firmware boot a disk and the log count its writes.
fn sector(writes: bool) -> Vec<u8> {
    let mut code = vec![0x31, 0xc0, 0x8e, 0xc0, 0xbb, 0x00, 0x7c]; // xor ax,ax; mov es,ax; mov bx,0x7c00
    if writes {
        code.extend([0xb8, 0x01, 0x03, 0xb9, 0x01, 0x00, 0xba, 0x80, 0x00, 0xcd, 0x13]); // write sector 1 back
    }
    code.extend([0xba, 0xf8, 0x03, 0xb0, b'D', 0xee, 0xb0, b'\n', 0xee, 0xf4, 0xeb, 0xfd]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

fn boot(writes: bool) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let mut image = sector(writes);
    image.resize(1 << 20, 0);
    std::fs::write(&path, image).unwrap();
    let mut machine = Machine::new(folder.path(), Boot::Disk);
    machine.network = Network::None;
    machine.memory_mib = 64;
    machine.disks = vec![Disk::raw(&path, "SYSTEM").recorded()];
    (machine.start().unwrap(), folder)
}

#[test]
fn the_write_log_counts_what_a_machine_wrote() {
    for (writes, expected) in [(false, vec![]), (true, vec![(0, 512)])] {
        let (mut running, _folder) = boot(writes);
        running.expect("D\n", &[], Duration::from_secs(60)).unwrap();
        assert_eq!(running.monitor("query-status").unwrap()["status"], "running");
        running.cut_power().unwrap();
        assert_eq!(running.writes("SYSTEM").unwrap().writes, expected);
    }
}

#[test]
fn waiting_ends_with_a_failure_that_says_why() {
    let (mut running, _folder) = boot(false);
    let failure = running.expect("never said", &[], Duration::from_secs(2)).unwrap_err();
    assert!(failure.0.contains("no \"never said\" within 2 s"), "{failure}");
    running.expect("D\n", &[], Duration::from_secs(60)).unwrap();
    let failure = running.expect("never said", &["D\n"], Duration::from_secs(60)).unwrap_err();
    assert!(failure.0.contains("the console said"), "{failure}");
    running.monitor("quit").unwrap();
    running.expect_end(Duration::from_secs(30)).unwrap();
    let failure = running.expect("never said", &[], Duration::from_secs(60)).unwrap_err();
    assert!(failure.0.contains("the machine ended before"), "{failure}");
}

#[test]
fn the_probe_boots_a_guest() {
    assert!(accel::probe(Accel::Tcg).unwrap(), "software emulation works everywhere");
    accel().unwrap();
}

#[test]
fn an_empty_disk_boots_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut machine = Machine::new(&folder.path().join(format!("{firmware:?}")), Boot::Disk);
        machine.firmware = firmware;
        machine.network = Network::None;
        machine.memory_mib = 128;
        machine.disks = vec![Disk::empty(&folder.path().join("disk"), "EMPTY", 1 << 20).unwrap().recorded()];
        let mut running = machine.start().unwrap();
        running.expect_nothing_to_boot(Duration::from_secs(90)).unwrap();
        assert_eq!(running.writes("EMPTY").unwrap().changes(), 0);
    }
}
