//! Boot loaders, from the target's own packages. Whatever makes the disk bootable is the last thing of a plan.
//!
//! GRUB is put in place without `grub-install`, which needs partition devices: its image is made by the target's
//! `grub-mkimage`, the sectors are written natively. The result is laid out as `grub-install` would, so that the
//! finished system's own updates find what they expect.

use camino::{Utf8Path, Utf8PathBuf};

use super::disk::PlanError;
use super::effect::{BootEntry, CorePlace, GrubConfig, PartitionSignature};
use super::provision::file;
use super::{Cmd, Effect, Plan, StepPhase};
use crate::block::table::{BIOS_BOOT, ESP};
use crate::block::{Disk, Filesystem, Mount, Partition, Table, TableKind, Target};
use crate::spec::{Ending, Firmware, Loader, Spec};
use crate::units::{Mode, NodeId};

/// What GRUB calls an architecture, and UEFI its removable-media file (UEFI 2.10, 3.5.1.1).
struct GrubNames {
    architecture: &'static str,
    efi_target: &'static str,
    removable: &'static str,
    vendor_file: &'static str,
}

const GRUB_NAMES: &[GrubNames] = &[
    GrubNames { architecture: "amd64", efi_target: "x86_64-efi", removable: "BOOTX64.EFI", vendor_file: "grubx64.efi" },
    GrubNames {
        architecture: "arm64",
        efi_target: "arm64-efi",
        removable: "BOOTAA64.EFI",
        vendor_file: "grubaa64.efi",
    },
    GrubNames { architecture: "i386", efi_target: "i386-efi", removable: "BOOTIA32.EFI", vendor_file: "grubia32.efi" },
];

const BIOS_TARGET: &str = "i386-pc";
/// Enough to read `grub.cfg` and start a kernel when the module folder is damaged.
const COMMON_MODULES: &[&str] = &[
    "part_gpt",
    "part_msdos",
    "ext2",
    "fat",
    "search",
    "search_fs_uuid",
    "search_label",
    "normal",
    "linux",
    "configfile",
    "echo",
    "test",
    "ls",
    "cat",
    "serial",
    "terminal",
    "minicmd",
    "gzio",
    "reboot",
    "halt",
];
const BIOS_MODULES: &[&str] = &["biosdisk"];
const EFI_MODULES: &[&str] = &["efi_gop"];

const EARLY_CONFIG: &str = "/boot/grub/early.cfg";

struct Boot<'a> {
    spec: &'a Spec,
    root: &'a Utf8Path,
    /// The file system that holds the kernels.
    filesystem: &'a Filesystem,
    /// `/boot` as that file system sees it.
    boot_in_filesystem: &'static str,
    table: &'a Table,
    disk_id: &'a NodeId,
    disk: &'a Disk,
    esp: Option<Esp<'a>>,
}

struct Esp<'a> {
    table: &'a Table,
    partition: &'a Partition,
    mount: &'a Mount,
}

impl<'a> Boot<'a> {
    fn new(spec: &'a Spec, root: &'a Utf8Path) -> Result<Self, PlanError> {
        let error = |text: &str| PlanError::Boot(text.to_owned());
        let mount_at = |at: &str| spec.graph.mounts().find(|mount| mount.at == at);
        let (mount, boot_in_filesystem) = match (mount_at("/boot"), mount_at("/")) {
            (Some(boot), _) => (boot, ""),
            (None, Some(root)) => (root, "/boot"),
            (None, None) => return Err(error("nothing is mounted at `/`")),
        };
        let filesystem = spec.graph.filesystem(&mount.base).ok_or_else(|| error("`/` is not a file system"))?;
        let (table, _) = spec
            .graph
            .partitions()
            .find(|(_, partition)| partition.node == filesystem.base)
            .ok_or_else(|| error("the file system with the kernels is not on a partition"))?;
        let (disk_id, disk) = spec
            .graph
            .disks()
            .find(|(id, _)| **id == table.base)
            .ok_or_else(|| PlanError::NoDisk(table.base.clone()))?;
        let esp =
            spec.graph.partitions().find(|(_, partition)| partition.type_guid == ESP).and_then(|(table, partition)| {
                let (id, _) = spec.graph.filesystems().find(|(_, fs)| fs.base == partition.node)?;
                let mount = spec.graph.mounts().find(|mount| mount.base == *id)?;
                Some(Esp { table, partition, mount })
            });
        Ok(Self { spec, root, filesystem, boot_in_filesystem, table, disk_id, disk, esp })
    }

    fn has(&self, firmware: Firmware) -> bool {
        self.spec.boot.firmware.contains(&firmware)
    }

    fn names(&self) -> Result<&'static GrubNames, PlanError> {
        GRUB_NAMES
            .iter()
            .find(|names| names.architecture == self.spec.architecture)
            .ok_or_else(|| PlanError::Boot(format!("GRUB has no UEFI image for {}", self.spec.architecture)))
    }

    fn mkimage(&self, target: &str, output: &str, modules: &[&str]) -> Effect {
        let prefix = format!("{}/grub", self.boot_in_filesystem);
        let cmd = Cmd::target(self.root, "grub-mkimage")
            .opt("-O", target)
            .opt("-o", output)
            .opt("-p", prefix)
            .opt("-c", EARLY_CONFIG)
            .args(modules.iter().copied())
            .args(COMMON_MODULES.iter().copied());
        Effect::Exec(cmd)
    }

    fn modules(&self, target: &str) -> Vec<Effect> {
        let to = Utf8PathBuf::from(format!("/boot/grub/{target}"));
        let from = Utf8PathBuf::from(format!("/usr/lib/grub/{target}"));
        vec![
            Effect::MakeDirectory { root: self.root.to_owned(), path: to.clone(), mode: Mode(0o755) },
            Effect::CopyFolder { root: self.root.to_owned(), from, to },
        ]
    }

    fn folder(&self, path: String) -> Effect {
        Effect::MakeDirectory { root: self.root.to_owned(), path: path.into(), mode: Mode(0o755) }
    }

    fn core_image(&self) -> String {
        format!("/boot/grub/{BIOS_TARGET}/core.img")
    }

    fn core_place(&self) -> Result<CorePlace, PlanError> {
        let bios_boot = self.table.partitions.iter().find(|partition| partition.type_guid == BIOS_BOOT);
        match (self.table.kind, bios_boot) {
            (TableKind::Gpt, Some(p)) => Ok(CorePlace::Partition { start: p.start, length: p.length }),
            (TableKind::Gpt, None) => Err(PlanError::Boot(format!(
                "a BIOS starts GRUB on a GPT disk from a partition of type bios-boot, and `{}` has none",
                self.disk_id
            ))),
            (TableKind::Mbr, _) => {
                let first = self.table.partitions.iter().map(|partition| partition.start).min();
                Ok(CorePlace::Gap { length: first.unwrap_or(self.disk.size) })
            }
        }
    }
}

/// Everything but what makes the disk bootable.
pub fn prepare(spec: &Spec, root: &Utf8Path, plan: &mut Plan) -> Result<(), PlanError> {
    if spec.boot.loader == Loader::None {
        return Ok(());
    }
    let boot = Boot::new(spec, root)?;
    let prefix = format!("{}/grub", boot.boot_in_filesystem);
    let early = format!("search.fs_uuid {} root\nset prefix=($root){prefix}\n", boot.filesystem.uuid_text());
    let mut effects = vec![boot.folder("/boot/grub".to_owned()), file(root, EARLY_CONFIG, early)];
    if boot.has(Firmware::Bios) {
        effects.extend(boot.modules(BIOS_TARGET));
        let modules = [BIOS_MODULES, &[]].concat();
        effects.push(boot.mkimage(BIOS_TARGET, &boot.core_image(), &modules));
    }
    if boot.has(Firmware::Uefi) {
        let names = boot.names()?;
        let Some(Esp { mount, .. }) = boot.esp else {
            return Err(PlanError::Boot("UEFI firmware needs a mounted partition of type esp".to_owned()));
        };
        effects.extend(boot.modules(names.efi_target));
        let folder = format!("{}/EFI/{}", mount.at, spec.boot.vendor);
        let loader = format!("{folder}/{}", names.vendor_file);
        effects.push(boot.folder(folder.clone()));
        effects.push(boot.mkimage(names.efi_target, &loader, EFI_MODULES));
        effects.push(boot.folder(format!("{}/EFI/BOOT", mount.at)));
        effects.push(boot.mkimage(
            names.efi_target,
            &format!("{}/EFI/BOOT/{}", mount.at, names.removable),
            EFI_MODULES,
        ));
    }
    effects.push(Effect::RemoveTargetFile { root: root.to_owned(), path: EARLY_CONFIG.into() });
    plan.add(StepPhase::BootLoader, "grub-images", "make GRUB's images", effects);
    plan.add(StepPhase::BootLoader, "grub-config", "write GRUB's menu", vec![defaults(&boot), menu(&boot)]);
    Ok(())
}

/// What `update-grub` of the finished system starts from.
fn defaults(boot: &Boot<'_>) -> Effect {
    let consoles = boot.spec.boot.consoles.iter().map(|console| format!("console={console}"));
    let arguments: Vec<String> = consoles.chain(boot.spec.boot.kernel_arguments.iter().cloned()).collect();
    let mut text = format!(
        "# Written by castiron.\nGRUB_TIMEOUT={}\nGRUB_CMDLINE_LINUX=\"{}\"\n",
        boot.spec.boot.timeout_seconds,
        arguments.join(" ").replace('"', "\\\"")
    );
    if let Some(serial) = serial_command(&boot.spec.boot.consoles) {
        text.push_str(&format!("GRUB_TERMINAL=\"console serial\"\nGRUB_SERIAL_COMMAND=\"{serial}\"\n"));
    }
    file(boot.root, "/etc/default/grub.d/castiron.cfg", text)
}

/// GRUB's words for `ttyS1,115200n8`.
pub fn serial_command(consoles: &[String]) -> Option<String> {
    let serial = consoles.iter().find_map(|console| console.strip_prefix("ttyS"))?;
    let (unit, settings) = serial.split_once(',').unwrap_or((serial, "115200"));
    let speed: String = settings.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("serial --unit={unit} --speed={}", if speed.is_empty() { "115200" } else { &speed }))
}

/// Where a kernel waits for `kexec`: `vmlinuz` and `initrd.img` in this folder of the installer.
pub const KEXEC_FOLDER: &str = "/run/castiron/kexec";

/// The command line of the finished system's kernel.
pub fn arguments(spec: &Spec) -> Vec<String> {
    let root_filesystem = spec.graph.mounts().find(|mount| mount.at == "/");
    let root_uuid = root_filesystem
        .and_then(|mount| spec.graph.filesystem(&mount.base))
        .map(Filesystem::uuid_text)
        .unwrap_or_default();
    let mut arguments = vec![format!("root=UUID={root_uuid}"), "ro".to_owned()];
    arguments.extend(spec.boot.consoles.iter().map(|console| format!("console={console}")));
    arguments.extend(spec.boot.kernel_arguments.iter().cloned());
    arguments
}

fn menu(boot: &Boot<'_>) -> Effect {
    Effect::GrubConfig(GrubConfig {
        root: boot.root.to_owned(),
        kernels: "/boot".into(),
        kernels_in_filesystem: boot.boot_in_filesystem.into(),
        path: "/boot/grub/grub.cfg".into(),
        filesystem_uuid: boot.filesystem.uuid_text(),
        title: boot.spec.boot.title.clone(),
        arguments: arguments(boot.spec),
        consoles: boot.spec.boot.consoles.clone(),
        timeout_seconds: boot.spec.boot.timeout_seconds,
    })
}

/// The last steps of every plan: before them no firmware starts the disk.
pub fn commit(spec: &Spec, root: &Utf8Path, plan: &mut Plan) -> Result<(), PlanError> {
    let mut fill: Vec<Effect> = Vec::new();
    for mount in spec.graph.mounts() {
        if let Some(filesystem) = spec.graph.filesystem(&mount.base)
            && filesystem.kind == crate::block::FsKind::Vfat
        {
            let node = filesystem.base.clone();
            fill.push(Effect::FillFat { node, root: root.to_owned(), from: mount.at.clone() });
        }
    }
    if spec.on_success == Ending::Kexec {
        let keep = Effect::KeepKernel { root: root.to_owned(), kernels: "/boot".into(), to: KEXEC_FOLDER.into() };
        plan.add(StepPhase::BootLoader, "kexec", "keep the kernel at hand", vec![keep]);
    }
    plan.add(StepPhase::BootLoader, "sync", "write everything out", vec![Effect::Sync { root: root.to_owned() }]);
    plan.add(StepPhase::BootLoader, "fill-fat", "fill the EFI system partition", fill);
    if spec.boot.loader == Loader::None {
        return Ok(());
    }
    let boot = Boot::new(spec, root)?;
    let mut effects = Vec::new();
    if boot.has(Firmware::Bios) {
        effects.push(Effect::EmbedGrub {
            disk: boot.disk_id.clone(),
            root: root.to_owned(),
            boot_image: format!("/boot/grub/{BIOS_TARGET}/boot.img").into(),
            core_image: boot.core_image().into(),
            place: boot.core_place()?,
        });
    }
    if let (Target::Disk(_), Some(label), Some(Esp { table, partition, .. }), true) =
        (&boot.disk.target, &spec.boot.efi_label, &boot.esp, boot.has(Firmware::Uefi))
    {
        // The ESP may lie on another disk than the kernels, with sectors of another size.
        let sector = super::disk::disk_of(spec, table)?.sector_size.0;
        effects.push(Effect::BootEntry(BootEntry {
            label: label.clone(),
            partition_number: partition.number,
            start_sector: partition.start.0 / sector,
            sectors: partition.length.0 / sector,
            signature: match table.kind {
                TableKind::Gpt => PartitionSignature::Gpt(partition.uuid),
                TableKind::Mbr => PartitionSignature::Mbr(table.mbr_signature()),
            },
            loader: format!("\\EFI\\{}\\{}", spec.boot.vendor, boot.names()?.vendor_file),
        }));
    }
    plan.add(StepPhase::BootLoader, "commit", format!("make {} bootable", boot.disk_id), effects);
    Ok(())
}
