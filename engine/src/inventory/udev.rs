//! What udev wrote down, where it runs: it only fills gaps that sysfs and our own probing leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::disk::{Disk, Signature};
use super::sysfs::attribute;

/// Model, serial, world wide name and path of the disk; what lies on it and its partitions.
pub fn fill(root: &Path, disk: &mut Disk) {
    let directory = root.join("sys/block").join(&disk.name);
    let database = read(root, &directory);
    let told = |keys: &[&str]| keys.iter().find_map(|key| database.get(*key).cloned());
    disk.model = disk.model.take().or_else(|| told(&["ID_MODEL"]).map(|model| model.replace('_', " ")));
    disk.serial = disk.serial.take().or_else(|| told(&["ID_SCSI_SERIAL", "ID_SERIAL_SHORT"]));
    disk.wwn = disk.wwn.take().or_else(|| told(&["ID_WWN_WITH_EXTENSION", "ID_WWN"]));
    disk.by_path = disk.by_path.take().or_else(|| told(&["ID_PATH"]));
    if let Some(kind) = database.get("ID_PART_TABLE_TYPE") {
        let uuid = told(&["ID_PART_TABLE_UUID"]);
        disk.signatures.push(Signature { kind: kind.clone(), label: None, uuid });
    }
    disk.signatures.extend(signature(&database));
    for partition in &mut disk.partitions {
        let database = read(root, &directory.join(&partition.name));
        partition.filesystem = signature(&database);
        partition.r#type = database.get("ID_PART_ENTRY_TYPE").cloned();
        partition.uuid = database.get("ID_PART_ENTRY_UUID").cloned();
        partition.label = database.get("ID_PART_ENTRY_NAME").map(|name| unescape(name));
    }
}

/// The `E:KEY=VALUE` lines for a block device, whose file is named by its number.
fn read(root: &Path, device: &Path) -> BTreeMap<String, String> {
    let Some(number) = attribute(&device.join("dev")) else { return BTreeMap::new() };
    let bytes = fs::read(root.join("run/udev/data").join(format!("b{number}"))).unwrap_or_default();
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn signature(database: &BTreeMap<String, String>) -> Option<Signature> {
    Some(Signature {
        kind: database.get("ID_FS_TYPE")?.clone(),
        label: database.get("ID_FS_LABEL_ENC").map(|label| unescape(label)),
        uuid: database.get("ID_FS_UUID").cloned(),
    })
}

/// `\x20` is a blank; the bytes are UTF-8.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        let code = rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        for (text, plain) in [("a\\x20b", "a b"), ("gr\\xc3\\xb6\\xc3\\x9fe", "größe"), ("\\xzz\\x", "\\xzz\\x")] {
            assert_eq!(unescape(text), plain);
        }
    }
}
