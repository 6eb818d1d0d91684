//! Identity, installation, boot, users, files, commands and reports, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{
    AbsolutePath, EnvironmentName, FileMode, HostName, Later, OneOrMany, Owner, PackageName, SecretText, Span, UserName,
};

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The machine that this config is for; another machine refuses it.
    pub r#match: Option<MachineMatch>,
    /// May hold `${serial}`, `${uuid}`, `${mac}`, `${asset_tag}` and `${vars.NAME}`.
    pub hostname: Option<HostName>,
    /// Values for `${vars.NAME}`.
    #[serde(default)]
    pub vars: BTreeMap<EnvironmentName, String>,
}

/// All given keys must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineMatch {
    /// One of the machine's links has this address.
    pub mac: Option<String>,
    pub serial: Option<String>,
    pub uuid: Option<String>,
    pub asset_tag: Option<String>,
    pub dt_serial: Option<String>,
    pub lldp: Option<Later>,
}

/// What happens to the machine. An image that `castiron build` makes is no machine: for it nothing here has an effect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Install {
    /// `castiron.mode=` on the command line goes before it.
    pub mode: InstallMode,
    /// `castiron.confirm=auto` on the command line stands for the answer, whoever is to be asked.
    pub confirm: Confirm,
    /// Continue what a power cut interrupted.
    pub resume: bool,
    pub on_success: Ending,
    pub on_error: OnError,
    pub require_plan: Option<Later>,
    pub run_from: Option<Later>,
}

impl Default for Install {
    fn default() -> Self {
        Self {
            mode: InstallMode::default(),
            confirm: Confirm::default(),
            resume: true,
            on_success: Ending::Reboot,
            on_error: OnError::default(),
            require_plan: None,
            run_from: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstallMode {
    #[default]
    Install,
    /// Show and report the machine and the plan, write nothing, end as after a success.
    Inspect,
    /// Not in this version.
    Wipe,
    /// A shell on every console.
    Rescue,
    /// Go through all steps of the plan without carrying out any.
    Rehearse,
    /// Not in this version.
    Ramdisk,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// Nobody is asked, unless the config came from a removable medium: then as `console`, because whoever plugs a
    /// medium in need not be who owns the disks.
    #[default]
    Auto,
    /// Before the first write the consoles show what is going to be lost and ask for the word `yes`.
    Console,
    /// Not in this version.
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Reboot,
    Poweroff,
    Halt,
    Kexec,
    Shell,
    Wait,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnError {
    pub action: Ending,
    /// With `action: shell` or `wait`: reboot when nobody came.
    pub reboot_after: Option<Span>,
    pub ssh: Option<Later>,
}

impl Default for OnError {
    fn default() -> Self {
        Self { action: Ending::Shell, reboot_after: None, ssh: None }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub http: Option<String>,
    pub https: Option<String>,
    #[serde(default)]
    pub no_proxy: Vec<String>,
}

/// Time servers of the installation (SNTP, RFC 4330). `castiron build` asks for no time: there they have no effect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ntp {
    /// Asked in turn when no server of the command line or of DHCP has answered.
    pub servers: Vec<String>,
    pub nts: Option<Later>,
    /// How long the start of the installation waits for the time.
    pub boot_timeout: Span,
    /// Stop when no server answers.
    pub required: bool,
}

impl Default for Ntp {
    fn default() -> Self {
        Self { servers: Vec::new(), nts: None, boot_timeout: Span(std::time::Duration::from_secs(30)), required: false }
    }
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    pub loader: Loader,
    pub firmware: FirmwareChoice,
    pub kernel_arguments: KernelArguments,
    /// `tty0`, `"ttyS1,115200n8"`; the last one is `/dev/console`. The board's unless given.
    pub console: Vec<Console>,
    /// The package of the kernel, the board's unless given.
    pub kernel_package: Option<PackageName>,
    /// The packages of the boot loader, those of the distribution's data unless given.
    pub loader_packages: Option<Vec<PackageName>>,
    /// How long the loader's menu waits.
    pub timeout: Option<Span>,
    pub efi: Efi,
    pub secure_boot: Option<Later>,
    pub config_txt: Option<Later>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// What the firmware needs: GRUB.
    #[default]
    Auto,
    Grub,
    None,
    SystemdBoot,
    Uki,
    Extlinux,
    Rpi,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareChoice {
    /// That of the machine; both for an image.
    #[default]
    Auto,
    Uefi,
    Bios,
    Both,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KernelArguments {
    pub append: Vec<KernelArgument>,
    pub delete: Vec<KernelArgument>,
}

/// One argument of the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct KernelArgument(pub String);

/// A console of the kernel: a device and its settings.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Console(pub String);

impl std::str::FromStr for KernelArgument {
    type Err = super::de::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let odd = |c: char| c.is_control() || matches!(c, '"' | '\'' | '`' | '\\' | '$') || c.is_whitespace();
        if text.is_empty() || text.len() > 1024 || text.chars().any(odd) || !text.is_ascii() {
            return Err(super::de::Refusal {
                rule: "config.value",
                message: format!("`{}` is not one kernel argument", text.escape_debug()),
                hint: "one argument of at most 1024 ASCII characters, without blanks, quotes, `\\` and `$`".to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::str::FromStr for Console {
    type Err = super::de::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let device = text.split(',').next().unwrap_or_default();
        let letters = device.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",-_".contains(&byte));
        match letters && plain && text.len() <= 64 {
            true => Ok(Self(text.to_owned())),
            false => Err(super::de::Refusal {
                rule: "config.value",
                message: format!("`{}` is not a console", text.escape_debug()),
                hint: "write such as tty0 or \"ttyS1,115200n8\", in quotes because of the comma".to_owned(),
            }),
        }
    }
}

impl<'de> Deserialize<'de> for KernelArgument {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Console {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Efi {
    /// The name in the firmware's boot menu, `castiron` unless given.
    pub label: Option<String>,
    pub order: EfiOrder,
    pub commit: Option<Later>,
}

/// Where the new entry stands in the firmware's boot order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EfiOrder {
    #[default]
    DiskFirst,
    /// The order stays, the entry is the last.
    NetworkFirst,
    /// No entry; the removable path alone is used.
    Keep,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keyboard {
    /// An X11 layout such as `de`.
    pub layout: String,
    pub variant: Option<String>,
}

/// A user, in cloud-init's words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `root` may be given too, to set its keys or its password.
    pub name: UserName,
    pub gecos: Option<String>,
    pub uid: Option<u32>,
    pub primary_group: Option<UserName>,
    #[serde(default)]
    pub groups: Vec<UserName>,
    /// `/bin/bash` unless given.
    pub shell: Option<AbsolutePath>,
    /// `/home/NAME` unless given.
    pub home: Option<AbsolutePath>,
    /// Nobody can log in with a password; so unless a password is given.
    pub lock_passwd: Option<bool>,
    /// The hash of the password as crypt(5) writes it, `$y$…` or `$6$…`.
    #[serde(alias = "passwd")]
    pub hashed_passwd: Option<SecretText>,
    pub plain_text_passwd: Option<Later>,
    /// Rules for sudo, such as `ALL=(ALL) NOPASSWD:ALL`.
    #[serde(default)]
    pub sudo: OneOrMany,
    #[serde(default)]
    pub ssh_authorized_keys: Vec<SshKey>,
    #[serde(default)]
    pub system: bool,
}

/// One line of an `authorized_keys` file.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct SshKey(pub String);

impl<'de> Deserialize<'de> for SshKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text = text.trim();
        let words = text.split(' ').filter(|word| !word.is_empty());
        let key = words.skip_while(|word| !["ssh-", "ecdsa-", "sk-"].iter().any(|kind| word.starts_with(kind))).nth(1);
        let valid = key.is_some_and(|key| key.len() >= 16) && !text.chars().any(char::is_control);
        match valid {
            true => Ok(Self(text.to_owned())),
            false => Err(serde::de::Error::custom(super::de::Refusal {
                rule: "config.value",
                message: "this is not a public key of ssh".to_owned(),
                hint: "write one line as in `id_ed25519.pub`".to_owned(),
            })),
        }
    }
}

/// A file of the target.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    pub path: AbsolutePath,
    /// `"0644"` unless given.
    #[serde(alias = "permissions")]
    pub mode: Option<FileMode>,
    /// `root:root` unless given.
    pub owner: Option<Owner>,
    /// May hold `${vars.NAME}`.
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub encoding: Encoding,
    pub append: Option<Later>,
    pub source: Option<Later>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Text,
    #[serde(rename = "b64", alias = "base64")]
    Base64,
}

/// Who is told what happens, in curtin's words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reporter {
    pub r#type: ReporterType,
    /// Where a webhook's events are posted; may hold `${mac}`, `${uuid}`, `${serial}`, `${hostname}`.
    pub endpoint: Option<String>,
    /// Events below are not sent.
    #[serde(default)]
    pub level: ReportLevel,
    /// Where a syslog server listens for UDP: `HOST` or `HOST:PORT`, port 514 unless given (RFC 5426).
    pub server: Option<String>,
    /// What a webhook shows its server as a bearer token (RFC 6750), over https alone.
    pub token: Option<SecretText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReporterType {
    /// One POST request with curtin's JSON for each event.
    Webhook,
    /// The consoles, which always show everything.
    Print,
    /// One datagram for each event (RFC 5424).
    Syslog,
    /// Not in this version.
    Led,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReportLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Where the log is sent to at the end; may hold the variables of a reporter's endpoint.
    pub upload: Option<String>,
    /// All of them unless given.
    #[serde(default)]
    pub include: Vec<LogKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    Dmesg,
    Journal,
    Plan,
    Inventory,
}
