//! What a machine can put into a URL: `${mac}`, `${uuid}`, `${serial}`, … Reads below a given root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use castiron_engine::trust::Machine;
use thiserror::Error;

use crate::net::{Mac, physical_links};

/// Every name that may stand in `${…}`.
const NAMES: &[&str] = &["mac", "uuid", "serial", "hostname", "asset_tag", "dt_serial"];

/// Values by name. What the machine does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<&'static str, String>);

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VariableError {
    #[error("${{{name}}} is no variable")]
    Unknown { name: String },
    #[error("this machine has no {name} for ${{{name}}}")]
    Absent { name: String },
    #[error("`${{` is not closed in {text}")]
    Open { text: String },
}

impl VariableError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown { .. } | Self::Open { .. } => {
                "write ${mac}, ${uuid}, ${serial}, ${hostname}, ${asset_tag} or ${dt_serial}"
            }
            Self::Absent { .. } => "${mac} is there on every machine",
        }
    }
}

impl Variables {
    /// Reads firmware tables below `root` (`sys/class/dmi/id`, `proc/device-tree`).
    pub fn read(root: &Path, mac: Option<Mac>, hostname: Option<String>) -> Self {
        let mut values = BTreeMap::new();
        values.extend(mac.map(|mac| ("mac", mac.to_string())));
        values.extend(hostname.map(|name| ("hostname", name)));
        values.extend(uuid(root).map(|uuid| ("uuid", uuid)));
        values.extend(dmi(root, "product_serial").map(|serial| ("serial", serial)));
        values.extend(dmi(root, "chassis_asset_tag").map(|tag| ("asset_tag", tag)));
        values.extend(device_tree_serial(root).map(|serial| ("dt_serial", serial)));
        Self(values)
    }

    /// Fills a URL in. Values are percent-encoded, so that none can change what the URL means.
    pub fn fill(&self, text: &str) -> Result<String, VariableError> {
        self.replace(text, |value| {
            value
                .bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                        char::from(byte).to_string()
                    }
                    _ => format!("%{byte:02X}"),
                })
                .collect()
        })
    }

    /// Fills a path in. Slashes of values become underscores.
    pub fn fill_plain(&self, text: &str) -> Result<String, VariableError> {
        self.replace(text, |value| value.replace('/', "_"))
    }

    fn replace(&self, text: &str, encode: impl Fn(&str) -> String) -> Result<String, VariableError> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| VariableError::Open { text: text.to_owned() })?;
            if !NAMES.contains(&name) {
                return Err(VariableError::Unknown { name: name.to_owned() });
            }
            let value = self.0.get(name).ok_or_else(|| VariableError::Absent { name: name.to_owned() })?;
            filled.push_str(before);
            filled.push_str(&encode(value));
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The machine at hand, as scopes of signatures name it. Reads below `root`.
pub fn machine(root: &Path) -> Machine {
    let links = physical_links(&root.join("sys"));
    Machine {
        macs: links.into_iter().map(|mac| mac.to_string()).collect(),
        uuid: uuid(root),
        serial: dmi(root, "product_serial").or_else(|| device_tree_serial(root)),
    }
}

fn uuid(root: &Path) -> Option<String> {
    let uuid = dmi(root, "product_uuid")?.to_ascii_lowercase();
    let digits: Vec<char> = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let real = digits.len() == 32 && digits.iter().any(|digit| *digit != digits[0]);
    real.then_some(uuid)
}

/// What vendors write when they write nothing.
const FILLERS: &[&str] = &[
    "",
    "0",
    "none",
    "n/a",
    "na",
    "default string",
    "to be filled by o.e.m.",
    "not specified",
    "not available",
    "system serial number",
    "chassis serial number",
    "no asset tag",
    "asset tag",
    "0123456789",
    "123456789",
    "unknown",
    "invalid",
    "oem",
    "empty",
    "x",
    "..................",
];

fn dmi(root: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(root.join("sys/class/dmi/id").join(name)).ok()?;
    meaningful(&text)
}

fn device_tree_serial(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("proc/device-tree/serial-number")).ok()?;
    meaningful(text.trim_end_matches('\0'))
}

fn meaningful(text: &str) -> Option<String> {
    let text = text.trim();
    let filler = FILLERS.contains(&text.to_ascii_lowercase().as_str()) || text.contains(char::is_control);
    (!filler).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_url_is_filled_in() {
        let root = root(&[
            ("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8053-B4C04F4A4A32\n"),
            ("sys/class/dmi/id/product_serial", "AB/12 34?\n"),
            ("sys/class/dmi/id/chassis_asset_tag", "To Be Filled By O.E.M.\n"),
            ("proc/device-tree/serial-number", "10000000abcdef01\0"),
        ]);
        let variables = Variables::read(root.path(), "52:54:00:12:34:56".parse().ok(), Some("node7".into()));
        let check = |text: &str, filled: &str| assert_eq!(variables.fill(text).as_deref(), Ok(filled));
        check("http://h/${mac}.yaml", "http://h/52:54:00:12:34:56.yaml");
        check("http://h/${uuid}", "http://h/4c4c4544-0042-3510-8053-b4c04f4a4a32");
        check("http://h/${serial}/x", "http://h/AB%2F12%2034%3F/x");
        check("http://${hostname}/${dt_serial}", "http://node7/10000000abcdef01");
        check("http://h/a$b{c}", "http://h/a$b{c}");
        let refuse = |text: &str, message: &str| assert_eq!(variables.fill(text).unwrap_err().to_string(), message);
        refuse("http://h/${asset_tag}", "this machine has no asset_tag for ${asset_tag}");
        refuse("http://h/${MAC}", "${MAC} is no variable");
        refuse("http://h/${mac", "`${` is not closed in http://h/${mac");
        assert_eq!(variables.fill_plain("${serial}.yaml").as_deref(), Ok("AB_12 34?.yaml"));
    }

    #[test]
    fn vendors_fillers_identify_nothing() {
        for filler in ["To Be Filled By O.E.M.", "Default string", "0", " ", "None"] {
            let root = root(&[("sys/class/dmi/id/product_serial", filler)]);
            assert_eq!(machine(root.path()).serial, None, "{filler}");
        }
        for filler in ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "12-34"] {
            let root = root(&[("sys/class/dmi/id/product_uuid", filler)]);
            assert_eq!(machine(root.path()).uuid, None, "{filler}");
        }
    }

    #[test]
    fn the_machine_has_the_addresses_of_its_own_nics() {
        let root = root(&[
            ("sys/class/net/eth0/type", "1"),
            ("sys/class/net/eth0/ifindex", "2"),
            ("sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("sys/class/net/eth0/device/vendor", "0x1af4"),
            ("sys/class/net/br0/type", "1"),
            ("sys/class/net/br0/ifindex", "3"),
            ("sys/class/net/br0/address", "02:00:00:00:00:01\n"),
        ]);
        assert_eq!(machine(root.path()).macs, ["52:54:00:12:34:56"]);
    }
}
