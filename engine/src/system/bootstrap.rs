//! A system from packages: unpack, the few files no package brings, configure.
//!
//! In: a [`PackageSet`] (so that everything was decided and verified before), a root directory.
//! Out: a configured system; events tell how far it is.

use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::configure::{self, ConfigureError, ConfigureOptions};
use super::unpack::{self, UnpackError, UnpackOptions, UnpackStats};
use crate::debian::{APT_KEYS, APT_SOURCES, PackageSet};
use crate::event::{Event, EventResult, EventSink, Progress, Unit};
use crate::fetch::Fetcher;

#[derive(Clone, Debug, Default)]
pub struct BootstrapOptions {
    pub unpack: UnpackOptions,
    pub configure: ConfigureOptions,
    /// The archives of the target's apt, deb822 style; none leaves them, and the keys, to the plan.
    pub apt_sources: Option<String>,
}

#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    #[error("cannot write {path}")]
    Write {
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl BootstrapError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unpack(error) => error.rule(),
            Self::Configure(error) => error.rule(),
            Self::Write { .. } => "target.write",
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unpack(error) => error.hint(),
            Self::Configure(_) | Self::Write { .. } => None,
        }
    }
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootstrapStats {
    pub unpack: UnpackStats,
    pub scripts: Duration,
}

/// Makes a system of `set` below `root`, which exists and holds at most mount points.
pub fn bootstrap(
    set: &PackageSet,
    fetcher: &Fetcher,
    root: &Utf8Path,
    options: &BootstrapOptions,
    events: &mut dyn EventSink,
) -> Result<BootstrapStats, BootstrapError> {
    let title = format!("unpack {} packages ({})", set.packages.len(), set.download_size());
    let (packages, unpack) = stage(events, "bootstrap/unpack", &title, |note| {
        Ok(unpack::unpack(set, fetcher, root, &options.unpack, &mut |progress| note("", Some(progress)))?)
    })?;
    first_files(set, root, options)?;
    let title = format!("configure {} packages", packages.len());
    let scripts = stage(events, "bootstrap/configure", &title, |note| {
        let mut set_up = 0;
        let total = Some(packages.len() as u64);
        Ok(configure::configure(root, &packages, &options.configure, &mut |line| {
            tracing::debug!(target: "castiron::script", "{line}");
            if let Some(name) = line.strip_prefix("Setting up ") {
                set_up += 1;
                note(name.trim_end_matches(" ..."), Some(Progress { done: set_up, total, unit: Unit::Packages }));
            }
        })?)
    })?;
    Ok(BootstrapStats { unpack, scripts })
}

/// Tells the start, the progress and the end of `work`.
fn stage<T>(
    events: &mut dyn EventSink,
    name: &str,
    title: &str,
    work: impl FnOnce(&mut dyn FnMut(&str, Option<Progress>)) -> Result<T, BootstrapError>,
) -> Result<T, BootstrapError> {
    events.emit(&Event::start(name, title));
    let result = work(&mut |what, progress| {
        if let Some(progress) = progress {
            events.emit(&Event::progress(name, what, progress));
        }
    });
    let ending = if result.is_ok() { EventResult::Success } else { EventResult::Fail };
    events.emit(&Event::finish(name, title, ending));
    result
}

/// Device nodes that a `/dev` without devtmpfs needs, as debootstrap makes them: path, mode, major, minor.
const NODES: &[(&str, u32, u32, u32)] = &[
    ("dev/null", 0o666, 1, 3),
    ("dev/zero", 0o666, 1, 5),
    ("dev/full", 0o666, 1, 7),
    ("dev/random", 0o666, 1, 8),
    ("dev/urandom", 0o666, 1, 9),
    ("dev/tty", 0o666, 5, 0),
    ("dev/console", 0o666, 5, 1),
    ("dev/ptmx", 0o666, 5, 2),
];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

const FSTAB: &str = "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n";
/// apt reads both files.
const SOURCES_LIST: &str = "# See sources.list.d/castiron.sources.\n";

/// What every system has and no package brings.
pub(super) fn first_files(set: &PackageSet, root: &Utf8Path, options: &BootstrapOptions) -> Result<(), BootstrapError> {
    let failed = |path: &str| {
        let path = root.join(path);
        move |source| BootstrapError::Write { path, source }
    };
    for (path, content) in [("etc/fstab", FSTAB), ("etc/apt/sources.list", SOURCES_LIST)] {
        let place = root.join(path);
        if !place.exists() && place.parent().is_some_and(Utf8Path::is_dir) {
            std::fs::write(&place, content).map_err(failed(path))?;
        }
    }
    // A set without apt has no use for these.
    if let Some(sources) = options.apt_sources.as_ref().filter(|_| root.join("etc/apt").is_dir()) {
        for (path, content) in [(APT_SOURCES, Some(sources)), (APT_KEYS, set.apt_keys.as_ref())] {
            let (Some(content), path) = (content, path.trim_start_matches('/')) else { continue };
            let place = root.join(path);
            let folder = place.parent().map_or(Ok(()), std::fs::create_dir_all);
            folder.and_then(|()| std::fs::write(&place, content)).map_err(failed(path))?;
        }
    }
    // A set without the base brings no /dev.
    if !root.join("dev").is_dir() {
        return Ok(());
    }
    for (path, mode, major, minor) in NODES {
        let place = root.join(path);
        if place.symlink_metadata().is_ok_and(|found| found.file_type().is_char_device()) {
            continue;
        }
        let device = rustix::fs::makedev(*major, *minor);
        let mode = rustix::fs::Mode::from_raw_mode(*mode);
        let made =
            rustix::fs::mknodat(rustix::fs::CWD, place.as_str(), rustix::fs::FileType::CharacterDevice, mode, device)
                .and_then(|()| {
                    rustix::fs::chmodat(rustix::fs::CWD, place.as_str(), mode, rustix::fs::AtFlags::empty())
                });
        made.map_err(|error| failed(path)(error.into()))?;
    }
    for directory in ["dev/pts", "dev/shm"] {
        std::fs::create_dir_all(root.join(directory)).map_err(failed(directory))?;
    }
    for (target, path) in LINKS {
        match symlink(target, root.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Origin;

    #[test]
    fn apt_of_the_target_knows_its_archive_and_the_keys_of_it() {
        let origin = Origin {
            mirrors: vec!["http://a.example.org/debian".to_owned(), "http://b.example.org".to_owned()],
            suite: "trixie".to_owned(),
            codename: "trixie".to_owned(),
            components: vec!["main".to_owned(), "contrib".to_owned()],
            date: 0,
            signed_by: Vec::new(),
        };
        let mut set = PackageSet { origins: vec![origin.clone(), origin], ..PackageSet::default() };
        let stanza = |keys| {
            format!(
                "Types: deb\nURIs: http://a.example.org/debian\nSuites: trixie\nComponents: main contrib\nSigned-By: {keys}\n"
            )
        };
        for (keys, signed_by) in [(None, "/usr/share/keyrings/x.gpg"), (Some("armored"), APT_KEYS)] {
            set.apt_keys = keys.map(str::to_owned);
            let options = BootstrapOptions {
                apt_sources: Some(set.apt_sources("/usr/share/keyrings/x.gpg")),
                ..BootstrapOptions::default()
            };
            let folder = tempfile::tempdir().unwrap();
            let root = Utf8Path::from_path(folder.path()).unwrap();
            first_files(&set, root, &options).unwrap();
            assert!(root.read_dir().unwrap().next().is_none(), "a system without apt has no use for its files");
            std::fs::create_dir_all(root.join("etc/apt")).unwrap();
            first_files(&set, root, &options).unwrap();
            let read = |path: &str| std::fs::read_to_string(folder.path().join(&path[1..])).ok();
            assert_eq!(read(APT_SOURCES), Some([stanza(signed_by), stanza(signed_by)].join("\n")));
            assert_eq!(read(APT_KEYS).as_deref(), keys);
            assert_eq!(read("/etc/apt/sources.list").as_deref(), Some(SOURCES_LIST));
        }
    }
}
