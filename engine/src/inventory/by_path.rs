//! The name below `/dev/disk/by-path` that udev would give a disk, from where it hangs in sysfs.
//!
//! In: the device's path below `/sys`, and a way to read attributes. Out: a name such as
//! `pci-0000:00:1f.2-ata-1.0`, or nothing when the way to the disk says too little to tell it from its neighbours.

/// Reads an attribute, a file below `/sys`, without the line's end.
pub type Attribute<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `device` is such as `devices/pci0000:00/0000:00:04.0/virtio1/block/vda`.
pub fn of(device: &str, attribute: Attribute<'_>) -> Option<String> {
    let parts: Vec<&str> = device.split('/').collect();
    let mut name = Vec::new();
    if let Some(session) = parts.iter().position(|part| part.starts_with("session")) {
        name.push(iscsi(&parts, session, attribute)?);
    } else {
        name.extend(platform(&parts));
        name.extend(parts.iter().rfind(|part| is_pci_function(part)).map(|function| format!("pci-{function}")));
        if name.is_empty() {
            return None;
        }
        name.extend(usb(&parts));
        name.extend(disk_part(&parts, attribute)?);
    }
    Some(name.join("-"))
}

/// What follows the controller; `Some(None)` when the controller has but one disk.
fn disk_part(parts: &[&str], attribute: Attribute<'_>) -> Option<Option<String>> {
    let last = *parts.last()?;
    if parts.contains(&"nvme") {
        let namespace = attribute(&format!("{}/nsid", parts.join("/")))?;
        return Some(Some(format!("nvme-{namespace}")));
    }
    let Some((at, address)) = parts.iter().enumerate().find_map(|(at, part)| Some((at, scsi_address(part)?))) else {
        // virtio, mmc and the like: only a name that could be one of several is unsafe.
        return (!last.starts_with("sd") && !last.starts_with("sr")).then_some(None);
    };
    let find = |prefix: &str| parts.iter().position(|part| numbered(part, prefix));
    let lun = format!("lun-{}", address[3]);
    let class = |position: usize, class: &str, file: &str| {
        attribute(&format!("{}/{class}/{}/{file}", parts[..=position].join("/"), parts[position]))
    };
    if let Some(port) = find("ata") {
        let number = class(port, "ata_port", "port_no")?;
        let device = if address[1] == 0 { format!("{}", address[2]) } else { format!("{}.0", address[1]) };
        return Some(Some(format!("ata-{number}.{device}")));
    }
    if let Some(port) = parts.iter().position(|part| part.starts_with("rport-")) {
        return Some(Some(format!("fc-{}-{lun}", class(port, "fc_remote_ports", "port_name")?)));
    }
    if let Some(device) = parts.iter().position(|part| part.starts_with("end_device-")) {
        let is_wide = class(device - 1, "sas_port", "num_phys").is_some_and(|phys| phys != "1");
        let expander = parts[..device].iter().rposition(|part| part.starts_with("expander-"));
        let sas = |file: &str| class(device, "sas_device", file);
        return Some(Some(match (is_wide, expander) {
            (true, _) => format!("sas-{}-{lun}", sas("sas_address")?),
            (false, None) => format!("sas-phy{}-{lun}", sas("phy_identifier")?),
            (false, Some(expander)) => {
                let expander = class(expander, "sas_device", "sas_address")?;
                format!("sas-exp{expander}-phy{}-{lun}", sas("phy_identifier")?)
            }
        }));
    }
    let host = parts[..at].iter().position(|part| numbered(part, "host"))?;
    // udev counts the hosts of one controller from zero; it has but one unless it says so.
    let index = parts[host].trim_start_matches("host").parse::<u32>().ok()?;
    let is_host = |number: &u32| attribute(&format!("{}/host{number}/uevent", parts[..host].join("/"))).is_some();
    let first = (0..index).rev().take(64).filter(is_host).last().unwrap_or(index);
    Some(Some(format!("scsi-{}:{}:{}:{}", index - first, address[1], address[2], address[3])))
}

/// The last device of the platform bus on the way, such as `fe340000.mmc`.
fn platform(parts: &[&str]) -> Option<String> {
    if parts.get(1) != Some(&"platform") {
        return None;
    }
    let on_other_bus = |part: &&&str| {
        part.starts_with("pci") && part.contains(':')
            || part.contains('-') && part.starts_with(|c: char| c.is_ascii_digit())
            || ["host", "ata", "usb", "virtio", "mmc"].iter().any(|prefix| numbered(part, prefix))
            || matches!(**part, "block" | "mmc_host" | "nvme")
    };
    let last = parts[2..].iter().take_while(|part| !on_other_bus(part)).last()?;
    Some(format!("platform-{last}"))
}

/// The interface below the root hub: `1-1.4:1.0` is `usb-0:1.4:1.0`.
fn usb(parts: &[&str]) -> Option<String> {
    let interface = parts
        .iter()
        .rfind(|part| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains('-') && part.contains(':'))?;
    Some(format!("usb-0:{}", interface.split_once('-')?.1))
}

fn iscsi(parts: &[&str], session: usize, attribute: Attribute<'_>) -> Option<String> {
    let (base, name) = (parts[..=session].join("/"), parts[session]);
    let address = parts.iter().find_map(|part| scsi_address(part))?;
    let connection = format!("connection{}:0", name.trim_start_matches("session"));
    let of_connection = |file: &str| attribute(&format!("{base}/{connection}/iscsi_connection/{connection}/{file}"));
    let target = attribute(&format!("{base}/iscsi_session/{name}/targetname"))?;
    let (ip, port) = (of_connection("persistent_address")?, of_connection("persistent_port")?);
    Some(format!("ip-{ip}:{port}-iscsi-{target}-lun-{}", address[3]))
}

/// `0000:00:1f.2`.
fn is_pci_function(part: &str) -> bool {
    let Some((bus, function)) = part.rsplit_once('.') else { return false };
    let fields: Vec<&str> = bus.split(':').collect();
    let is_hex = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fields.len() == 3 && fields.iter().all(is_hex) && fields[0].len() >= 4 && function.len() == 1
}

/// `2:0:1:0`: host, channel, target, unit.
fn scsi_address(part: &str) -> Option<[u64; 4]> {
    let numbers: Vec<u64> = part.split(':').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

fn numbered(part: &str, prefix: &str) -> bool {
    part.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_udev() {
        let attribute = |path: &str| {
            let value = match path.rsplit('/').next()? {
                "nsid" => "1",
                "port_no" => "2",
                "port_name" => "0x500a098588f2c5d1",
                "num_phys" => "1",
                "phy_identifier" => "3",
                "sas_address" => "0x500304801e8d2c3f",
                "targetname" => "iqn.2026-01.org.example:store",
                "persistent_address" => "192.0.2.9",
                "persistent_port" => "3260",
                "uevent" if path.ends_with("host6/uevent") => "",
                _ => return None,
            };
            Some(value.to_owned())
        };
        for (device, name) in [
            ("pci0000:00/0000:00:04.0/virtio1/block/vda", Some("pci-0000:00:04.0")),
            ("pci0000:00/0000:00:01.2/0000:02:00.0/nvme/nvme0/nvme0n1", Some("pci-0000:02:00.0-nvme-1")),
            ("pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sda", Some("pci-0000:00:1f.2-ata-2.0")),
            ("pci0000:00/0000:00:1f.2/ata2/host1/target1:3:0/1:3:0:0/block/sda", Some("pci-0000:00:1f.2-ata-2.3.0")),
            (
                "pci0000:00/0000:00:05.0/virtio2/host2/target2:0:1/2:0:1:5/block/sdb",
                Some("pci-0000:00:05.0-scsi-0:0:1:5"),
            ),
            ("pci0000:00/0000:00:05.0/host7/target7:0:1/7:0:1:5/block/sdb", Some("pci-0000:00:05.0-scsi-1:0:1:5")),
            (
                "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdc",
                Some("pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0"),
            ),
            (
                "pci0000:80/0000:80:02.0/0000:82:00.0/host0/port-0:3/end_device-0:3/target0:0:3/0:0:3:0/block/sdd",
                Some("pci-0000:82:00.0-sas-phy3-lun-0"),
            ),
            (
                "pci0000:80/0000:82:00.0/host0/port-0:0/expander-0:0/port-0:0:3/end_device-0:0:3/target0:0:3/0:0:3:0/block/sdd",
                Some("pci-0000:82:00.0-sas-exp0x500304801e8d2c3f-phy3-lun-0"),
            ),
            (
                "pci0000:40/0000:41:00.0/host9/rport-9:0-2/target9:0:0/9:0:0:4/block/sde",
                Some("pci-0000:41:00.0-fc-0x500a098588f2c5d1-lun-4"),
            ),
            (
                "platform/host11/session1/target11:0:0/11:0:0:1/block/sdf",
                Some("ip-192.0.2.9:3260-iscsi-iqn.2026-01.org.example:store-lun-1"),
            ),
            ("platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:0001/block/mmcblk0", Some("platform-fe340000.mmc")),
            (
                "platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0/nvme/nvme0/nvme0n1",
                Some("platform-fd500000.pcie-pci-0000:01:00.0-nvme-1"),
            ),
            (
                "platform/soc/fe980000.usb/xhci-hcd.0.auto/usb1/1-1/1-1.4/1-1.4:1.0/host0/target0:0:0/0:0:0:0/block/sda",
                Some("platform-xhci-hcd.0.auto-usb-0:1.4:1.0-scsi-0:0:0:0"),
            ),
            ("virtual/block/loop0", None),
        ] {
            assert_eq!(of(&format!("devices/{device}"), &attribute).as_deref(), name, "{device}");
        }
    }
}
