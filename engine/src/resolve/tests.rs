use super::*;
use crate::block::table::{BIOS_BOOT, ESP};
use crate::config;
use crate::inventory::{Disk, Nic};
use crate::spec::Firmware;

const SHORTEST: &str = "castiron: 1\nsource: { bootstrap: { release: trixie } }\n";

/// A virtual machine with one empty disk.
fn machine() -> Inventory {
    let disk = Disk {
        name: "vda".to_owned(),
        path: "/dev/vda".into(),
        size: Bytes::gib(8),
        logical_sector_size: Bytes(512),
        physical_sector_size: Bytes(512),
        serial: Some("castiron0".to_owned()),
        by_path: Some("pci-0000:00:04.0".to_owned()),
        transport: crate::inventory::Transport::Virtio,
        ..Disk::default()
    };
    let nic = Nic { name: "eth0".to_owned(), mac: Some("52:54:00:12:34:56".to_owned()), ..Nic::default() };
    Inventory {
        firmware: Firmware::Bios,
        architecture: "amd64".to_owned(),
        dmi: crate::inventory::Dmi { serial: Some("SN 7".to_owned()), ..Default::default() },
        device_tree: None,
        memory: Bytes::gib(1),
        nics: vec![nic],
        disks: vec![disk],
    }
}

fn decide(text: &str) -> Result<Spec, Diagnostics> {
    let config = config::parse(text.as_bytes(), "image.yaml")?;
    let inventory = machine();
    resolve(&config, &inventory, &Catalogue::shipped().unwrap(), None, seed(&inventory, text.as_bytes()))
}

#[test]
fn the_shortest_config_makes_a_disk_for_both_kinds_of_firmware() {
    let spec = decide(SHORTEST).unwrap();
    let shown: Vec<String> = spec
        .graph
        .partitions()
        .map(|(_, part)| format!("{} {} {} {}", part.number, part.node, part.start, part.length))
        .collect();
    assert_eq!(shown, ["1 bios 1 MiB 1 MiB", "2 esp 2 MiB 128 MiB", "3 root 130 MiB 7.9 GiB"]);
    let types: Vec<Uuid> = spec.graph.partitions().map(|(_, part)| part.type_guid).collect();
    assert_eq!(types[..2], [BIOS_BOOT, ESP]);
    let mounts: Vec<String> = spec
        .graph
        .mounts()
        .map(|mount| format!("{} {} {} {}", mount.base, mount.at, mount.options, mount.fsck_pass))
        .collect();
    assert_eq!(mounts, ["mkfs_root / errors=remount-ro 1", "esp_esp /boot/efi umask=0077 2"]);
    assert_eq!(spec.boot.firmware, [Firmware::Bios]);
    assert_eq!(spec.boot.consoles.last().unwrap(), "ttyS0,115200n8");
    assert_eq!(decide(SHORTEST).unwrap(), spec, "the same input gives the same spec");
}

#[test]
fn an_image_boots_by_every_firmware_of_the_board() {
    let config = as_image(config::parse(SHORTEST.as_bytes(), "image.yaml").unwrap(), Some(Bytes::gib(3)));
    let spec = resolve(&config, &machine(), &Catalogue::shipped().unwrap(), None, Uuid::nil()).unwrap();
    assert_eq!(spec.boot.firmware, [Firmware::Uefi, Firmware::Bios]);
    assert_eq!(spec.graph.disks().map(|(_, disk)| disk.size).collect::<Vec<_>>(), [Bytes::gib(3)]);
    let request = archive_request(&config, &machine(), &Catalogue::shipped().unwrap(), &defaults()).unwrap();
    assert!(
        ["grub-pc-bin", "grub-efi-amd64-bin", "grub2-common", "linux-image-amd64"]
            .iter()
            .all(|name| request.include.iter().any(|included| included == name))
    );
}

fn defaults() -> ArchiveDefaults {
    let source = crate::debian::Source {
        mirrors: vec!["http://mirror.example.org/debian".to_owned()],
        suites: Vec::new(),
        components: vec!["main".to_owned()],
    };
    ArchiveDefaults { sources: vec![source], ..ArchiveDefaults::default() }
}

#[test]
fn the_archive_is_asked_for_what_the_config_means() {
    let text = "castiron: 1
source:
  bootstrap:
    release: trixie
    variant: standard
    base_packages: []
    mirrors:
    - { uri: http://a.example.org/debian/ }
    - { uri: http://b.example.org/debian }
    - { uri: http://a.example.org/security, suites: [trixie-security], components: [main, contrib] }
boot: { kernel_package: linux-image-toy }
locale: de_DE.UTF-8
timezone: Europe/Berlin
users: [ { name: ops, sudo: ALL=(ALL) NOPASSWD:ALL } ]
packages: [openssh-server, libc6:i386]
";
    let config = config::parse(text.as_bytes(), "image.yaml").unwrap();
    let request =
        archive_request(&config, &machine(), &Catalogue::shipped().unwrap(), &ArchiveDefaults::default()).unwrap();
    let sources: Vec<String> = request
        .sources
        .iter()
        .map(|source| {
            format!("{} {} {}", source.mirrors.join("|"), source.suites.join(","), source.components.join(","))
        })
        .collect();
    assert_eq!(
        sources,
        [
            "http://a.example.org/debian|http://b.example.org/debian trixie main",
            "http://a.example.org/security trixie-security main,contrib",
        ]
    );
    assert_eq!(
        request.include.join(" "),
        "linux-image-toy grub2-common grub-pc-bin locales tzdata sudo openssh-server libc6:i386"
    );
    assert_eq!(request.foreign_architectures, ["i386"]);
    assert_eq!(request.variant, Some(crate::debian::Variant::Standard));
}

#[test]
fn without_a_mirror_the_error_says_what_to_write() {
    let config = config::parse(SHORTEST.as_bytes(), "image.yaml").unwrap();
    let found =
        archive_request(&config, &machine(), &Catalogue::shipped().unwrap(), &ArchiveDefaults::default()).unwrap_err();
    assert!(found.to_string().starts_with("image.yaml:2:22: error: no mirror is known [source.mirror]"), "{found}");
}

#[test]
fn settings_become_files_users_and_words() {
    let text = format!(
        "{SHORTEST}identity: {{ hostname: 'node-${{mac}}', vars: {{ rack: r12 }} }}
write_files: [ {{ path: /etc/motd, content: 'rack ${{vars.rack}} ${{HOME}}', mode: '0600', owner: 'ops:adm' }} ]
users: [ {{ name: ops, groups: [sudo], hashed_passwd: $6$salt$hash, ssh_authorized_keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b'] }} ]
network: {{ version: 2, ethernets: {{ up0: {{ match: {{ macaddress: '52:54:00:12:34:56' }}, addresses: [192.0.2.17/24], routes: [ {{ to: default, via: 192.0.2.1 }} ], nameservers: {{ addresses: [192.0.2.53] }} }} }} }}
keyboard: {{ layout: de }}
in_target: ['true', [echo, \"a b\"]]
"
    );
    let spec = decide(&text).unwrap();
    assert_eq!(spec.system.hostname.as_deref(), Some("node-52-54-00-12-34-56"));
    let file = spec.system.files.iter().find(|file| file.path == "/etc/motd").unwrap();
    assert_eq!(file.content, crate::spec::Content::Text("rack r12 ${HOME}".to_owned()));
    assert_eq!((file.user.as_str(), file.group.as_str(), file.mode.0), ("ops", "adm", 0o600));
    let network = spec.system.files.iter().find(|file| file.path == "/etc/systemd/network/10-up0.network").unwrap();
    let crate::spec::Content::Text(network) = &network.content else { panic!() };
    expect_test::expect![[r#"
        [Match]
        MACAddress=52:54:00:12:34:56

        [Link]
        RequiredForOnline=yes

        [Network]
        DHCP=no
        Address=192.0.2.17/24
        DNS=192.0.2.53

        [Route]
        Gateway=192.0.2.1
    "#]]
    .assert_eq(network);
    assert!(!spec.system.users[0].lock_passwd);
    let config = config::parse(text.as_bytes(), "image.yaml").unwrap();
    assert_eq!(secrets(&config)[spec.system.users[0].hashed_passwd.as_ref().unwrap()].expose(), "$6$salt$hash");
    assert!(!format!("{spec:?}").contains("salt"), "a spec holds no secret");
    assert_eq!(spec.commands.in_target.len(), 3, "the network's service, and two");
    assert_eq!(spec.system.debconf[0], "keyboard-configuration keyboard-configuration/layoutcode string de");
}

#[test]
fn another_machine_refuses_the_config() {
    let text = format!("{SHORTEST}identity: {{ match: {{ mac: '52:54:00:99:99:99', serial: SN 7 }} }}\n");
    let found = decide(&text).unwrap_err().to_string();
    assert!(found.contains("image.yaml:3:27: error: this config is for the machine with mac `52:54:00:99:99:99`; this one has 52:54:00:12:34:56"), "{found}");
    assert_eq!(found.matches("error:").count(), 1);
}

/// dib's tree and digraph are two spellings of one layout.
#[test]
fn tree_and_graph_are_the_same() {
    let tree = "storage:
  layout:
  - local_loop:
      name: image0
      size: 4GiB
      partitioning:
        label: gpt
        partitions:
        - { name: ESP, type: EF00, size: 64MiB, mkfs: { type: vfat, mount: { mount_point: /boot/efi, fstab: { options: defaults, fsck-passno: 2 } } } }
        - { name: BSP, type: EF02, size: 8MiB }
        - { name: root, type: '8300', size: 100%, mkfs: { type: ext4, mount: { mount_point: /, fstab: { options: defaults, fsck-passno: 1 } } } }
";
    let graph = "storage:
  layout:
  - local_loop: { name: image0, size: 4GiB }
  - partitioning:
      base: image0
      label: gpt
      partitions:
      - { name: ESP, type: EF00, size: 64MiB }
      - { name: BSP, type: EF02, size: 8MiB }
      - { name: root, type: '8300', size: 100% }
  - mkfs: { name: mkfs_root, base: root, type: ext4 }
  - mkfs: { name: mkfs_ESP, base: ESP, type: vfat }
  - mount: { name: mount_mkfs_root, base: mkfs_root, mount_point: / }
  - mount: { name: mount_mkfs_ESP, base: mkfs_ESP, mount_point: /boot/efi }
  - fstab: { name: fstab_mount_mkfs_root, base: mount_mkfs_root, options: defaults, fsck-passno: 1 }
  - fstab: { base: mount_mkfs_ESP, options: defaults, fsck-passno: 2 }
";
    let nodes = |layout: &str| {
        let config = config::parse(format!("{SHORTEST}{layout}").as_bytes(), "image.yaml").unwrap();
        let spec = resolve(&config, &machine(), &Catalogue::shipped().unwrap(), None, Uuid::nil());
        let mut nodes: Vec<String> = spec.unwrap().graph.nodes().iter().map(|node| format!("{node:?}")).collect();
        nodes.sort();
        nodes
    };
    assert_eq!(nodes(tree), nodes(graph));
}
