//! A machine from a recording: our own JSON, or what `lsblk --json --bytes --output-all` printed.
//!
//! lsblk tells of disks alone. Firmware is then UEFI if there is an EFI system partition, the architecture that of
//! the machine which reads the recording, and paths are unknown.

use serde_json::Value;
use thiserror::Error;

use super::disk::{Disk, Holder, HolderKind, Partition, Signature, Transport};
use super::read::{debian_architecture, is_boot_medium};
use super::{Dmi, Inventory};
use crate::spec::Firmware;
use crate::units::Bytes;

const EFI_SYSTEM_PARTITION: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

#[derive(Debug, Error)]
#[error("not the recording of a machine; record one with `castiron inventory --json` or `lsblk --json -O -b`")]
pub struct RecordingError(#[source] serde_json::Error);

pub fn from_recording(json: &str) -> Result<Inventory, RecordingError> {
    let read: Value = serde_json::from_str(json).map_err(RecordingError)?;
    match read.get("blockdevices").and_then(Value::as_array) {
        Some(devices) => Ok(from_lsblk(devices)),
        None => serde_json::from_value(read).map_err(RecordingError),
    }
}

fn from_lsblk(devices: &[Value]) -> Inventory {
    let is_disk = |device: &&Value| matches!(text(device, "type").as_deref(), Some("disk" | "rom" | "loop"));
    let disks: Vec<Disk> = devices.iter().filter(is_disk).map(disk).collect();
    let has_esp =
        disks.iter().flat_map(|disk| &disk.partitions).any(|p| p.r#type.as_deref() == Some(EFI_SYSTEM_PARTITION));
    Inventory {
        firmware: if has_esp { Firmware::Uefi } else { Firmware::Bios },
        architecture: debian_architecture(std::env::consts::ARCH).to_owned(),
        dmi: Dmi::default(),
        device_tree: None,
        memory: Bytes::ZERO,
        nics: Vec::new(),
        disks,
    }
}

fn disk(device: &Value) -> Disk {
    let name = text(device, "kname").or_else(|| text(device, "name")).unwrap_or_default();
    let mut disk = Disk {
        path: text(device, "path").unwrap_or_else(|| format!("/dev/{name}")).into(),
        size: bytes(device, "size"),
        logical_sector_size: sector(device, "log-sec"),
        physical_sector_size: sector(device, "phy-sec"),
        model: text(device, "model"),
        vendor: text(device, "vendor"),
        serial: text(device, "serial"),
        wwn: text(device, "wwn"),
        transport: transport(device, &name),
        rotational: flag(device, "rota"),
        removable: flag(device, "rm"),
        read_only: flag(device, "ro"),
        signatures: signature(device).into_iter().collect(),
        name,
        ..Disk::default()
    };
    if let Some(kind) = text(device, "pttype") {
        disk.signatures.push(Signature { kind, label: None, uuid: text(device, "ptuuid") });
    }
    disk.partitions = children(device).iter().filter(|child| is_partition(child)).map(partition).collect();
    disk.partitions.sort_by_key(|partition| partition.number);
    hold(device, &disk.name.clone(), &mut disk.holders);
    disk.is_boot_medium = is_boot_medium(&disk, None);
    disk
}

fn transport(device: &Value, name: &str) -> Transport {
    if text(device, "type").as_deref() == Some("rom") {
        return Transport::Optical;
    }
    let told = text(device, "tran").and_then(|tran| serde_json::from_value(Value::String(tran)).ok());
    match Transport::of_name(name) {
        Some(transport) => transport,
        None if name.starts_with("sd") => told.unwrap_or(Transport::Scsi),
        None => told.unwrap_or(Transport::Other),
    }
}

fn partition(device: &Value) -> Partition {
    let name = text(device, "kname").or_else(|| text(device, "name")).unwrap_or_default();
    let digits = name.rfind(|c: char| !c.is_ascii_digit()).map_or("", |at| &name[at + 1..]);
    Partition {
        number: number(device, "partn").and_then(|n| n.try_into().ok()).or_else(|| digits.parse().ok()).unwrap_or(0),
        // lsblk counts the start as the kernel does.
        start: Bytes(number(device, "start").unwrap_or(0).saturating_mul(512)),
        size: bytes(device, "size"),
        r#type: text(device, "parttype"),
        label: text(device, "partlabel"),
        uuid: text(device, "partuuid"),
        filesystem: signature(device),
        name,
    }
}

fn signature(device: &Value) -> Option<Signature> {
    Some(Signature { kind: text(device, "fstype")?, label: text(device, "label"), uuid: text(device, "uuid") })
}

/// Adds what uses a device, and what uses that.
fn hold(device: &Value, name: &str, holders: &mut Vec<Holder>) {
    let kind = text(device, "fstype").unwrap_or_default();
    let listed = device.get("mountpoints").and_then(Value::as_array).into_iter().flatten();
    let points = listed.filter_map(Value::as_str).map(str::to_owned);
    for point in points.chain(text(device, "mountpoint")) {
        let holder = match point.as_str() {
            "[SWAP]" => Holder { kind: HolderKind::Swap, name: name.to_owned(), detail: "in use".to_owned() },
            _ => Holder { kind: HolderKind::Mount, name: point, detail: format!("{kind} on {name}") },
        };
        push(holders, holder);
    }
    for child in children(device) {
        let child_name = text(child, "name").unwrap_or_default();
        if !is_partition(child) {
            let kind = text(child, "type").unwrap_or_default();
            let holder_kind = match kind.as_str() {
                "lvm" => HolderKind::Lvm,
                "crypt" => HolderKind::Crypt,
                "mpath" => HolderKind::Multipath,
                "loop" => HolderKind::Loop,
                "md" | "linear" => HolderKind::Md,
                level if level.starts_with("raid") => HolderKind::Md,
                _ => HolderKind::Other,
            };
            let detail = format!("{kind}, on {name}");
            push(holders, Holder { kind: holder_kind, name: child_name.clone(), detail });
        }
        hold(child, &child_name, holders);
    }
}

fn push(holders: &mut Vec<Holder>, holder: Holder) {
    if !holders.contains(&holder) {
        holders.push(holder);
    }
}

fn is_partition(device: &Value) -> bool {
    text(device, "type").as_deref() == Some("part")
}

fn children(device: &Value) -> &[Value] {
    device.get("children").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(device: &Value, key: &str) -> Option<String> {
    let text = device.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Numbers and flags were texts before util-linux 2.33.
fn number(device: &Value, key: &str) -> Option<u64> {
    let value = device.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn bytes(device: &Value, key: &str) -> Bytes {
    Bytes(number(device, key).unwrap_or(0))
}

fn sector(device: &Value, key: &str) -> Bytes {
    Bytes(number(device, key).unwrap_or(512))
}

fn flag(device: &Value, key: &str) -> bool {
    device.get(key).is_some_and(|value| value.as_bool() == Some(true)) || number(device, key) == Some(1)
}
