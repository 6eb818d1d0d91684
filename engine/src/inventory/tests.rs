//! A machine as a tree of files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use expect_test::expect;

use super::*;

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn link(&self, path: &str, to: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
        self
    }

    /// A disk at its place, with its link and an empty device of that size.
    fn disk(&self, place: &str, sectors: u64) -> &Self {
        let name = place.rsplit('/').next().unwrap();
        self.link(&format!("sys/block/{name}"), &format!("../{place}"));
        self.file(&format!("sys/{place}/size"), format!("{sectors}\n"));
        self.file(&format!("sys/{place}/queue/logical_block_size"), "512\n");
        self.file(&format!("dev/{name}"), "");
        fs::File::options()
            .write(true)
            .open(self.path(&format!("dev/{name}")))
            .unwrap()
            .set_len(sectors * 512)
            .unwrap();
        self
    }

    fn read(&self) -> Inventory {
        Inventory::read(self.root.path()).unwrap()
    }
}

const NVME: &str = "devices/pci0000:00/0000:00:01.2/0000:02:00.0/nvme/nvme0/nvme0n1";
const SATA: &str = "devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
const STICK: &str = "devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb";

fn server() -> Machine {
    let machine = Machine::new();
    machine
        .file("sys/firmware/efi/fw_platform_size", "64")
        .file("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8053-B4C04F4E3733\n")
        .file("sys/class/dmi/id/product_serial", "To Be Filled By O.E.M.\n")
        .file("sys/class/dmi/id/sys_vendor", "Example Inc.\n")
        .file("proc/meminfo", "MemTotal:       16316416 kB\nMemFree: 1 kB\n")
        .file("proc/sys/kernel/arch", "x86_64\n")
        .file("sys/class/net/eno1/address", "52:54:00:AB:CD:EF\n")
        .file("sys/class/net/eno1/carrier", "1\n")
        .file("sys/class/net/eno1/speed", "10000\n")
        .file("sys/class/net/eno1/device/vendor", "0x8086\n")
        .link("sys/class/net/eno1/device/driver", "../../../bus/pci/drivers/ixgbe")
        .file("sys/class/net/lo/address", "00:00:00:00:00:00\n");
    machine
        .disk(NVME, 8192)
        .file(&format!("sys/{NVME}/nsid"), "1\n")
        .file(&format!("sys/{NVME}/wwid"), "eui.0025385b21404321\n")
        .file(&format!("sys/{NVME}/device/model"), "SAMSUNG MZ1LB960HAJQ-00007              \n")
        .file(&format!("sys/{NVME}/device/serial"), "S435NA0N000001      \n");
    let device = format!("sys/{SATA}/device");
    machine
        .disk(SATA, 131_072)
        .file("sys/class/scsi_host/host0/proc_name", "ahci\n")
        .file("sys/devices/pci0000:00/0000:00:1f.2/ata1/ata_port/ata1/port_no", "1\n")
        .file(&format!("{device}/vendor"), "ATA     \n")
        .file(&format!("{device}/model"), "ST4000NM0035-1V4\n")
        .file(&format!("{device}/wwid"), "naa.5000c500e84608bf\n")
        .file(&format!("{device}/vpd_pg80"), b"\0\x80\0\x08ZC100001")
        .file(&format!("sys/{SATA}/queue/rotational"), "1\n")
        .file(&format!("sys/{SATA}/dev"), "8:0\n")
        .file(&format!("sys/{SATA}/sda1/partition"), "1\n")
        .file(&format!("sys/{SATA}/sda1/start"), "2048\n")
        .file(&format!("sys/{SATA}/sda1/size"), "65536\n")
        .file(&format!("sys/{SATA}/sda1/dev"), "8:1\n");
    machine
        .disk(STICK, 4096)
        .file(&format!("sys/{STICK}/removable"), "1\n")
        .file("sys/devices/pci0000:00/0000:00:14.0/usb2/serial", "0000:00:14.0\n")
        .file("sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/serial", "4C530001\n");
    machine
}

#[test]
fn a_server_is_read() {
    let inventory = server().read();
    assert_eq!((inventory.firmware, inventory.architecture.as_str()), (Firmware::Uefi, "amd64"));
    assert_eq!(inventory.memory, Bytes::kib(16_316_416));
    assert_eq!(inventory.dmi.uuid.as_deref(), Some("4c4c4544-0042-3510-8053-b4c04f4e3733"));
    assert_eq!(inventory.dmi.serial, None);
    let [nic] = &inventory.nics[..] else { panic!("{:?}", inventory.nics) };
    assert_eq!(
        (nic.mac.as_deref(), nic.driver.as_deref(), nic.carrier, nic.speed_mbits),
        (Some("52:54:00:ab:cd:ef"), Some("ixgbe"), Some(true), Some(10_000))
    );
    let lines: Vec<String> = inventory.disks.iter().map(ToString::to_string).collect();
    expect![[r#"
        sda 64 MiB, sata, model ST4000NM0035-1V4, serial ZC100001, wwn 0x5000c500e84608bf, path pci-0000:00:1f.2-ata-1.0
        sdb 2 MiB, usb, no model, serial 4C530001, no wwn, path pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0
        nvme0n1 4 MiB, nvme, model SAMSUNG MZ1LB960HAJQ-00007, serial S435NA0N000001, wwn eui.0025385b21404321, path pci-0000:02:00.0-nvme-1"#]]
    .assert_eq(&lines.join("\n"));
    let json = serde_json::to_string(&inventory).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
}

#[test]
fn what_holds_a_disk_is_followed_up_to_the_mount() {
    let machine = server();
    machine
        .file(&format!("sys/{SATA}/sda1/holders/md127"), "")
        .file("sys/block/md127/md/level", "raid1\n")
        .file("sys/block/md127/dev", "9:127\n")
        .file("sys/block/md127/holders/dm-0", "")
        .file("sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-8c12e0a570ad4c3d9e6a52bbf0f4a411-secret\n")
        .file("sys/block/dm-0/dm/name", "secret\n")
        .file("sys/block/dm-0/dev", "253:0\n")
        .file("sys/block/dm-0/holders/dm-1", "")
        .file("sys/block/dm-1/dm/uuid", "LVM-abcdef\n")
        .file("sys/block/dm-1/dm/name", "vg0-root\n")
        .file("sys/block/dm-1/dev", "253:1\n")
        .file("proc/self/mountinfo", "29 1 253:1 / /srv/my\\040data rw - xfs /dev/mapper/vg0-root rw\n")
        .file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 8 0 -2\n");
    let disks = machine.read().disks;
    let of = |name: &str| {
        let disk = disks.iter().find(|disk| disk.name == name).unwrap();
        disk.holders.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        of("sda"),
        [
            "md array md127 (raid1, on sda1)",
            "encryption secret (on md127)",
            "LVM vg0-root (on dm-0)",
            "mount /srv/my data (xfs on dm-1)"
        ]
    );
    assert_eq!(of("nvme0n1"), ["swap nvme0n1 (in use)"]);
    assert_eq!(disks.len(), 3, "what is built on disks is none");
}

/// Writes bytes into a device of the tree.
fn put(machine: &Machine, name: &str, offset: u64, bytes: &[u8]) {
    let device = fs::File::options().write(true).open(machine.path(&format!("dev/{name}"))).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, bytes, offset).unwrap();
}

#[test]
fn what_lies_on_disks_is_found_and_our_own_medium_too() {
    let machine = server();
    let mut boot_sector = [0; 512];
    boot_sector[440..444].copy_from_slice(&[0x4e, 0x3d, 0x2c, 0x1b]);
    boot_sector[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
    boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
    put(&machine, "sda", 0, &boot_sector);
    put(&machine, "sda", (1 << 20) + 1024 + 56, &[0x53, 0xef]);
    put(&machine, "sdb", 0x8001, b"CD001");
    put(&machine, "sdb", 0x8028, b"CASTIRON                        ");
    fs::remove_file(machine.path("dev/nvme0n1")).unwrap();
    let disks = machine.read().disks;
    let [sda, sdb, nvme] = &disks[..] else { panic!("{disks:?}") };
    assert_eq!(sda.signatures[0].uuid.as_deref(), Some("1b2c3d4e"));
    let partition = &sda.partitions[0];
    assert_eq!(partition.uuid.as_deref(), Some("1b2c3d4e-01"));
    assert_eq!(partition.filesystem.as_ref().map(|found| found.kind.as_str()), Some("ext2"));
    assert_eq!((sda.is_boot_medium, sdb.is_boot_medium), (false, true));
    assert_eq!(nvme.signatures[0].kind, "unreadable");
}

#[test]
fn udev_fills_the_gaps() {
    let machine = server();
    fs::remove_file(machine.path(&format!("sys/{SATA}/device/vpd_pg80"))).unwrap();
    fs::remove_file(machine.path("dev/sda")).unwrap();
    machine
        .file("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL_SHORT=ZC1X\nE:ID_WWN=0x1\nE:ID_PART_TABLE_TYPE=gpt\n")
        .file("run/udev/data/b8:1", "E:ID_FS_TYPE=ext4\nE:ID_FS_LABEL_ENC=my\\x20data\n");
    let sda = &machine.read().disks[0];
    assert_eq!((sda.serial.as_deref(), sda.wwn.as_deref()), (Some("ZC1X"), Some("0x5000c500e84608bf")));
    assert_eq!(sda.signatures[0].kind, "gpt");
    let found = sda.partitions[0].filesystem.as_ref().unwrap();
    assert_eq!((found.kind.as_str(), found.label.as_deref()), ("ext4", Some("my data")));
}

#[test]
fn a_disk_is_found_again_whatever_the_kernel_calls_it() {
    let disks = server().read().disks;
    let identity = disks[0].identity();
    let renamed: Vec<Disk> =
        disks.iter().map(|disk| Disk { name: format!("x{}", disk.name), ..disk.clone() }).collect();
    assert_eq!(find(&renamed, &identity).map(|disk| disk.name.as_str()), Ok("xsda"));
    let bigger = Disk { size: Bytes::mib(65), ..disks[0].clone() };
    let error = find(&[bigger], &identity).unwrap_err();
    assert!(error.to_string().contains("size is 68157440 bytes, was 67108864 bytes"), "{error}");
    let error = find(&[disks[0].clone(), disks[0].clone()], &identity).unwrap_err();
    assert!(matches!(error, FindError::Ambiguous { .. }), "{error}");
    let error = find(&disks[2..], &identity).unwrap_err();
    assert!(error.to_string().contains("is gone; this machine has:\n  nvme0n1 4 MiB"), "{error}");
}

#[test]
fn without_sysfs_nothing_is_claimed_and_with_it_there_may_be_no_disk() {
    let error = Inventory::read(Path::new("/nonexistent")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/sys/block; is sysfs mounted?"), "{error}");
    let machine = Machine::new();
    fs::create_dir_all(machine.path("sys/block")).unwrap();
    let inventory = machine.read();
    assert_eq!((inventory.firmware, inventory.disks.len(), inventory.nics.len()), (Firmware::Bios, 0, 0));
}

#[test]
fn a_machine_is_told_in_lines() {
    let nic = |carrier, speed_mbits| Nic {
        name: "eth0".to_owned(),
        mac: Some("52:54:00:12:34:56".to_owned()),
        driver: Some("igb".to_owned()),
        carrier,
        speed_mbits,
    };
    let machine = Inventory {
        firmware: Firmware::Uefi,
        architecture: "amd64".to_owned(),
        dmi: Dmi { vendor: Some("Toy".to_owned()), serial: Some("SN7".to_owned()), ..Dmi::default() },
        device_tree: None,
        memory: Bytes::gib(2),
        nics: vec![nic(Some(true), Some(1000)), nic(Some(false), None), nic(None, None)],
        disks: Vec::new(),
    };
    expect_test::expect![[r#"
        machine: Toy, serial SN7, 2 GiB of memory, amd64, UEFI
        network card: eth0 52:54:00:12:34:56 igb 1000 Mbit/s
        network card: eth0 52:54:00:12:34:56 igb no carrier
        network card: eth0 52:54:00:12:34:56 igb down"#]]
    .assert_eq(&machine.lines().join("\n"));
}
