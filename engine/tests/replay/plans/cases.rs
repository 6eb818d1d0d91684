//! Machines, configs and what comes of them.

use expect_test::{Expect, expect};

pub struct Case {
    pub recording: &'static str,
    pub config: &'static str,
    pub expected: Expect,
}

fn case(recording: &'static str, config: &'static str, expected: Expect) -> Case {
    Case { recording, config, expected }
}

/// The default layout on a disk that is named.
macro_rules! on {
    ($key:literal $($more:literal)?) => {
        concat!(
            "storage: { layout: [ { disk: { name: system, match: { ", $key, " }", $(", ", $more,)? ",
  partitioning: { label: gpt, partitions: [
    { name: bios, type: bios-boot, size: 1MiB },
    { name: esp, type: esp, size: 128MiB, esp: {} },
    { name: root, type: root, size: 100%, mkfs: { type: ext4, mount: { mount_point: / } } } ] } } } ] }\n"
        )
    };
}

pub fn cases() -> Vec<Case> {
    vec![
        // UEFI, because an ESP was seen; 960197124096 bytes are 1875385008 sectors.
        case("nvme-pair", "", expect![[r#"
            image.yaml:1:1: error: 2 disks fit `system` equally [disk.ambiguous]
                nvme0n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a, no path
                nvme1n1 894.3 GiB, nvme, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000002, wwn eui.36343730ff000002002538580000000a, no path
              hint: add `serial` or `wwn` to `match`"#]]),
        case("nvme-pair", on!("serial: '*1'" "wipe: superblock-recursive"), expect![[r#"
            disk      system: nvme0n1 (894.3 GiB, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a), 894.3 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          894.1 GiB at    130 MiB ext4 /

            WOULD BE LOST:
              system: gpt partition table, uuid 5b0f1c9e-6a3c-4b1d-8a3e-9c5e2e6f7a01
              system: partition 1: 512 MiB, vfat, label `EFI`, uuid 7A3C-19F2
              system: partition 2: 893.8 GiB, ext4, uuid 0b9a3f0e-5d4e-4f0c-b1a5-000000000002
            wipe system (SuperblockRecursive)
            GPT in sectors of 512 B: 34-1875384974 of 0-1875385007
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-1875384319 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            firmware starts partition 2: 4096-266239
        "#]]),
        case(
            "nvme-pair",
            "storage:
  layout:
  - disk:
      name: first
      match: { serial: '*1' }
      wipe: zero
      partitioning:
        label: gpt
        partitions:
        - { name: esp, type: esp, size: 512MiB, esp: {} }
        - { name: swap, type: swap, size: 16GiB, mkfs: { type: swap } }
        - { name: root, size: 100%, mkfs: { type: ext4, mount: { mount_point: / } } }
  - disk:
      name: second
      match: { serial: '*2' }
      partitioning: { label: gpt, partitions: [ { name: srv, type: srv, size: 100%, mkfs: { type: ext4, mount: { mount_point: /srv } } } ] }
",
            expect![[r#"
                disk      first: nvme0n1 (894.3 GiB, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000001, wwn eui.36343730ff000001002538580000000a), 894.3 GiB
                disk      second: nvme1n1 (894.3 GiB, model SAMSUNG MZQLB960HAJR-00007, serial S437NA0N000002, wwn eui.36343730ff000002002538580000000a), 894.3 GiB
                partition first1   esp             512 MiB at      1 MiB vfat /boot/efi
                partition first2   swap             16 GiB at    513 MiB swap
                partition first3   root          877.8 GiB at   16.5 GiB ext4 /
                partition second1   srv           894.3 GiB at      1 MiB ext4 /srv

                WOULD BE LOST:
                  first: gpt partition table, uuid 5b0f1c9e-6a3c-4b1d-8a3e-9c5e2e6f7a01
                  first: partition 1: 512 MiB, vfat, label `EFI`, uuid 7A3C-19F2
                  first: partition 2: 893.8 GiB, ext4, uuid 0b9a3f0e-5d4e-4f0c-b1a5-000000000002
                wipe first (Zero)
                wipe second (Superblock)
                GPT in sectors of 512 B: 34-1875384974 of 0-1875385007
                  1 2048-1050623 esp
                  2 1050624-34605055 swap
                  3 34605056-1875384319 root
                GPT in sectors of 512 B: 34-1875384974 of 0-1875385007
                  1 2048-1875384319 srv
                format esp as vfat (AD98-C5B8, sectors of 512 B)
                write a swap header to swap (4096 bytes in 1 places)
                mkfs.ext4 mkfs_root <root>
                mkfs.ext4 mkfs_srv <srv>
                firmware starts partition 1: 2048-1050623
            "#]],
        ),
        // No ESP was seen on these drives, so the machine counts as one with a BIOS; it cannot start 4Kn.
        case("sas-4kn", on!("serial: ZR500002"), expect![[r#"
            image.yaml:3:10: error: a BIOS cannot start a disk with sectors of 4096 bytes [boot.bios]
              hint: start the machine by UEFI, or choose a disk with sectors of 512"#]]),
        case("sas-4kn", concat!("boot: { firmware: uefi }\n", on!("serial: ZR500002")), expect![[r#"
            disk      system: sdb (16.4 TiB, model ST18000NM004J, serial ZR500002, wwn 0x5000c500d7000002), 16.4 TiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           16.4 TiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 4 KiB: 6-4394582010 of 0-4394582015
              1 256-511 bios
              2 512-33279 esp
              3 33280-4394581759 root
            format esp as vfat (AD98-C5B8, sectors of 4 KiB)
            mkfs.ext4 mkfs_root -b 4096 <root>
            firmware starts partition 2: 512-33279
        "#]]),
        case("sas-4kn", on!("rotational: false"), expect![[r#"
            disk      system: sdc (447.1 GiB, model INTEL SSDSC2KB48, serial PHYF000000A1480BGN, wwn 0x55cd2e4150000001), 447.1 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          447.0 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-937703054 of 0-937703087
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-937701375 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        // The loader on the SSD with sectors of 512, the system on a drive with 4096.
        case(
            "sas-4kn",
            "boot: { firmware: uefi }
storage:
  layout:
  - disk:
      name: ssd
      match: { transport: sata }
      partitioning: { label: gpt, partitions: [ { name: esp, type: esp, size: 128MiB, esp: {} } ] }
  - disk:
      name: data
      match: { serial: ZR500001 }
      partitioning:
        label: gpt
        partitions:
        - { name: boot, size: 256MiB, mkfs: { type: ext4, mount: { mount_point: /boot } } }
        - { name: swap, type: swap, size: 1000001, mkfs: { type: swap } }
        - { name: root, size: 100%, mkfs: { type: ext4, mount: { mount_point: / } } }
",
            expect![[r#"
                disk      data: sda (16.4 TiB, model ST18000NM004J, serial ZR500001, wwn 0x5000c500d7000001), 16.4 TiB
                disk      ssd: sdc (447.1 GiB, model INTEL SSDSC2KB48, serial PHYF000000A1480BGN, wwn 0x55cd2e4150000001), 447.1 GiB
                partition ssd1   esp             128 MiB at      1 MiB vfat /boot/efi
                partition data1   boot            256 MiB at      1 MiB ext4 /boot
                partition data2   swap            980 KiB at    257 MiB swap
                partition data3   root           16.4 TiB at    258 MiB ext4 /

                Nothing would be lost.
                wipe data (Superblock)
                wipe ssd (Superblock)
                GPT in sectors of 512 B: 34-937703054 of 0-937703087
                  1 2048-264191 esp
                GPT in sectors of 4 KiB: 6-4394582010 of 0-4394582015
                  1 256-65791 boot
                  2 65792-66036 swap
                  3 66048-4394581759 root
                format esp as vfat (AD98-C5B8, sectors of 512 B)
                mkfs.ext4 mkfs_boot -b 4096 <boot>
                write a swap header to swap (4096 bytes in 1 places)
                mkfs.ext4 mkfs_root -b 4096 <root>
                firmware starts partition 1: 2048-264191
            "#]],
        ),
        case("emmc-board", "", expect![[r#"
            disk      system: mmcblk1 (14.7 GiB, serial 0x3c9a0002), 14.7 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           14.5 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-30777310 of 0-30777343
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-30775295 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case(
            "emmc-board",
            "storage: { layout: [ { disk: { name: system, match: { serial: '0x3c9a0002' }, partitioning: { label: mbr, partitions: [
  { name: root, size: 100%, flags: [boot], mkfs: { type: ext4, mount: { mount_point: / } } } ] } } } ] }\n",
            expect![[r#"
                disk      system: mmcblk1 (14.7 GiB, serial 0x3c9a0002), 14.7 GiB
                partition system1   root           14.7 GiB at      1 MiB ext4 /

                Nothing would be lost.
                wipe system (Superblock)
                MBR in sectors of 512 B of 0-30777343
                  1 2048-30775295 83
                mkfs.ext4 mkfs_root <root>
                BIOS starts system by Gap { length: Bytes(1048576) }
            "#]],
        ),
        case("emmc-board", on!("serial: '0x00000001'" "wipe: superblock-recursive, allow_boot_medium: true"), expect![[r#"
            image.yaml:3:30: error: the disk for `system` is in use: mmcblk0 29.7 GiB, mmc, no model, serial 0x00000001, no wwn, no path [disk.held]
                mount /boot (vfat on mmcblk0p1)
                mount / (ext4 on mmcblk0p2)
              hint: release it first: unmount, swapoff, stop the array or the volumes"#]]),
        case("fc-multipath", on!("transport: fc, size: '< 1.5TiB'" "wipe: zero"), expect![[r#"
            image.yaml:3:30: error: what fits `system` is 2 paths to one drive [disk.multipath]
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sdd 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
              hint: installing onto a multipath drive is not in this version; leave one path connected"#]]),
        case("fc-multipath", "", expect![[r#"
            image.yaml:1:1: error: 4 disks fit `system` equally [disk.ambiguous]
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sdc 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path
                sdd 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sde 2 TiB, fc, model LUN C-Mode, serial 8000000002, wwn 0x600a0980383030530000000000000002, no path
              hint: nothing tells them apart; leave only one of them connected"#]]),
        case("fc-two-paths-unmapped", "", expect![[r#"
            image.yaml:1:1: error: what fits `system` is 2 paths to one drive [disk.multipath]
                sda 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
                sdb 1 TiB, fc, model LUN C-Mode, serial 8000000001, wwn 0x600a0980383030530000000000000001, no path
              hint: installing onto a multipath drive is not in this version; leave one path connected"#]]),
        case("intel-firmware-raid", on!("by_path: '*-ata-1.0'" "wipe: superblock"), expect![[r#"
            disk      system: sda (1.8 TiB, model WDC WD2000FYYZ-01UL1B2, serial WD-WMC1P0D00001, wwn 0x50014ee0ae300001, path pci-0000:00:1f.2-ata-1.0), 1.8 TiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root            1.8 TiB at    130 MiB ext4 /

            WOULD BE LOST:
              system: whole disk: isw_raid_member
              system: gpt partition table, uuid f1e2d3c4-0000-4000-8000-000000000001
              system: partition 1: 500 MiB, vfat, uuid 1A2B-3C4D
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-3907029134 of 0-3907029167
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-3907028991 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            firmware starts partition 2: 4096-266239
        "#]]),
        case("jbod-70-disks", on!("wwn: '0x5000cca2a1043000'"), expect![[r#"
            disk      system: sdbp (14.6 TiB, model HUH721616AL5204, serial 2CG00067, wwn 0x5000cca2a1043000), 14.6 TiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           14.6 TiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-31251759070 of 0-31251759103
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-31251757055 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        // An MBR ends at 2 TiB, whatever the disk has.
        case(
            "jbod-70-disks",
            "storage: { layout: [ { disk: { name: system, match: { wwn: '0x5000cca2a1043000' }, partitioning: { label: mbr, partitions: [
  { name: root, size: 100%, flags: [boot], mkfs: { type: ext4, mount: { mount_point: / } } } ] } } } ] }\n",
            expect![[r#"
                disk      system: sdbp (14.6 TiB, model HUH721616AL5204, serial 2CG00067, wwn 0x5000cca2a1043000), 14.6 TiB
                partition system1   root            2.0 TiB at      1 MiB ext4 /

                Nothing would be lost.
                wipe system (Superblock)
                MBR in sectors of 512 B of 0-31251759103
                  1 2048-4294965247 83
                mkfs.ext4 mkfs_root <root>
                BIOS starts system by Gap { length: Bytes(1048576) }
            "#]],
        ),
        case("jbod-70-disks", on!("transport: nvme, serial: '*1'" "wipe: discard"), expect![[r#"
            disk      system: nvme1n1 (447.1 GiB, model Micron_7300_MTFDHBA480TDF, serial 204500000001, wwn eui.000000000000000100a0752000000001), 447.1 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          447.0 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Discard)
            GPT in sectors of 512 B: 34-937703054 of 0-937703087
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-937701375 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("lvm-and-luks", on!("rotational: true" "wipe: superblock"), expect![[r#"
            image.yaml:3:30: error: the disk for `system` is in use: sda 3.6 TiB, sata, model TOSHIBA MG04ACA4, serial 27DKK00FFMZB, wwn 0x500003974bc00001, no path [disk.held]
                LVM vg--data-pg (lvm, on sda)
              hint: release it first: unmount, swapoff, stop the array or the volumes"#]]),
        case("lvm-and-luks", on!("rotational: false" "wipe: superblock-recursive"), expect![[r#"
            disk      system: sdb (465.8 GiB, model Samsung SSD 860, serial S3Z2NB0K000001, wwn 0x5002538e40000001), 465.8 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          465.6 GiB at    130 MiB ext4 /

            WOULD BE LOST:
              system: gpt partition table, uuid 8d3f0000-0000-4000-8000-000000000002
              system: partition 1: 465.8 GiB, crypto_LUKS, uuid c0ffee00-0000-4000-8000-000000000003
            wipe system (SuperblockRecursive)
            GPT in sectors of 512 B: 34-976773134 of 0-976773167
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-976773119 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("md-members", on!("serial: '*0003'" "wipe: superblock-recursive"), expect![[r#"
            disk      system: sdc (238.5 GiB, model Micron_1100_MTFD, serial 1722175D0003, wwn 0x500a07511175d003), 238.5 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          238.3 GiB at    130 MiB ext4 /

            WOULD BE LOST:
              system: gpt partition table, uuid 9c2f0003-0000-4000-8000-000000000000
              system: partition 1: 238.4 GiB, linux_raid_member, label `store:0`, uuid 4f6b7a3c-0a11-4d2b-9d63-0000000000aa
            wipe system (SuperblockRecursive)
            GPT in sectors of 512 B: 34-500118158 of 0-500118191
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-500117503 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("md-members", on!("serial: '*0001'" "wipe: superblock-recursive"), expect![[r#"
            image.yaml:3:30: error: the disk for `system` is in use: sda 238.5 GiB, sata, model Micron_1100_MTFD, serial 1722175D0001, wwn 0x500a07511175d001, no path [disk.held]
                md array md127 (raid1, on sda1)
                mount /srv/data (ext4 on md127)
              hint: release it first: unmount, swapoff, stop the array or the volumes"#]]),
        case("strange-names", on!("model: 'Größe*', size: '>= 1GiB'" "pick: smallest, wipe: superblock"), expect![[r#"
            disk      system: sda (59.6 GiB, model Größe µSD №1 固态硬盘, serial SN\u{7}\"$(reboot), wwn 0x5000000000000001), 59.6 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           59.5 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-125045390 of 0-125045423
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-125044735 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("strange-names", on!("wwn: '*2'" "wipe: superblock"), expect![[r#"
            disk      system: sdb (59.6 GiB, model Größe µSD №1, serial SN\\x20`id`, wwn 0x5000000000000002), 59.6 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           59.5 GiB at    130 MiB ext4 /

            WOULD BE LOST:
              system: whole disk: ntfs, label `Datenträger\u{202e}exe`, uuid 01D5A7B2C3D4E5F6
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-125045390 of 0-125045423
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-125044735 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("usb-bridges-duplicate-serial", on!("serial: DB9876543214E" "pick: largest, wipe: superblock"), expect![[r#"
            image.yaml:3:30: error: 2 disks fit `system` equally [disk.ambiguous]
                sda 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
                sdb 931.5 GiB, usb, model Tech, serial DB9876543214E, wwn 0x3001237923792379, no path
              hint: nothing tells them apart; leave only one of them connected"#]]),
        case("usb-bridges-duplicate-serial", on!("size: '500107862016'" "wipe: superblock"), expect![[r#"
            disk      system: sdc (465.8 GiB, model Tech, serial DB9876543214E, wwn 0x3001237923792379), 465.8 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          465.6 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-976773134 of 0-976773167
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-976773119 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("usb-install-stick", "", expect![[r#"
            disk      system: sdb (119.2 GiB, model TS128GMTS400S, serial F123450001, wwn 0x57c3548180000001), 119.2 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root          119.1 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-250069646 of 0-250069679
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-250068991 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("virtio-vm-old-lsblk", on!("size: '>= 1GiB'"), expect![[r#"
            disk      system: vda (20 GiB), 20 GiB
            partition system1   bios              1 MiB at      1 MiB
            partition system2   esp             128 MiB at      2 MiB vfat /boot/efi
            partition system3   root           19.9 GiB at    130 MiB ext4 /

            Nothing would be lost.
            wipe system (Superblock)
            GPT in sectors of 512 B: 34-41943006 of 0-41943039
              1 2048-4095 bios
              2 4096-266239 esp
              3 266240-41940991 root
            format esp as vfat (AD98-C5B8, sectors of 512 B)
            mkfs.ext4 mkfs_root <root>
            BIOS starts system by Partition { start: Bytes(1048576), length: Bytes(1048576) }
        "#]]),
        case("virtio-vm-old-lsblk", on!("size: '< 1MiB'" "wipe: superblock"), expect![[r#"
            image.yaml:5:42: error: disk `system` is too small for partition `bios`: needs 132 MiB, vdb (366 KiB) [disk.too-small]
              hint: make partitions smaller, or choose a larger disk"#]]),
    ]
}
