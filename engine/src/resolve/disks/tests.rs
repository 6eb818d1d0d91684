use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::inventory::{Holder, HolderKind};
use crate::units::Bytes;

/// A config's `disk` as it is written.
fn wanted(yaml: &str) -> storage::Disk {
    let read: serde_json::Value = serde_yaml::from_str(yaml).expect("YAML");
    let mut read = read.as_object().cloned().expect("a mapping");
    read.insert("name".to_owned(), "sys".into());
    serde_json::from_value(read.into()).expect("a disk of the config")
}

fn disk(name: &str, transport: Transport, gib: u64) -> Disk {
    let number = name.bytes().map(u64::from).sum::<u64>();
    Disk {
        name: name.to_owned(),
        path: format!("/dev/{name}").into(),
        size: Bytes::gib(gib),
        logical_sector_size: Bytes(512),
        physical_sector_size: Bytes(512),
        model: Some("Drive".to_owned()),
        serial: Some(format!("S{number}")),
        wwn: Some(format!("0x5000c500{number:08x}")),
        transport,
        by_path: Some(format!("pci-0000:00:{number:02x}.0")),
        ..Disk::default()
    }
}

fn server() -> Vec<Disk> {
    vec![
        disk("nvme0n1", Transport::Nvme, 480),
        disk("nvme1n1", Transport::Nvme, 480),
        Disk { rotational: true, ..disk("sda", Transport::Sas, 4000) },
        Disk { removable: true, is_boot_medium: true, ..disk("sdb", Transport::Usb, 16) },
        disk("loop0", Transport::Loop, 1),
        disk("sr0", Transport::Optical, 1),
    ]
}

fn outcome(yaml: &str, disks: &[Disk]) -> String {
    match select(&wanted(yaml), &[], disks) {
        Ok(choice) => choice.losses.iter().fold(choice.disk.name.clone(), |text, line| format!("{text}\n{line}")),
        Err(diagnostic) => diagnostic.to_string(),
    }
}

fn check(yaml: &str, disks: &[Disk], expected: Expect) {
    expected.assert_eq(&outcome(yaml, disks));
}

#[test]
fn every_key_finds_its_disk() {
    for (yaml, name) in [
        ("match: { transport: sas }", "sda"),
        ("match: { size: '>= 1TiB' }", "sda"),
        ("match: { size: '1TiB..8TiB' }", "sda"),
        ("match: { rotational: true }", "sda"),
        ("match: { serial: S645 }", "nvme0n1"),
        ("match: { serial: 'S64[59]' }", "nvme0n1"),
        ("match: { wwn: '0x5000c50000000285' }", "nvme0n1"),
        ("match: { wwn: naa.5000c50000000285 }", "nvme0n1"),
        ("match: { by_path: 'pci-*:286.0' }", "nvme1n1"),
        ("match: { by_id: nvme-Drive_S646 }", "nvme1n1"),
        ("match: { name: 'nvme1*', transport: nvme }", "nvme1n1"),
        ("match: { transport: usb }\nallow_boot_medium: true", "sdb"),
        ("pick: largest", "sda"),
        ("match: { transport: nvme }\npick: first_by_path", "nvme0n1"),
        ("pick: smallest\nallow_boot_medium: true", "sdb"),
    ] {
        assert_eq!(outcome(yaml, &server()), name, "{yaml}");
    }
}

#[test]
fn two_that_fit_are_refused_with_what_tells_them_apart() {
    check(
        "match: { transport: nvme }",
        &server(),
        expect![[r#"
            error: 2 disks fit `sys` equally [disk.ambiguous]
                nvme0n1 480 GiB, nvme, model Drive, serial S645, wwn 0x5000c50000000285, path pci-0000:00:285.0
                nvme1n1 480 GiB, nvme, model Drive, serial S646, wwn 0x5000c50000000286, path pci-0000:00:286.0
              hint: add `serial` or `wwn` or `by_path` to `match`"#]],
    );
    check(
        "match: { transport: nvme }\npick: smallest",
        &server(),
        expect![[r#"
            error: 2 disks fit `sys` equally [disk.ambiguous]
                nvme0n1 480 GiB, nvme, model Drive, serial S645, wwn 0x5000c50000000285, path pci-0000:00:285.0
                nvme1n1 480 GiB, nvme, model Drive, serial S646, wwn 0x5000c50000000286, path pci-0000:00:286.0
              hint: add `serial` or `wwn` or `by_path` to `match`"#]],
    );
}

#[test]
fn none_that_fits_shows_all_and_why_not() {
    check(
        "match: { transport: sata }",
        &server(),
        expect![[r#"
            error: no disk fits `sys` [disk.none]
                loop0 1 GiB, loop, model Drive, serial S490, wwn 0x5000c500000001ea, path pci-0000:00:1ea.0: not a disk of its own
                nvme0n1 480 GiB, nvme, model Drive, serial S645, wwn 0x5000c50000000285, path pci-0000:00:285.0: transport is nvme, not sata
                nvme1n1 480 GiB, nvme, model Drive, serial S646, wwn 0x5000c50000000286, path pci-0000:00:286.0: transport is nvme, not sata
                sda 3.9 TiB, sas, model Drive, serial S312, wwn 0x5000c50000000138, path pci-0000:00:138.0: transport is sas, not sata
                sdb 16 GiB, usb, model Drive, serial S313, wwn 0x5000c50000000139, path pci-0000:00:139.0: the machine was started from it
                sr0 1 GiB, optical, model Drive, serial S277, wwn 0x5000c50000000115, path pci-0000:00:115.0: an optical drive
              hint: these were seen, each with the first thing that does not fit"#]],
    );
    check(
        "{}",
        &[],
        expect![[r#"
            error: this machine has no disk for `sys` [disk.none]
              hint: is the driver of its controller in the appliance?"#]],
    );
}

#[test]
fn what_is_no_target_is_never_chosen() {
    let sda = || disk("sda", Transport::Sata, 1);
    for bad in [
        Disk { read_only: true, ..sda() },
        Disk { size: Bytes::ZERO, ..sda() },
        Disk { is_boot_medium: true, ..sda() },
        disk("loop0", Transport::Loop, 1),
        disk("nbd0", Transport::Nbd, 1),
        disk("zram0", Transport::Zram, 1),
        disk("ram0", Transport::Ram, 1),
        disk("sr0", Transport::Optical, 1),
        disk("fd0", Transport::Floppy, 1),
        disk("mmcblk0boot0", Transport::Mmc, 1),
        disk("mmcblk0rpmb", Transport::Mmc, 1),
    ] {
        let outcome = outcome("wipe: zero", &[bad]);
        assert!(outcome.contains("[disk.none]"), "{outcome}");
    }
}

#[test]
fn a_kernel_name_alone_is_no_identity() {
    check(
        "match: { name: sda }",
        &server(),
        expect![[r#"
            error: disk `sys` is known by the kernel's name `sda` alone [disk.name-alone]
              hint: that name may be another disk's at the next boot; give serial, wwn or by_path (see `castiron inventory`)"#]],
    );
}

#[test]
fn a_disk_in_use_is_refused_whatever_wipe_says() {
    let holders = vec![
        Holder { kind: HolderKind::Mount, name: "/srv".to_owned(), detail: "sda1".to_owned() },
        Holder { kind: HolderKind::Md, name: "md0".to_owned(), detail: "sda2".to_owned() },
    ];
    check(
        "wipe: zero",
        &[Disk { holders, ..disk("sda", Transport::Sata, 1) }],
        expect![[r#"
            error: the disk for `sys` is in use: sda 1 GiB, sata, model Drive, serial S312, wwn 0x5000c50000000138, path pci-0000:00:138.0 [disk.held]
                mount /srv (sda1)
                md array md0 (sda2)
              hint: release it first: unmount, swapoff, stop the array or the volumes"#]],
    );
}

fn used(table: &str) -> Disk {
    let signature = |kind: &str, label: Option<&str>, uuid: &str| Signature {
        kind: kind.to_owned(),
        label: label.map(str::to_owned),
        uuid: Some(uuid.to_owned()),
    };
    let partitions = vec![
        Partition {
            number: 1,
            size: Bytes::mib(512),
            filesystem: Some(signature("vfat", Some("EFI"), "1234-ABCD")),
            ..Partition::default()
        },
        Partition { number: 3, size: Bytes::gib(1), label: Some("data".to_owned()), ..Partition::default() },
    ];
    Disk { signatures: vec![signature("gpt", None, table)], partitions, ..disk("sda", Transport::Sata, 2) }
}

const TABLE: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

#[test]
fn a_disk_that_holds_something_is_refused_unless_the_config_says_so() {
    check(
        "{}",
        &[used(TABLE)],
        expect![[r#"
            error: the disk for `sys` is not empty: sda 2 GiB, sata, model Drive, serial S312, wwn 0x5000c50000000138, path pci-0000:00:138.0 [disk.not-empty]
                gpt partition table, uuid 0f0e0d0c-0b0a-4908-8706-050403020100
                partition 1: 512 MiB, vfat, label `EFI`, uuid 1234-ABCD
                partition 3: 1 GiB, nothing known, label `data`
              hint: to lose this, say so with `wipe: superblock-recursive`; to keep it, choose another disk"#]],
    );
    check(
        "wipe: superblock",
        &[used(TABLE)],
        expect![[r#"
            sda
            gpt partition table, uuid 0f0e0d0c-0b0a-4908-8706-050403020100
            partition 1: 512 MiB, vfat, label `EFI`, uuid 1234-ABCD
            partition 3: 1 GiB, nothing known, label `data`"#]],
    );
}

#[test]
fn what_an_interrupted_run_left_is_no_obstacle() {
    let disks = [used(TABLE)];
    let own: Uuid = TABLE.parse().unwrap();
    assert!(select(&wanted("{}"), &[own], &disks).is_ok());
    assert!(select(&wanted("{}"), &[Uuid::nil()], &disks).is_err());
}

#[test]
fn two_paths_are_one_drive_and_two_twins_are_none() {
    let path = |name: &str, by_path: &str| Disk {
        by_path: Some(by_path.to_owned()),
        ..Disk { name: name.to_owned(), ..disk("sda", Transport::Fc, 100) }
    };
    let paths = [path("sda", "pci-0000:03:00.0-fc-0x1-lun-0"), path("sdb", "pci-0000:04:00.0-fc-0x2-lun-0")];
    assert!(outcome("match: { transport: fc }", &paths).contains("2 paths to one drive [disk.multipath]"));
    // By path it is told apart, but another kernel would then write below the feet of the first path.
    let nameless = |name: &str| Disk { serial: None, wwn: None, by_path: None, ..path(name, "") };
    let twins = [nameless("sda"), nameless("sdb")];
    let text = outcome("match: { name: sda, transport: fc }", &twins);
    assert!(text.contains("cannot be told from another [disk.ambiguous]"), "{text}");
    assert!(outcome("match: { transport: fc }", &twins).contains("nothing tells them apart"));
}

#[test]
fn numbers_in_paths_count_by_value() {
    let at = |name: &str, by_path: &str| Disk { by_path: Some(by_path.into()), ..disk(name, Transport::Nvme, 1) };
    let disks = [at("nvme0n1", "pci-0000:10:00.0-nvme-10"), at("nvme1n1", "pci-0000:10:00.0-nvme-2")];
    assert_eq!(outcome("pick: first_by_path", &disks), "nvme1n1");
}

fn any_disk() -> impl Strategy<Value = Disk> {
    let transport = prop::sample::select(vec![Transport::Nvme, Transport::Sata, Transport::Usb, Transport::Loop]);
    let text = |values: &'static [&'static str]| {
        prop::option::of(prop::sample::select(values)).prop_map(|text| text.map(str::to_owned))
    };
    (
        (transport, 0u64..4, any::<bool>(), any::<bool>(), prop::bool::weighted(0.1)),
        (
            text(&["A", "B", "Größe"]),
            text(&["1", "2", "3"]),
            text(&["0x1", "0x2"]),
            text(&["pci-1", "pci-2", "pci-10"]),
        ),
    )
        .prop_map(|((transport, gib, removable, rotational, is_boot_medium), (model, serial, wwn, by_path))| {
            Disk {
                size: Bytes::gib(gib),
                logical_sector_size: Bytes(512),
                physical_sector_size: Bytes(512),
                model,
                serial,
                wwn,
                by_path,
                transport,
                removable,
                rotational,
                is_boot_medium,
                ..Disk::default()
            }
        })
}

fn any_wanted() -> impl Strategy<Value = storage::Disk> {
    let keys = prop::sample::subsequence(
        vec![
            "transport: nvme",
            "size: '>= 2GiB'",
            "size: '1GiB..2GiB'",
            "model: 'G*'",
            "serial: '[12]'",
            "wwn: '0x1'",
            "by_path: pci-*",
            "removable: false",
            "rotational: true",
        ],
        0..4,
    );
    keys.prop_filter("one size", |keys| keys.iter().filter(|key| key.starts_with("size")).count() < 2)
        .prop_map(|keys| wanted(&format!("match: {{ {} }}", keys.join(", "))))
}

/// Gives the disks kernel names in their order.
fn named(disks: &[Disk]) -> Vec<Disk> {
    let name = |index: usize| format!("sd{}", char::from(b'a' + index as u8));
    disks.iter().enumerate().map(|(index, disk)| Disk { name: name(index), ..disk.clone() }).collect()
}

/// The choice without the kernel's name, or the rule.
fn meant(wanted: &storage::Disk, disks: &[Disk]) -> Result<Disk, String> {
    select(wanted, &[], disks)
        .map(|choice| Disk { name: String::new(), ..choice.disk.clone() })
        .map_err(|diagnostic| diagnostic.rule)
}

proptest! {
    #[test]
    fn names_and_order_decide_nothing(
        wanted in any_wanted(),
        pick in prop::sample::select(vec![Pick::Only, Pick::Smallest, Pick::Largest, Pick::FirstByPath]),
        (disks, shuffled) in prop::collection::vec(any_disk(), 0..7)
            .prop_flat_map(|disks| (Just(disks.clone()), Just(disks).prop_shuffle())),
    ) {
        let wanted = storage::Disk { pick, ..wanted };
        prop_assert_eq!(meant(&wanted, &named(&disks)), meant(&wanted, &named(&shuffled)));
    }

    #[test]
    fn one_more_disk_never_means_another(
        wanted in any_wanted(),
        disks in prop::collection::vec(any_disk(), 1..6),
        more in any_disk(),
    ) {
        let before = meant(&wanted, &named(&disks));
        let after = meant(&wanted, &named(&[disks.clone(), vec![more]].concat()));
        if let Ok(before) = before {
            match after {
                Ok(after) => prop_assert_eq!(before, after),
                Err(rule) => prop_assert!(rule == "disk.ambiguous" || rule == "disk.multipath", "{}", rule),
            }
        }
    }
}
