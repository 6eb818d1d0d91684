//! Where the operating system comes from, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{Later, PackageName};
use crate::units::Digest;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub bootstrap: Option<Bootstrap>,
    pub image: Option<Later>,
    pub oci: Option<Later>,
    pub archive: Option<Later>,
    pub elements: Option<Later>,
    pub elements_path: Option<Later>,
    pub environment: Option<Later>,
}

/// A system made of the packages of an archive.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    #[serde(default)]
    pub r#type: BootstrapType,
    /// The name of a distribution that castiron has data for; `debian` unless given.
    #[serde(default = "debian")]
    pub distribution: String,
    /// The suite or its code name, such as `trixie`.
    pub release: String,
    /// Debian's name of the architecture, that of the machine unless given.
    pub architecture: Option<String>,
    #[serde(default)]
    pub variant: Variant,
    /// Tried in this order. Without any: those of the command line, else those that the appliance was built
    /// with or that the build host itself uses.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    pub snapshot: Option<Later>,
    /// The keys that may sign the archive's indices; the distribution's own unless given.
    pub keyring: Option<Resource>,
    /// Packages that make the tree a bootable system, instead of those that the distribution's data names.
    pub base_packages: Option<Vec<PackageName>>,
}

fn debian() -> String {
    "debian".to_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootstrapType {
    #[default]
    Debootstrap,
}

/// Which packages a system starts from, in debootstrap's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Essential packages and apt.
    #[default]
    Minbase,
    /// And what building packages needs.
    Buildd,
    /// And all of priority `required` and `important`.
    Important,
    /// And all of priority `standard`.
    Standard,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// `http://…`, `https://…` or `file:///…`, up to the directory that holds `dists`.
    pub uri: String,
    /// The release unless given. Updates and security fixes are suites too: `trixie-updates`, `trixie-security`.
    #[serde(default)]
    pub suites: Vec<String>,
    #[serde(default = "main_only")]
    pub components: Vec<String>,
    /// What the target's apt shall use instead of `uri`.
    pub target_uri: Option<String>,
}

fn main_only() -> Vec<String> {
    vec!["main".to_owned()]
}

/// Bytes from elsewhere, in Ignition's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// `https://…`, `http://…`, `file:///…` or `data:,…`
    pub source: String,
    pub verification: Option<Verification>,
    pub compression: Option<Later>,
    pub http_headers: Option<Later>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// `sha256-` and 64 hexadecimal digits.
    pub hash: Digest,
}
