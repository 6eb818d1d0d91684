//! Which disk is chosen, what is lost with it, or why there is none.

use castiron_engine::config::storage;
use castiron_engine::inventory::{self, Inventory};
use castiron_engine::resolve::disks;
use expect_test::{Expect, expect};

use super::{machine, recordings};

/// The disk and what is lost with it, or why there is none.
fn outcome(inventory: &Inventory, disk: &str) -> String {
    let mut read: serde_json::Map<String, serde_json::Value> = serde_yaml::from_str(disk).unwrap();
    read.insert("name".to_owned(), "sys".into());
    let wanted: storage::Disk = serde_json::from_value(read.into()).unwrap();
    match disks::select(&wanted, &[], &inventory.disks) {
        Ok(choice) => choice.losses.iter().fold(choice.disk.to_string(), |text, line| format!("{text}\n    {line}")),
        Err(diagnostic) => diagnostic.to_string(),
    }
}

#[track_caller]
fn check(name: &str, disk: &str, expected: Expect) {
    expected.assert_eq(&outcome(&machine(name), disk));
}

#[test]
fn nvme_pair() {
    check(
        "nvme-pair",
        "match: { transport: nvme }",
        expect![[r#"
        error: 2 disks fit `sys` equally [disk.ambiguous]
            nvme0n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a, no path
            nvme1n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000002, wwn eui.36343730ff000002002538580000000a, no path
          hint: add `serial` or `wwn` to `match`"#]],
    );
    check(
        "nvme-pair",
        "match: { serial: '*1' }",
        expect![[r#"
        error: the disk for `sys` is not empty: nvme0n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a, no path [disk.not-empty]
            gpt partition table, uuid 5b0f1c9e-6a3c-4b1d-8a3e-9c5e2e6f7a01
            partition 1: 512 MiB, vfat, label `EFI`, uuid 7A3C-19F2
            partition 2: 893.8 GiB, ext4, uuid 0b9a3f0e-5d4e-4f0c-b1a5-000000000002
          hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
    check(
        "nvme-pair",
        "match: { serial: '*1' }\nwipe: superblock-recursive",
        expect![[r#"
        nvme0n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a, no path
            gpt partition table, uuid 5b0f1c9e-6a3c-4b1d-8a3e-9c5e2e6f7a01
            partition 1: 512 MiB, vfat, label `EFI`, uuid 7A3C-19F2
            partition 2: 893.8 GiB, ext4, uuid 0b9a3f0e-5d4e-4f0c-b1a5-000000000002"#]],
    );
    check(
        "nvme-pair",
        "match: { by_id: '*S437NA0N000002' }",
        expect![
            "nvme1n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000002, wwn eui.36343730ff000002002538580000000a, no path"
        ],
    );
}

#[test]
fn multipath() {
    check(
        "fc-multipath",
        "match: { transport: fc, size: '< 1.5TiB' }\nwipe: zero",
        expect![[r#"
            error: what fits `sys` is 2 paths to one drive [disk.multipath]
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sdd 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
              hint: installing onto a multipath drive is not in this version; leave one path connected"#]],
    );
    check(
        "fc-multipath",
        "match: { transport: fc, serial: '8000000002' }\npick: first_by_path",
        expect![[r#"
            error: what fits `sys` is 2 paths to one drive [disk.multipath]
                sdc 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path
                sde 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path
              hint: installing onto a multipath drive is not in this version; leave one path connected"#]],
    );
    check(
        "fc-multipath",
        "match: { transport: scsi }\nwipe: zero",
        expect![[r#"
            error: no disk fits `sys` [disk.none]
                sda 223.1 GiB, scsi, model PERC H330 Mini, serial 00aa0001, wwn 0x61866da050a1b30000000000000000a1, no path: the machine was started from it
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path: transport is fc, not scsi
                sdc 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path: transport is fc, not scsi
                sdd 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path: transport is fc, not scsi
                sde 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path: transport is fc, not scsi
              hint: these were seen, each with the first thing that does not fit"#]],
    );
    check(
        "fc-two-paths-unmapped",
        "{}",
        expect![[r#"
            error: what fits `sys` is 2 paths to one drive [disk.multipath]
                sda 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
              hint: installing onto a multipath drive is not in this version; leave one path connected"#]],
    );
}

#[test]
fn board_with_emmc_and_card() {
    check(
        "emmc-board",
        "match: { transport: mmc }",
        expect!["mmcblk1 14.7 GiB, mmc, no model, serial 0x3c9a0002, no wwn, no path"],
    );
    check(
        "emmc-board",
        "match: { size: '< 1GiB' }",
        expect![[r#"
        error: no disk fits `sys` [disk.none]
            mmcblk0 29.7 GiB, mmc, no model, serial 0x00000001, no wwn, no path: the machine was started from it
            mmcblk1 14.7 GiB, mmc, no model, serial 0x3c9a0002, no wwn, no path: size is 14.7 GiB (15758000128 bytes), not <= 1024.0 MiB
            mmcblk1boot0 4 MiB, mmc, no model, serial 0x3c9a0002, no wwn, no path: a boot area of an eMMC
            mmcblk1boot1 4 MiB, mmc, no model, serial 0x3c9a0002, no wwn, no path: a boot area of an eMMC
            zram0 0 B, zram, no model, no serial, no wwn, no path: not a disk of its own
          hint: these were seen, each with the first thing that does not fit"#]],
    );
}

#[test]
fn drives_with_4k_sectors() {
    check(
        "sas-4kn",
        "match: { serial: ZR500002 }",
        expect!["sdb 16.4 TiB, sas, model ST18000NM004J, serial ZR500002, wwn 0x5000c500d7000002, no path"],
    );
    assert_eq!(machine("sas-4kn").disks[0].identity().sector_size.0, 4096);
}

#[test]
fn bridges_that_share_a_serial() {
    check(
        "usb-bridges-duplicate-serial",
        "match: { serial: DB9876543214E }",
        expect![[r#"
        error: 3 disks fit `sys` equally [disk.ambiguous]
            sda 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
            sdb 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
            sdc 465.8 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
          hint: nothing tells them apart; leave only one of them connected"#]],
    );
    check(
        "usb-bridges-duplicate-serial",
        "match: { size: '500107862016' }",
        expect!["sdc 465.8 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path"],
    );
    check(
        "usb-bridges-duplicate-serial",
        "match: { name: sda, transport: usb }",
        expect![[r#"
        error: the disk for `sys` cannot be told from another [disk.ambiguous]
            sda 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
            sdb 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
          hint: leave only one of them connected"#]],
    );
}

#[test]
fn md_members() {
    check(
        "md-members",
        "match: { serial: '*0001' }\nwipe: superblock-recursive",
        expect![[r#"
        error: the disk for `sys` is in use: sda 238.5 GiB, sata, model Micron_1100_MTFD, serial 1722175D0001, wwn 0x500a07511175d001, no path [disk.held]
            md array md127 (raid1, on sda1)
            mount /srv/data (ext4 on md127)
          hint: release it first: unmount, swapoff, stop the array or the volumes"#]],
    );
    check(
        "md-members",
        "match: { serial: '*0003' }",
        expect![[r#"
        error: the disk for `sys` is not empty: sdc 238.5 GiB, sata, model Micron_1100_MTFD, serial 1722175D0003, wwn 0x500a07511175d003, no path [disk.not-empty]
            gpt partition table, uuid 9c2f0003-0000-4000-8000-000000000000
            partition 1: 238.4 GiB, linux_raid_member, label `store:0`, uuid 4f6b7a3c-0a11-4d2b-9d63-0000000000aa
          hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
}

#[test]
fn lvm_and_luks() {
    check(
        "lvm-and-luks",
        "match: { rotational: true }\nwipe: superblock",
        expect![[r#"
        error: the disk for `sys` is in use: sda 3.6 TiB, sata, model TOSHIBA MG04ACA4, serial 27DKK00FFMZB, wwn 0x500003974bc00001, no path [disk.held]
            LVM vg--data-pg (lvm, on sda)
          hint: release it first: unmount, swapoff, stop the array or the volumes"#]],
    );
    check(
        "lvm-and-luks",
        "match: { rotational: false }",
        expect![[r#"
        error: the disk for `sys` is not empty: sdb 465.8 GiB, sata, model Samsung SSD 860, serial S3Z2NB0K000001, wwn 0x5002538e40000001, no path [disk.not-empty]
            gpt partition table, uuid 8d3f0000-0000-4000-8000-000000000002
            partition 1: 465.8 GiB, crypto_LUKS, uuid c0ffee00-0000-4000-8000-000000000003
          hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
}

#[test]
fn install_stick_card_reader_and_dvd() {
    check(
        "usb-install-stick",
        "{}",
        expect!["sdb 119.2 GiB, sata, model TS128GMTS400S, serial F123450001, wwn 0x57c3548180000001, no path"],
    );
    check(
        "usb-install-stick",
        "match: { transport: usb }",
        expect![[r#"
        error: no disk fits `sys` [disk.none]
            sda 28.6 GiB, usb, model Ultra Fit, serial 4C530001230101112345, no wwn, no path: the machine was started from it
            sdb 119.2 GiB, sata, model TS128GMTS400S, serial F123450001, wwn 0x57c3548180000001, no path: transport is sata, not usb
            sdc 0 B, usb, model SD/MMC, serial 20120501030900000, no wwn, no path: no medium in it
            sr0 1024.0 MiB, optical, model DVDRAM_GUD1N, serial KLNI5B000001, no wwn, no path: an optical drive
          hint: these were seen, each with the first thing that does not fit"#]],
    );
}

#[test]
fn virtual_machine() {
    check(
        "virtio-vm-old-lsblk",
        "{}",
        expect![[r#"
        error: 2 disks fit `sys` equally [disk.ambiguous]
            vda 20 GiB, virtio, no model, no serial, no wwn, no path
            vdb 366 KiB, virtio, no model, no serial, no wwn, no path
          hint: add `size` to `match`"#]],
    );
    check(
        "virtio-vm-old-lsblk",
        "match: { size: '>= 1GiB' }",
        expect!["vda 20 GiB, virtio, no model, no serial, no wwn, no path"],
    );
}

#[test]
fn seventy_disks() {
    let machine = machine("jbod-70-disks");
    assert_eq!(machine.disks.len(), 70);
    check(
        "jbod-70-disks",
        "match: { wwn: '0x5000cca2a1043000' }",
        expect!["sdbp 14.6 TiB, sas, model HUH721616AL5204, serial 2CG00067, wwn 0x5000cca2a1043000, no path"],
    );
    check(
        "jbod-70-disks",
        "match: { transport: nvme, serial: '*1' }",
        expect![
            "nvme1n1 447.1 GiB, nvme, model Micron_7300_MTFDHBA480TDF, serial 204500000001, wwn eui.000000000000000100a0752000000001, no path"
        ],
    );
    let refused = outcome(&machine, "pick: largest");
    assert!(refused.starts_with("error: 68 disks fit `sys` equally [disk.ambiguous]"), "{refused}");
    assert_eq!(refused.lines().filter(|line| line.contains("HUH721616AL5204")).count(), 68);
}

#[test]
fn names_that_no_terminal_or_shell_should_meet() {
    check(
        "strange-names",
        "match: { model: 'Größe*' }",
        expect![[
            r#"sda 59.6 GiB, sata, model Größe µSD №1 固态硬盘, serial SN\u{7}\"$(reboot), wwn 0x5000000000000001, no path"#
        ]],
    );
    check(
        "strange-names",
        "match: { wwn: '*2' }",
        expect![[r#"
        error: the disk for `sys` is not empty: sdb 59.6 GiB, sata, model Größe µSD №1, serial SN\\x20`id`, wwn 0x5000000000000002, no path [disk.not-empty]
            whole disk: ntfs, label `Datenträger\u{202e}exe`, uuid 01D5A7B2C3D4E5F6
          hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
    let text = outcome(&machine("strange-names"), "match: { model: none }");
    assert!(!text.chars().any(|c| c == '\u{7}' || c == '\u{202e}'), "{text}");
}

#[test]
fn firmware_raid_is_not_two_paths() {
    check(
        "intel-firmware-raid",
        "{}",
        expect![[r#"
        error: 2 disks fit `sys` equally [disk.ambiguous]
            sda 1.8 TiB, sata, model WDC WD2000FYYZ-01UL1B2, serial WD-WMC1P0D00001, wwn 0x50014ee0ae300001, path pci-0000:00:1f.2-ata-1.0
            sdb 1.8 TiB, sata, model WDC WD2000FYYZ-01UL1B2, serial WD-WMC1P0D00002, wwn 0x50014ee0ae300002, path pci-0000:00:1f.2-ata-2.0
          hint: add `serial` or `wwn` or `by_path` to `match`"#]],
    );
    check(
        "intel-firmware-raid",
        "match: { by_path: '*-ata-2.0' }",
        expect![[r#"
        error: the disk for `sys` is not empty: sdb 1.8 TiB, sata, model WDC WD2000FYYZ-01UL1B2, serial WD-WMC1P0D00002, wwn 0x50014ee0ae300002, path pci-0000:00:1f.2-ata-2.0 [disk.not-empty]
            whole disk: isw_raid_member
          hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
}

#[test]
fn every_recording_is_read_and_written_the_same() {
    let recordings = recordings();
    for name in &recordings {
        let read = machine(name);
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(inventory::from_recording(&written).unwrap(), read, "{name}");
        // What was recorded is found again by what it says, unless it has a twin.
        for disk in &read.disks {
            let twins = read.disks.iter().filter(|other| {
                let same_name = |disk: &inventory::Disk| castiron_engine::block::DiskIdentity {
                    kernel_name: String::new(),
                    ..disk.identity()
                };
                same_name(other) == same_name(disk)
            });
            assert_eq!(read.find(&disk.identity()).is_ok(), twins.count() == 1, "{name} {}", disk.name);
        }
    }
    assert!(recordings.len() >= 13, "only {} recordings", recordings.len());
}
