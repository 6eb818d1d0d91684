//! Unpacked packages made to work: preinst scripts, then the target's own dpkg.
//!
//! In: a root as [`unpack`](super::unpack) left it. Out: every package `install ok installed`.
//! Invariant: no service of the target starts, and nothing that runs outlives this.

use std::io;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::chroot::{CommandError, InTarget, ServicesBlocked};
use super::unpack::{self, Unpacked};

#[derive(Debug, Error)]
pub enum ConfigureError {
    #[error("cannot prepare {root} for its packages' scripts")]
    Prepare {
        root: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the preinst script of a package failed")]
    Preinst(#[source] CommandError),
    #[error("packages that divert files could not be unpacked")]
    Postponed(#[source] CommandError),
    #[error("not every package could be configured")]
    Configure(#[source] CommandError),
}

impl ConfigureError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "target.write",
            Self::Preinst(_) => "packages.preinst",
            Self::Postponed(_) => "packages.divert",
            Self::Configure(_) => "packages.configure",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ConfigureOptions {
    /// Added to every script's environment, such as `INITRD=No` to put initramfs generation off.
    pub env: Vec<(String, String)>,
}

/// Runs what a real installation would have run. `on_line` gets every line of output.
pub fn configure(
    root: &Utf8Path,
    packages: &[Unpacked],
    options: &ConfigureOptions,
    on_line: &mut dyn FnMut(&str),
) -> Result<Duration, ConfigureError> {
    let started = Instant::now();
    let prepare = |source| ConfigureError::Prepare { root: root.to_owned(), source };
    let blocked = ServicesBlocked::in_target(root).map_err(prepare)?;
    let awk = FirstAwk::link(root).map_err(prepare)?;
    let base = InTarget { env: options.env.clone(), block_daemons: true, suppress_sync: true, ..InTarget::new(root) };
    let script = preinst_script(packages);
    if !script.is_empty() {
        let run = InTarget { stdin: Some(script.as_bytes()), ..base.clone() };
        run.run(&["sh", "-e"], on_line).map_err(ConfigureError::Preinst)?;
    }
    let postponed: Vec<String> = packages
        .iter()
        .filter(|package| package.postponed)
        .map(|package| format!("/{}/{}_{}.deb", unpack::POSTPONED, package.name, package.architecture))
        .collect();
    if !postponed.is_empty() {
        let argv =
            [&DPKG[..], &["--force-depends", "--unpack"], &postponed.iter().map(String::as_str).collect::<Vec<_>>()]
                .concat();
        base.run(&argv, on_line).map_err(ConfigureError::Postponed)?;
        std::fs::remove_dir_all(root.join(unpack::POSTPONED)).map_err(prepare)?;
    }
    drop(awk);
    base.run(&[&DPKG[..], &["--configure", "-a"]].concat(), on_line).map_err(ConfigureError::Configure)?;
    drop(blocked);
    Ok(started.elapsed())
}

const DPKG: [&str; 3] = ["dpkg", "--force-unsafe-io", "--force-confold"];

/// The preinst scripts in order, each with the environment that dpkg gives it (deb-preinst(5), dpkg(1)).
fn preinst_script(packages: &[Unpacked]) -> String {
    let version = packages.iter().find(|package| package.name == "dpkg").map_or("", |package| &package.version);
    unpack::ordered(packages)
        .into_iter()
        .filter(|package| !package.postponed && package.control.get("preinst").is_some())
        .map(|package| {
            format!(
                "DPKG_MAINTSCRIPT_PACKAGE='{name}' DPKG_MAINTSCRIPT_ARCH='{arch}' DPKG_MAINTSCRIPT_NAME=preinst \
                 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0 DPKG_RUNNING_VERSION='{version}' DPKG_ROOT= \
                 DPKG_ADMINDIR=/var/lib/dpkg DEBCONF_PACKAGE='{name}' PERL_DL_NONLAZY=1 /var/lib/dpkg/info/{info}.preinst install </dev/null \
                 || {{ echo 'preinst of {name} failed'; exit 1; }}\n",
                name = package.name,
                arch = package.architecture,
                info = package.info_name,
            )
        })
        .collect()
}

/// `awk` is a link that a postinst makes, but the first scripts call it: a link until that one runs.
struct FirstAwk {
    link: Option<Utf8PathBuf>,
}

impl FirstAwk {
    fn link(root: &Utf8Path) -> io::Result<Self> {
        let link = root.join("usr/bin/awk");
        let absent = link.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let found = ["mawk", "gawk", "original-awk"].into_iter().find(|name| root.join("usr/bin").join(name).is_file());
        match found.filter(|_| absent) {
            Some(name) => {
                std::os::unix::fs::symlink(name, &link)?;
                Ok(Self { link: Some(link) })
            }
            None => Ok(Self { link: None }),
        }
    }
}

impl Drop for FirstAwk {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link);
        }
    }
}
