//! castiron's bootstrap and the two it is measured against, as commands that make the same system.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::host::{self, Failure, Result, Subject};

/// The suite this machine itself runs, whose archive its apt sources surely have.
pub fn host_suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").on("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.map(|name| name.trim_matches('"').to_owned());
    name.ok_or_else(|| Failure::new("/etc/os-release names no VERSION_CODENAME"))
}

pub fn castiron(suite: &str, mirror: &str, root: &Path) -> Result<Command> {
    let mut command = Command::new(host::program("castiron")?);
    command.args(["bootstrap", "--suite", suite, "--variant", "minbase", "--mirror", mirror]).arg(root);
    Ok(command)
}

pub fn mmdebstrap(suite: &str, mirror: &str, root: &Path) -> Command {
    // Without this it installs usrmerge, and perl with it, where the others take the empty usr-is-merged.
    let pin = "mkdir -p \"$1/etc/apt/preferences.d\"; printf 'Package: usrmerge\\nPin: release *\\nPin-Priority: -1\\n' \
               >\"$1/etc/apt/preferences.d/rival\"";
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--mode=root"]);
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr").arg(format!("--setup-hook={pin}"));
    command.arg("--customize-hook=rm \"$1/etc/apt/preferences.d/rival\"");
    command.arg(suite).arg(root).arg(mirror);
    command
}

pub fn debootstrap(suite: &str, mirror: &str, root: &Path) -> Command {
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", suite]).arg(root).arg(mirror);
    command
}

/// The packages that debootstrap would install. It knows no variant `standard`; `important` is its default.
pub fn debootstrap_names(suite: &str, mirror: &str, variant: &str, root: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new("debootstrap");
    command.args((variant != "important").then(|| format!("--variant={variant}")));
    let said = host::run(command.args(["--print-debs", suite]).arg(root).arg(mirror))?;
    Ok(String::from_utf8_lossy(&said.stdout).split_whitespace().map(str::to_owned).collect())
}

/// The packages that mmdebstrap would install, without usrmerge as above: no hook runs when it only simulates.
pub fn mmdebstrap_names(suite: &str, mirror: &str, variant: &str, root: &Path) -> Result<BTreeSet<String>> {
    let pin = root.with_extension("preferences");
    std::fs::write(&pin, "Package: usrmerge\nPin: release *\nPin-Priority: -1\n").on(pin.display())?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--verbose", "--simulate", "--mode=root"]).arg(format!("--variant={variant}"));
    command.arg(format!("--aptopt=Dir::Etc::Preferences \"{}\"", pin.display()));
    let said = host::run(command.arg(suite).arg(root).arg(mirror))?;
    let text = [said.stdout, said.stderr].concat();
    let lines = String::from_utf8_lossy(&text).into_owned();
    let named = lines.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    Ok(named.map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect())
}
