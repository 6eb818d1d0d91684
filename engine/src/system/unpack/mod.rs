//! Packages onto a file system: fetched, verified, unpacked and entered in dpkg's database.
//!
//! In: a [`PackageSet`], a fetcher, a root. Out: the tree as after `dpkg --unpack` of the whole set,
//! and what [`configure`](super::configure) needs to go on. Nothing of the host but the kernel is
//! used. Invariants: every byte is verified before it is unpacked; the result does not depend on the
//! order in which packages arrive; memory is bounded, as larger packages wait in unnamed files on
//! the target.

mod archive;
mod database;
mod fleet;
mod tar;
#[cfg(test)]
mod tests;
mod tree;

pub use archive::Control;

use std::collections::HashMap;
use std::io::{self, BufReader, Cursor, Seek, SeekFrom};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use md5::{Digest as _, Md5};
use thiserror::Error;

use crate::debian::deb822::Stanza;
use crate::debian::relation;
use crate::debian::{PackageRef, PackageSet};
use crate::event::Progress;
use crate::fetch::{FetchError, Fetcher};
use crate::units::Bytes;
use tar::{Entry, Kind};
use tree::{Laid, Tree, Writer, normal_path};

/// Where packages lie that dpkg itself must unpack, until it has.
pub(super) const POSTPONED: &str = "var/lib/dpkg/castiron";

#[derive(Clone, Debug)]
pub struct UnpackOptions {
    /// Threads that decompress and write; those that fetch come on top.
    pub workers: usize,
    pub fetchers: usize,
    /// Packages above this size wait in a file instead of in memory.
    pub memory_file_max: Bytes,
    /// All packages waiting in memory together.
    pub memory_max: Bytes,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            fetchers: 6,
            memory_file_max: Bytes::mib(8),
            memory_max: Bytes::mib(48),
        }
    }
}

#[derive(Debug, Error)]
pub enum UnpackError {
    #[error("cannot get package {package}")]
    Fetch {
        package: String,
        #[source]
        source: FetchError,
    },
    #[error("cannot unpack {package}{}", path.as_ref().map(|path| format!(": {path}")).unwrap_or_default())]
    Package {
        package: String,
        path: Option<String>,
        #[source]
        source: io::Error,
    },
    #[error("{package} is not what the index says: {found}")]
    Stranger { package: String, found: String },
    #[error("{left} and {right} both hold /{path}, and neither replaces the other")]
    Clash { left: String, right: String, path: String },
    #[error("cannot write in {root}")]
    Root {
        root: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Fetch { source, .. } => source.rule(),
            Self::Package { .. } => "packages.unpack",
            Self::Stranger { .. } => "packages.stranger",
            Self::Clash { .. } => "packages.clash",
            Self::Root { .. } => "target.write",
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { source, .. } => source.hint(),
            Self::Package { source, .. } | Self::Root { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("the target is too small".to_owned())
            }
            Self::Package { .. } | Self::Stranger { .. } | Self::Clash { .. } | Self::Root { .. } => None,
        }
    }
}

/// One package as it lies in the tree.
pub struct Unpacked {
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub essential: bool,
    /// `name`, or `name:arch` where several architectures may be installed side by side.
    pub info_name: String,
    pub control: Control,
    /// The package as a whole is left to dpkg (it diverts files of others before it is unpacked).
    pub postponed: bool,
    /// Normal paths in the archive's order.
    paths: Vec<Vec<u8>>,
    directories: Vec<Entry>,
    /// Paths whose place was taken.
    aside: Vec<Vec<u8>>,
    /// Absolute paths and MD5 digests (dpkg's database knows no other).
    conffiles: Vec<(String, String)>,
    computed_sums: Option<String>,
}

/// What was done and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackStats {
    pub packages: usize,
    pub files: usize,
    pub downloaded: Bytes,
    pub elapsed: Duration,
    /// How long the workers had nothing to unpack, on average.
    pub waited: Duration,
}

/// Fetches and unpacks the whole set into `root`. Sets the process's umask to 022.
pub fn unpack(
    set: &PackageSet,
    fetcher: &Fetcher,
    root: &Utf8Path,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Vec<Unpacked>, UnpackStats), UnpackError> {
    let started = Instant::now();
    let at_root = |source| UnpackError::Root { root: root.to_owned(), source };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let tree = Tree::open(root, set.merged_usr).map_err(at_root)?;
    let mut writer = tree.writer();
    for path in [
        format!("{}/x", database::INFO),
        "var/lib/dpkg/updates/x".into(),
        "var/lib/dpkg/triggers/x".into(),
        "var/lib/dpkg/alternatives/x".into(),
    ] {
        // The parents are what counts.
        writer.make_room(path.as_bytes()).map_err(at_root)?;
    }
    let (mut packages, waited) = fleet::unpack_all(set, fetcher, &tree, options, progress)?;
    settle_clashes(&mut packages, &mut writer)?;
    for package in packages.iter().filter(|package| !package.postponed) {
        database::write_info(&mut writer, package).map_err(at_root)?;
    }
    finish_directories(&packages, &mut writer).map_err(at_root)?;
    database::write(&mut writer, &packages, &set.architecture, &set.foreign_architectures).map_err(at_root)?;
    let stats = UnpackStats {
        packages: packages.len(),
        files: packages.iter().map(|package| package.paths.len()).sum(),
        downloaded: set.download_size(),
        elapsed: started.elapsed(),
        waited,
    };
    Ok((packages, stats))
}

/// A package file, verified.
enum Deb {
    Memory(Vec<u8>),
    File(std::fs::File),
}

impl Deb {
    fn reader(&mut self) -> io::Result<Box<dyn io::BufRead + '_>> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(Cursor::new(bytes)),
            Self::File(file) => {
                file.seek(SeekFrom::Start(0))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
        })
    }
}

/// Unpacks one package. `owner` is its place in the set.
fn unpack_one(
    writer: &mut Writer<'_>,
    package: &PackageRef,
    owner: usize,
    mut deb: Deb,
) -> Result<Unpacked, UnpackError> {
    let shown = || format!("{} {}", package.name, package.version);
    let failed = |path: Option<&[u8]>| {
        let (package, path) = (shown(), path.map(|path| String::from_utf8_lossy(path).into_owned()));
        move |source| UnpackError::Package { package, path, source }
    };
    let (control, mut data) = archive::open(deb.reader().map_err(failed(None))?).map_err(failed(None))?;
    let text = control.text("control").unwrap_or_default();
    let stanza = Stanza(&text);
    let found =
        [stanza.get("Package"), stanza.get("Version"), stanza.get("Architecture")].map(Option::unwrap_or_default);
    if found != [&package.name, &package.version, &package.architecture] {
        return Err(UnpackError::Stranger { package: shown(), found: found.join(" ") });
    }
    let info_name = match stanza.get("Multi-Arch") {
        Some("same") => format!("{}:{}", package.name, package.architecture),
        _ => package.name.clone(),
    };
    let mut unpacked = Unpacked {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        essential: package.essential,
        info_name,
        // What dpkg itself needs cannot wait for dpkg; its diversions keep later packages off what it brings.
        postponed: !package.foundation
            && control
                .get("preinst")
                .is_some_and(|script| memchr::memmem::find(script, b"dpkg-divert").is_some_and(|_| diverts(script))),
        control,
        paths: Vec::new(),
        directories: Vec::new(),
        aside: Vec::new(),
        conffiles: Vec::new(),
        computed_sums: None,
    };
    if unpacked.postponed {
        drop(data);
        postpone(writer, package, &mut deb).map_err(failed(None))?;
        return Ok(unpacked);
    }
    let conffiles = unpacked.control.text("conffiles").unwrap_or_default();
    let conffiles: Vec<&str> = conffiles.lines().map(str::trim).filter(|line| line.starts_with('/')).collect();
    let sums_wanted = unpacked.control.get("md5sums").is_none();
    let mut sums = String::new();
    let mut digests: HashMap<Vec<u8>, String> = HashMap::new();
    while let Some(entry) = data.next_entry().map_err(failed(None))? {
        let path = normal_path(&entry.path).map_err(failed(None))?;
        let is_conffile = conffiles.iter().any(|conffile| conffile.as_bytes()[1..] == path);
        let mut hasher = (entry.kind == Kind::File && (is_conffile || sums_wanted)).then(Md5::new);
        let laid = writer
            .lay(&entry, &path, &mut data, owner, &mut |bytes| {
                if let Some(hasher) = &mut hasher {
                    hasher.update(bytes);
                }
            })
            .map_err(failed(Some(&path)))?;
        if let Some(hasher) = hasher {
            let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if !is_conffile {
                sums.push_str(&format!("{digest}  {}\n", String::from_utf8_lossy(&path)));
            }
            digests.insert(path.clone(), digest);
        }
        if laid == Laid::Aside {
            unpacked.aside.push(path.clone());
        }
        if entry.kind == Kind::Directory {
            unpacked.directories.push(Entry { path: path.clone(), ..entry });
        }
        unpacked.paths.push(path);
    }
    unpacked.conffiles = conffiles
        .iter()
        // A conffile that the package does not hold is its own business; dpkg calls it new.
        .map(|path| {
            (
                (*path).to_owned(),
                digests.get(&path.as_bytes()[1..]).cloned().unwrap_or_else(|| "newconffile".to_owned()),
            )
        })
        .collect();
    unpacked.computed_sums = (sums_wanted && !sums.is_empty()).then_some(sums);
    Ok(unpacked)
}

/// Whether a preinst adds a diversion, so that it must run before its package is unpacked.
fn diverts(script: &[u8]) -> bool {
    let text = String::from_utf8_lossy(script).replace("\\\n", " ");
    text.lines().map(str::trim_start).any(|line| {
        !line.starts_with('#')
            && line.contains("dpkg-divert")
            && !line.contains("--remove")
            && !line.contains("--list")
            && !line.contains("--truename")
    })
}

fn postpone(writer: &mut Writer<'_>, package: &PackageRef, deb: &mut Deb) -> io::Result<()> {
    let path = format!("{POSTPONED}/{}_{}.deb", package.name, package.architecture);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut deb.reader()?, &mut bytes)?;
    writer.write(path.as_bytes(), 0o644, None, &bytes)
}

/// Packages in the order in which they take directories and run their first scripts: what makes
/// accounts, then the base of all, then the essential, then the rest, by name.
pub(super) fn ordered(packages: &[Unpacked]) -> Vec<&Unpacked> {
    let mut sorted: Vec<&Unpacked> = packages.iter().collect();
    let rank = |package: &Unpacked| match package.name.as_str() {
        "base-passwd" => 0,
        "base-files" => 1,
        _ if package.essential => 2,
        _ => 3,
    };
    sorted.sort_by_key(|package| (rank(package), package.name.clone(), package.architecture.clone()));
    sorted
}

/// The first package, in order, decides about a directory's owner and mode; the newest date counts.
fn finish_directories(packages: &[Unpacked], writer: &mut Writer<'_>) -> io::Result<()> {
    let mut directories: HashMap<&[u8], Entry> = HashMap::new();
    for package in ordered(packages) {
        for entry in &package.directories {
            let known = directories.entry(&entry.path).or_insert_with(|| entry.clone());
            known.mtime = known.mtime.max(entry.mtime);
        }
    }
    let mut sorted: Vec<_> = directories.into_iter().collect();
    sorted.sort_by_key(|(path, _)| *path);
    sorted.into_iter().try_for_each(|(path, entry)| writer.finish_directory(path, &entry))
}

/// Decides by `Replaces` whose file stays where two packages hold the same path (Debian policy 7.6.1).
fn settle_clashes(packages: &mut [Unpacked], writer: &mut Writer<'_>) -> Result<(), UnpackError> {
    let waiting: Vec<(usize, Vec<u8>)> = packages
        .iter()
        .enumerate()
        .flat_map(|(late, package)| package.aside.iter().map(move |path| (late, path.clone())))
        .collect();
    for (late, path) in waiting {
        let real = |path: &[u8]| path.strip_prefix(b"usr/").unwrap_or(path).to_vec();
        let early = packages.iter().enumerate().position(|(index, package)| {
            index != late
                && !package.aside.contains(&path)
                && package.paths.iter().any(|other| real(other) == real(&path))
        });
        let replace = match early {
            None => true,
            Some(early) => {
                let (winner, loser) =
                    match (replaces(&packages[late], &packages[early]), replaces(&packages[early], &packages[late])) {
                        (true, _) => (late, Some(early)),
                        (false, true) => (early, Some(late)),
                        (false, false) if shared(&packages[late], &packages[early]) => (early, None),
                        (false, false) => {
                            let [left, right] = [early, late].map(|index| packages[index].info_name.clone());
                            return Err(UnpackError::Clash {
                                left,
                                right,
                                path: String::from_utf8_lossy(&path).into_owned(),
                            });
                        }
                    };
                if let Some(loser) = loser {
                    packages[loser].paths.retain(|other| real(other) != real(&path));
                }
                winner == late
            }
        };
        let failed = |source| UnpackError::Package {
            package: packages[late].info_name.clone(),
            path: Some(String::from_utf8_lossy(&path).into_owned()),
            source,
        };
        writer.settle(&path, late, replace).map_err(failed)?;
    }
    Ok(())
}

fn replaces(winner: &Unpacked, loser: &Unpacked) -> bool {
    let text = winner.control.text("control").unwrap_or_default();
    let Some(field) = Stanza(&text).get("Replaces") else { return false };
    relation::parse(field, &winner.architecture)
        .flatten()
        .any(|relation| relation.name == loser.name && relation.admits(Some(&loser.version)))
}

/// One package of several architectures shares its files with itself.
fn shared(left: &Unpacked, right: &Unpacked) -> bool {
    left.name == right.name && left.version == right.version && left.architecture != right.architecture
}
