//! The kernel command line as a typed value.
//!
//! In: the text of `/proc/cmdline`. Out: [`Boot`] with everything the appliance obeys, and diagnostics. Splitting and
//! quoting follow the kernel's `next_arg` (`lib/cmdline.c`); network parameters keep dracut's text (`dracut.cmdline(7)`).
//! Invariant: no I/O. An unknown `castiron.*` name is a warning, a value that cannot be understood is an error, because
//! a misspelt `castiron.mode=inspect` must never install.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use castiron_engine::config::system::InstallMode as Mode;
use castiron_engine::diagnostic::{Diagnostic, Diagnostics};
use castiron_engine::units::Digest;

use crate::phases::Phase;

/// One word of the command line: `name` or `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub value: Option<String>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Reboot,
    PowerOff,
    Halt,
    Kexec,
    Shell,
    Wait,
}

/// Network parameters in dracut's syntax, unparsed, in the order they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkParameters {
    pub ip: Vec<String>,
    pub nameserver: Vec<String>,
    /// Boot interface as PXELINUX and iPXE hand it over: `01-52-54-00-12-34-56`.
    pub bootif: Option<String>,
    pub bond: Vec<String>,
    pub vlan: Vec<String>,
    /// `rd.route=`.
    pub route: Vec<String>,
    pub hostname: Option<String>,
}

/// Everything the command line says. Optional fields are `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boot {
    /// The whole command line, without the final newline.
    pub text: String,
    pub parameters: Vec<Parameter>,

    /// `castiron.config=`: URL, `label:NAME/path`, `fwcfg:`, `smbios:`, `nocloud` or `none`; variables not yet filled in.
    pub config: Option<String>,
    /// `castiron.config.inline=`: zstd and base64, asked last.
    pub config_inline: Option<String>,
    /// `castiron.config.early=`: zstd and base64, asked first.
    pub config_early: Option<String>,
    /// `castiron.config.device=`: a file system's label or device.
    pub config_device: Option<String>,
    /// `castiron.config.path=`: the file on that device.
    pub config_path: Option<String>,
    /// `castiron.config.hash=sha256-…`: only this document is accepted.
    pub config_hash: Option<Digest>,
    /// `castiron.key=`: fingerprints of envelope keys to trust.
    pub keys: Vec<String>,
    /// `castiron.trust=any`: an unsigned config is accepted.
    pub trust_any: bool,
    /// `castiron.ca=`: certificate authorities for https.
    pub ca: Vec<String>,
    pub proxy: Option<String>,
    pub ntp: Vec<String>,
    /// `castiron.mirror=`: package mirror for configs that name none.
    pub mirror: Option<String>,
    pub mode: Option<Mode>,
    /// `castiron.confirm=auto`: destruction needs no further word, wherever the config came from.
    pub confirm_auto: bool,

    /// Phases to stop before, with a shell.
    pub breaks: BTreeSet<Phase>,
    /// `castiron.debug`: debug messages on the consoles.
    pub debug: bool,
    pub on_success: Option<Ending>,
    pub on_error: Option<Ending>,
    /// `castiron.reboot_after=`: how long a failure stays on the screen before a reboot.
    pub reboot_after: Option<Duration>,
    /// `castiron.watchdog[=SECONDS]`: reset the machine when nothing advances for this long.
    pub watchdog: Option<Duration>,
    /// `castiron.modules=`: modules to load besides those the devices ask for.
    pub modules: Vec<String>,
    /// `modprobe.blacklist=`, `module_blacklist=`, `rd.driver.blacklist=`; names with `_`.
    pub module_blacklist: BTreeSet<String>,
    /// `MODULE.PARAMETER=VALUE` by module name with `_`; values ready for `finit_module(2)`.
    pub module_parameters: BTreeMap<String, Vec<String>>,
    /// Device names of `console=`, without options, last one first: that is `/dev/console`.
    pub consoles: Vec<String>,
    /// `loglevel=`, `debug` or `ignore_loglevel` was given: the kernel's own messages stay on the consoles as asked.
    pub loglevel_given: bool,
    pub network: NetworkParameters,

    /// Unknown names (warnings) and values that cannot be understood (errors).
    pub diagnostics: Diagnostics,
}

/// Every `castiron.*` name, for the warning about others.
const NAMES: &[&str] = &[
    "break",
    "ca",
    "config",
    "config.device",
    "config.early",
    "config.hash",
    "config.inline",
    "config.path",
    "confirm",
    "debug",
    "key",
    "mirror",
    "mode",
    "modules",
    "ntp",
    "on_error",
    "on_success",
    "proxy",
    "reboot_after",
    "shell",
    "trust",
    "watchdog",
];

const WATCHDOG_DEFAULT: Duration = Duration::from_secs(600);

/// Splits as the kernel does: blanks separate unless inside double quotes; quotes around a word or a value go away.
pub fn split(text: &str) -> Vec<Parameter> {
    let mut quoted = false;
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .split(|c: char| {
            quoted ^= c == '"';
            c.is_whitespace() && !quoted
        })
        .filter(|word| !word.is_empty())
        .map(parameter)
        .collect()
}

fn parameter(word: &str) -> Parameter {
    let word = match word.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => word,
    };
    match word.split_once('=') {
        None => Parameter { name: word.to_owned(), value: None },
        Some((name, value)) => {
            let value = match value.strip_prefix('"') {
                Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
                None => value,
            };
            Parameter { name: name.to_owned(), value: Some(value.to_owned()) }
        }
    }
}

impl Boot {
    pub fn parse(text: &str) -> Self {
        let mut boot = Self { text: text.trim().to_owned(), parameters: split(text), ..Self::default() };
        for parameter in boot.parameters.clone() {
            boot.take(&parameter);
        }
        boot.consoles.reverse();
        let mut seen = BTreeSet::new();
        boot.consoles.retain(|console| seen.insert(console.clone()));
        boot
    }

    fn take(&mut self, parameter: &Parameter) {
        let value = || parameter.value.clone().unwrap_or_default();
        if let Some(name) = parameter.name.strip_prefix("castiron.") {
            return self.take_own(&name.replace('-', "_"), parameter);
        }
        match parameter.name.as_str() {
            "ip" => self.network.ip.push(value()),
            "nameserver" => self.network.nameserver.push(value()),
            "BOOTIF" => self.network.bootif = Some(value()),
            "bond" => self.network.bond.push(value()),
            "vlan" => self.network.vlan.push(value()),
            "rd.route" => self.network.route.push(value()),
            "hostname" | "systemd.hostname" => self.network.hostname = Some(value()),
            "console" => self.consoles.push(value().split(',').next().unwrap_or_default().to_owned()),
            "loglevel" | "debug" | "ignore_loglevel" => self.loglevel_given = true,
            "modprobe.blacklist" | "module_blacklist" | "rd.driver.blacklist" => {
                self.module_blacklist.extend(list(&value()).map(|name| module_name(&name)));
            }
            name => {
                if let Some((module, option)) = name.split_once('.') {
                    let option = match &parameter.value {
                        None => option.to_owned(),
                        Some(value) if value.contains(char::is_whitespace) => format!("{option}=\"{value}\""),
                        Some(value) => format!("{option}={value}"),
                    };
                    self.module_parameters.entry(module_name(module)).or_default().push(option);
                }
            }
        }
    }

    fn take_own(&mut self, name: &str, parameter: &Parameter) {
        let text = parameter.value.clone().unwrap_or_default();
        match name {
            "config" => self.config = Some(text),
            "config.inline" => self.config_inline = Some(text),
            "config.early" => self.config_early = Some(text),
            "config.device" => self.config_device = Some(text),
            "config.path" => self.config_path = Some(text),
            "config.hash" => self.config_hash = self.value(parameter, "`sha256-` and 64 hexadecimal digits", digest),
            "key" => self.keys.extend(list(&text)),
            "trust" => self.trust_any |= self.value(parameter, "`any`", |text| word(text, "any")).is_some(),
            "ca" => self.ca.push(text),
            "proxy" => self.proxy = Some(text),
            "ntp" => self.ntp.extend(list(&text)),
            "mirror" => self.mirror = Some(text),
            "mode" => self.mode = self.value(parameter, &names(MODES), |text| find(MODES, text)),
            "confirm" => self.confirm_auto |= self.value(parameter, "`auto`", |text| word(text, "auto")).is_some(),
            "break" => {
                for phase in list(&text) {
                    let phase = Parameter { value: Some(phase), ..parameter.clone() };
                    let hint = Phase::ALL.map(|phase| phase.name()).join(", ");
                    let phase = self.value(&phase, &hint, |text| text.parse::<Phase>().ok());
                    self.breaks.extend(phase);
                }
            }
            "shell" => {
                self.breaks.insert(Phase::Modules);
            }
            "debug" => self.debug = true,
            "on_success" => self.on_success = self.value(parameter, &names(ENDINGS), |text| find(ENDINGS, text)),
            "on_error" => self.on_error = self.value(parameter, &names(ENDINGS), |text| find(ENDINGS, text)),
            "reboot_after" => self.reboot_after = self.value(parameter, "a time such as `30s` or `10m`", duration),
            "watchdog" if text.is_empty() => self.watchdog = Some(WATCHDOG_DEFAULT),
            "watchdog" => self.watchdog = self.value(parameter, "a time such as `30s` or `10m`", duration),
            "modules" => self.modules.extend(list(&text)),
            _ => self.diagnostics.push(unknown(name)),
        }
    }

    /// What `read` makes of the value, else an error that says what is expected.
    fn value<T>(&mut self, parameter: &Parameter, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = parameter.value.as_deref().unwrap_or_default();
        let value = read(text);
        if value.is_none() {
            let message = format!("`{}` cannot be `{text}`", parameter.name);
            self.diagnostics.push(Diagnostic::error("cmdline.value", message).hint(format!("write {expected}")));
        }
        value
    }
}

fn unknown(name: &str) -> Diagnostic {
    let diagnostic = Diagnostic::warning("cmdline.unknown", format!("`castiron.{name}` is not a known parameter"));
    let nearest = NAMES.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 1 + known.len() / 4 => {
            diagnostic.hint(format!("did you mean `castiron.{known}`?"))
        }
        _ => diagnostic.hint(format!("known are castiron.{}", NAMES.join(", castiron."))),
    }
}

/// Module names are written with `-` or `_`; this is the one used inside.
pub fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

fn list(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned)
}

fn word(text: &str, wanted: &str) -> Option<()> {
    (text == wanted).then_some(())
}

fn digest(text: &str) -> Option<Digest> {
    text.starts_with("sha256-").then(|| text.parse().ok()).flatten()
}

/// `90`, `90s`, `30m` or `2h`; a bare number counts seconds.
fn duration(text: &str) -> Option<Duration> {
    let (number, seconds) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

const MODES: &[(&str, Mode)] = &[
    ("install", Mode::Install),
    ("inspect", Mode::Inspect),
    ("wipe", Mode::Wipe),
    ("rescue", Mode::Rescue),
    ("rehearse", Mode::Rehearse),
    ("ramdisk", Mode::Ramdisk),
];

const ENDINGS: &[(&str, Ending)] = &[
    ("reboot", Ending::Reboot),
    ("poweroff", Ending::PowerOff),
    ("halt", Ending::Halt),
    ("kexec", Ending::Kexec),
    ("shell", Ending::Shell),
    ("wait", Ending::Wait),
];

fn names<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn find<T: Copy>(table: &[(&str, T)], text: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(String, Option<String>)> {
        split(text).into_iter().map(|parameter| (parameter.name, parameter.value)).collect()
    }

    #[test]
    fn quotes_are_the_kernels() {
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        for (text, expected) in [
            ("a=1 b", vec![pair("a", "1"), ("b".to_owned(), None)]),
            ("a=\"x y\" b=2\n", vec![pair("a", "x y"), pair("b", "2")]),
            ("\"a=x y\"", vec![pair("a", "x y")]),
            ("a=x\"y z\"", vec![pair("a", "x\"y z\"")]),
            ("a=\"open end", vec![pair("a", "open end")]),
            ("a==b=c", vec![pair("a", "=b=c")]),
            ("  \t ", vec![]),
            ("\"", vec![(String::new(), None)]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn every_parameter_arrives() {
        let digest = Digest::of(b"x");
        let boot = Boot::parse(&format!(
            "BOOT_IMAGE=/vmlinuz console=tty0 console=ttyS1,115200n8 ip=dhcp ip=192.0.2.1::192.0.2.254:24:n:eth0:none \
             nameserver=192.0.2.53 BOOTIF=01-52-54-00-12-34-56 castiron.config=http://h/${{mac}}.yaml \
             castiron.config.hash={digest} castiron.key=a,b castiron.trust=any castiron.mode=inspect \
             castiron.break=network,boot-loader castiron.on-success=poweroff castiron.on_error=wait \
             castiron.reboot_after=5m castiron.watchdog e1000e.debug=16 modprobe.blacklist=snd-hda-intel,pcspkr"
        ));
        assert!(boot.diagnostics.0.is_empty(), "{}", boot.diagnostics);
        assert_eq!(boot.consoles, ["ttyS1", "tty0"]);
        assert_eq!(boot.network.ip, ["dhcp", "192.0.2.1::192.0.2.254:24:n:eth0:none"]);
        assert_eq!(boot.network.nameserver, ["192.0.2.53"]);
        assert_eq!(boot.network.bootif.as_deref(), Some("01-52-54-00-12-34-56"));
        assert_eq!(boot.config.as_deref(), Some("http://h/${mac}.yaml"));
        assert_eq!(boot.config_hash, Some(digest));
        assert_eq!(boot.keys, ["a", "b"]);
        assert!(boot.trust_any && !boot.confirm_auto);
        assert_eq!(boot.mode, Some(Mode::Inspect));
        assert_eq!(boot.breaks, [Phase::Network, Phase::BootLoader].into());
        assert_eq!((boot.on_success, boot.on_error), (Some(Ending::PowerOff), Some(Ending::Wait)));
        assert_eq!(boot.reboot_after, Some(Duration::from_secs(300)));
        assert_eq!(boot.watchdog, Some(WATCHDOG_DEFAULT));
        assert_eq!(boot.module_parameters["e1000e"], ["debug=16"]);
        assert!(boot.module_blacklist.contains("snd_hda_intel"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (
                "castiron.trsut=any",
                "warning: `castiron.trsut` is not a known parameter [cmdline.unknown]\n  hint: did you mean `castiron.trust`?",
            ),
            (
                "castiron.mode=isntall",
                "error: `castiron.mode` cannot be `isntall` [cmdline.value]\n  hint: write install, inspect, wipe, rescue, rehearse, ramdisk",
            ),
            ("castiron.trust=all", "error: `castiron.trust` cannot be `all` [cmdline.value]\n  hint: write `any`"),
            (
                "castiron.config.hash=abc",
                "error: `castiron.config.hash` cannot be `abc` [cmdline.value]\n  hint: write `sha256-` and 64 hexadecimal digits",
            ),
            (
                "castiron.reboot_after=soon",
                "error: `castiron.reboot_after` cannot be `soon` [cmdline.value]\n  hint: write a time such as `30s` or `10m`",
            ),
        ] {
            assert_eq!(Boot::parse(text).diagnostics.to_string(), expected);
        }
        assert!(!Boot::parse("castiron.trust=all").trust_any);
        let stranger = Boot::parse("castiron.xyzzy=1").diagnostics.to_string();
        assert!(stranger.contains("hint: known are castiron.break, "), "{stranger}");
    }

    #[test]
    fn parameters_of_modules_keep_their_blanks() {
        let boot = Boot::parse("dyndbg=x mod-a.dyndbg=\"file x +p\" mod_a.flag");
        assert_eq!(boot.module_parameters["mod_a"], ["dyndbg=\"file x +p\"", "flag"]);
    }
}
