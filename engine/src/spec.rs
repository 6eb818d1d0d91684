//! What shall be: every default filled in, every identity chosen, every size in bytes.
//!
//! In: nothing; these are plain types that [`crate::resolve`] fills. Out: what the planners read.
//! Invariant: a `Spec` holds no choice that is still open; two equal specs give equal plans.

use camino::Utf8PathBuf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::block::BlockGraph;
use crate::debian::PackageSet;
use crate::units::Mode;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Names everything that is chosen rather than discovered: machine identity and config digest.
    pub seed: Uuid,
    /// The distribution's name for the architecture, such as `amd64`.
    pub architecture: String,
    pub graph: BlockGraph,
    /// What the archive was asked for and gave; none where nothing is installed.
    pub packages: Option<PackageSet>,
    pub system: SystemSpec,
    pub boot: BootSpec,
    pub commands: CommandsSpec,
    pub on_success: Ending,
}

/// What the firmware of the target can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    Bios,
    Uefi,
}

/// What happens to the machine when the work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    #[default]
    Reboot,
    Poweroff,
    Halt,
    Kexec,
    Shell,
    Wait,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemSpec {
    pub hostname: Option<String>,
    /// As in `/usr/share/i18n/SUPPORTED`, such as `en_US.UTF-8`.
    pub locale: Option<String>,
    /// A name of the IANA time zone database.
    pub timezone: Option<String>,
    pub users: Vec<UserSpec>,
    /// Written in this order, after the packages are configured.
    pub files: Vec<FileSpec>,
    /// Lines of `/etc/apt/sources.list.d/castiron.sources`, deb822 style.
    pub apt_sources: Option<String>,
    /// `package question type value` lines for debconf, known before the packages are configured.
    pub debconf: Vec<String>,
}

/// A user in the words of cloud-init.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserSpec {
    pub name: String,
    pub uid: Option<u32>,
    pub gecos: Option<String>,
    pub home: Option<Utf8PathBuf>,
    pub shell: Option<String>,
    pub groups: Vec<String>,
    pub system: bool,
    /// Locked unless a hash is given and this is false.
    pub lock_passwd: bool,
    /// Refers to a `crypt(5)` hash that the door knows; the plan never holds it.
    pub hashed_passwd: Option<SecretRef>,
    pub ssh_authorized_keys: Vec<String>,
    /// Lines for `/etc/sudoers.d`, such as `ALL=(ALL) NOPASSWD:ALL`.
    pub sudo: Vec<String>,
}

/// The name of a secret in [`Secrets`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretRef(pub String);

/// What [`SecretRef`]s stand for. Never serialised, never in a plan.
pub type Secrets = std::collections::BTreeMap<SecretRef, crate::units::Secret>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute, in the target.
    pub path: Utf8PathBuf,
    pub mode: Mode,
    /// Names of the target's own `/etc/passwd` and `/etc/group`.
    pub user: String,
    pub group: String,
    pub content: Content,
    pub append: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    Text(String),
    Base64(String),
    Secret(SecretRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    Grub,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootSpec {
    pub loader: Loader,
    /// Every kind of firmware that shall be able to start the result.
    pub firmware: Vec<Firmware>,
    pub kernel_arguments: Vec<String>,
    /// `console=` values, the last one being the one that `/dev/console` means.
    pub consoles: Vec<String>,
    pub timeout_seconds: u32,
    /// The name of the menu entries, such as `Debian GNU/Linux 12`.
    pub title: String,
    /// The folder below `EFI/` that the distribution's own updates of the loader use.
    pub vendor: String,
    /// The name of the boot entry in the firmware's memory; none leaves that memory alone.
    pub efi_label: Option<String>,
}

/// A list is executed as it is, a text goes to `sh -c` (autoinstall's rule).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandSpec {
    Exec(Vec<String>),
    Shell(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandsSpec {
    /// In the installer, before storage is touched.
    pub early: Vec<CommandSpec>,
    /// In the target, when everything is provisioned.
    pub in_target: Vec<CommandSpec>,
    /// In the installer, with `TARGET_ROOT`, after those.
    pub late: Vec<CommandSpec>,
    /// In the installer, after a failure.
    #[serde(default)]
    pub on_error: Vec<CommandSpec>,
}
