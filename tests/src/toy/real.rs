//! Packages of the real archive, and what the toy keeps of them.
//!
//! A toy system needs a real dpkg, a real GRUB and a real kernel, but neither their documentation nor their
//! maintainer scripts. The packages come by the host's own apt and are kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::package::Package;
use super::tar::Tree;
use crate::host::{self, Failure, Result, Subject, run};

/// The packages' `.deb` files as the host's apt knows them, from the cache where they are there, in the same order.
pub fn fetch(packages: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = host::cache("debs")?;
    let all = |names: &[String]| names.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
    if let Ok(names) = planned(packages) {
        let download = || run(apt(&["download", "-qq"], packages).current_dir(&folder));
        if all(&names).iter().all(|path| path.exists()) || download().is_ok() {
            return Ok(all(&names));
        }
    }
    // A fresh machine has no lists yet, an old one has lists of versions that are gone.
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(apt(&["download", "-qq"], packages).current_dir(&folder))?;
    Ok(all(&planned(packages)?))
}

fn apt(arguments: &[&str], packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "APT::Sandbox::User=root"]).args(arguments).args(packages);
    command
}

/// The file names that `apt-get download` would give.
fn planned(packages: &[&str]) -> Result<Vec<String>> {
    let output = run(&mut apt(&["download", "--print-uris"], packages))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter(|line| line.starts_with('\'')).filter_map(|line| line.split_whitespace().nth(1));
    let names: Vec<&str> = names.collect();
    let name_of = |package: &&str| {
        let file = names.iter().find(|name| name.starts_with(&format!("{package}_")));
        file.map(|name| (*name).to_owned()).ok_or_else(|| Failure(format!("apt knows no {package}")))
    };
    packages.iter().map(name_of).collect()
}

/// The package that `package` stands for, such as the kernel behind a metapackage.
pub fn behind(package: &str) -> Result<String> {
    let ask = || host::tool("apt-cache", ["depends", package]);
    let text = match ask() {
        Ok(text) => text,
        Err(_) => {
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            ask()?
        }
    };
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    line.map(str::to_owned).ok_or_else(|| Failure(format!("{package} depends on nothing")))
}

/// A real package unpacked on this host, gone with the value.
pub struct Unpacked(tempfile::TempDir, PathBuf);

impl Unpacked {
    pub fn new(deb: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().on("a folder to unpack in")?;
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(folder.path()))?;
        Ok(Self(folder, deb.to_owned()))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn field(&self, name: &str) -> Result<String> {
        let output = run(Command::new("dpkg-deb").arg("-f").arg(&self.1).arg(name))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same package with the files that `keep` wants and without scripts. Of its dependencies those stay that
    /// are in `suite`.
    pub fn trimmed(&self, suite: &[&str], keep: impl Fn(&str) -> bool) -> Result<Package> {
        let mut package = Package::new(&self.field("Package")?);
        package.version = self.field("Version")?;
        package.tree = Tree::read(self.path(), keep)?;
        if package.tree.0.is_empty() {
            return Err(Failure(format!("nothing of {} is kept", package.name)));
        }
        for field in ["Pre-Depends", "Depends"] {
            let value = self.field(field)?;
            let known = value.split(',').filter(|relation| {
                let name = relation.trim().split([' ', '(', ':', '|']).next().unwrap_or_default();
                suite.contains(&name)
            });
            let known: Vec<&str> = known.map(str::trim).collect();
            if !known.is_empty() {
                package = package.field(field, &known.join(", "));
            }
        }
        for field in ["Essential", "Multi-Arch", "Priority", "Section"] {
            let value = self.field(field)?;
            if !value.is_empty() {
                package = package.field(field, &value);
            }
        }
        Ok(package)
    }
}
