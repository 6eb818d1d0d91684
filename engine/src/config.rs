//! The config as written: YAML text in, [`Config`] out, or every mistake with its place and a hint.
//!
//! A config is read in three steps: [`tree`] makes YAML a tree with places, [`de`] makes the tree the types
//! below, [`values`] checks single values on the way. What concerns several values, or the machine, is
//! checked by [`crate::resolve`]. The JSON Schema is generated from the same types by [`schema`].
//!
//! Invariant: no file, clock or environment is looked at; unknown keys are mistakes.

pub mod network;
pub mod source;
pub mod storage;
pub mod system;
pub mod values;
pub mod variables;

pub mod de;
pub mod scalar;
pub mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostics, Place};

use network::Network;
use source::Source;
use storage::Storage;
use system::{Boot, Identity, Install, Keyboard, Logs, Ntp, Proxy, Reporter, User, WriteFile};
use values::{Command, EnvironmentName, Later, PackageName, Version};

/// A machine's or an image's description. The shortest one is `castiron: 1` and a `source`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "castiron config")]
pub struct Config {
    /// The schema's version.
    pub castiron: Version,
    #[serde(default)]
    pub identity: Identity,
    #[serde(default)]
    pub install: Install,
    /// The target's network. Without it: DHCP and router advertisements on every wired link.
    pub network: Option<Network>,
    #[serde(default)]
    pub proxy: Proxy,
    #[serde(default)]
    pub ntp: Ntp,
    pub source: Source,
    pub storage: Option<Storage>,
    #[serde(default)]
    pub boot: Boot,
    /// `C.UTF-8` unless given.
    pub locale: Option<String>,
    /// `Etc/UTC` unless given.
    pub timezone: Option<String>,
    pub keyboard: Option<Keyboard>,
    #[serde(default)]
    pub users: Vec<User>,
    #[serde(default)]
    pub write_files: Vec<WriteFile>,
    /// Packages beyond those of the variant.
    #[serde(default)]
    pub packages: Vec<PackageName>,
    /// Run in the installer before the storage is touched.
    #[serde(default)]
    pub early_commands: Vec<Command>,
    /// Run in the target after its packages are configured.
    #[serde(default)]
    pub in_target: Vec<Command>,
    /// Run in the installer after that, with the target below `$TARGET_ROOT`.
    #[serde(default)]
    pub late_commands: Vec<Command>,
    /// Run in the installer after a failure, each whatever became of the others. The target is not mounted any more;
    /// what castiron printed is in the kernel's log (`dmesg`). They run too when `castiron build` fails.
    #[serde(default)]
    pub error_commands: Vec<Command>,
    #[serde(default)]
    pub reporting: BTreeMap<EnvironmentName, Reporter>,
    #[serde(default)]
    pub logs: Logs,

    pub envelope: Option<Later>,
    pub trust: Option<Later>,
    pub cloud_init: Option<Later>,
    pub health: Option<Later>,
    pub burnin: Option<Later>,
    pub receipt: Option<Later>,
    pub erase: Option<Later>,
    pub after_image: Option<Later>,

    /// Where each value was written.
    #[serde(skip)]
    pub places: Places,
}

/// The places of a config's values by their path such as `storage.layout[2].disk.name`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: String,
    places: BTreeMap<String, (u32, u32)>,
}

impl Places {
    /// The place of a value, or of what it should stand in if it was left out.
    pub fn of(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some((line, column)) = self.places.get(path) {
                return Some(Place { file: self.file.clone(), line: *line, column: *column });
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    fn note(&mut self, node: &tree::Node, path: &str) {
        self.places.insert(path.to_owned(), (node.line, node.column));
        match &node.value {
            tree::Value::Scalar { .. } => {}
            tree::Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(item, &format!("{path}[{index}]"));
                }
            }
            tree::Value::Mapping(entries) => {
                for entry in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.note(&entry.value, &format!("{path}{dot}{}", entry.key));
                }
            }
        }
    }
}

/// Reads a config; `file` is the name shown in diagnostics.
pub fn parse(bytes: &[u8], file: &str) -> Result<Config, Diagnostics> {
    let root = tree::parse(bytes, file)?;
    let mut config: Config = de::read(&root, file)?;
    config.places.file = file.to_owned();
    config.places.note(&root, "");
    Ok(config)
}

/// The JSON Schema (2020-12) of a config, with a line break at the end.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Config);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
