//! From a request to a [`PackageSet`]: fetch and verify Releases and indices, then resolve.
//!
//! Invariant: nothing is written but the fetcher's cache and the memory of what was seen; a target is not even known here, so
//! whatever is wrong with an archive is refused before any disk is touched.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::index::{Builder, Index, Package};
use super::memory::Memory;
use super::relation;
use super::release::{Keyring, Release, ReleaseError, Terms};
use super::resolver::{self, Choice, ResolveError, Variant, Wanted};
use super::{Origin, PackageRef, PackageSet};
use crate::fetch::{Expected, FetchError, Fetcher};
use crate::units::Bytes;

/// The largest Release file that is read; Debian's are below 200 KiB.
const RELEASE_MAX: Bytes = Bytes::mib(16);
/// The largest index that is read, whatever the Release says.
const INDEX_MAX: Bytes = Bytes::mib(512);

/// Equal mirrors of one archive and what is used of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// URLs of the directory that holds `dists/` and `pool/`, best first.
    pub mirrors: Vec<String>,
    pub suites: Vec<String>,
    pub components: Vec<String>,
}

/// What is wanted and whom to believe.
#[derive(Clone, Debug, Default)]
pub struct ArchiveRequest {
    pub sources: Vec<Source>,
    /// Debian's name: `amd64`, `arm64`.
    pub architecture: String,
    pub foreign_architectures: Vec<String>,
    /// None takes only `include` and what it needs.
    pub variant: Option<Variant>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub recommends: bool,
    /// OpenPGP certificates, binary or armored.
    pub keyring: Vec<u8>,
    /// Seconds since 1970.
    pub now: i64,
    /// Releases dated earlier are replays (seconds since 1970).
    pub date_floor: Option<i64>,
    pub ignore_valid_until: bool,
    /// What earlier runs saw: a Release that is older than that is a replay.
    pub memory: Option<Memory>,
    /// Believe a Release although a newer one was seen.
    pub allow_older: bool,
    /// The target gets the keyring as a file, because no package brings it.
    pub hand_over_keyring: bool,
}

#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("no mirror is known")]
    NoMirror,
    #[error("cannot get {what} of {suite}")]
    Fetch {
        suite: String,
        what: &'static str,
        #[source]
        source: FetchError,
    },
    #[error("cannot trust {url}")]
    Release {
        url: String,
        #[source]
        source: ReleaseError,
    },
    #[error("the keyring cannot be used")]
    Keyring(#[source] ReleaseError),
    #[error("{suite} has no package index for {component} and {architecture}")]
    NoIndex { suite: String, component: String, architecture: String },
    #[error("cannot unpack {url}")]
    Decode {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the packages wanted cannot be installed")]
    Resolve(#[source] ResolveError),
}

impl ArchiveError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoMirror => "archive.mirror",
            Self::Fetch { source, .. } => source.rule(),
            Self::Release { source, .. } | Self::Keyring(source) => source.rule(),
            Self::NoIndex { .. } => "archive.index",
            Self::Decode { .. } => "archive.decode",
            Self::Resolve(source) => source.rule(),
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoMirror => Some("name a mirror".to_owned()),
            Self::Fetch { source, .. } => source.hint(),
            Self::Release { source, .. } | Self::Keyring(source) => source.hint().map(str::to_owned),
            Self::NoIndex { .. } | Self::Decode { .. } | Self::Resolve(_) => None,
        }
    }
}

/// Fetches, verifies and resolves. `note` is told what happens, one line each.
pub fn gather(
    request: &ArchiveRequest,
    fetcher: &Fetcher,
    note: &(dyn Fn(&str) + Sync),
) -> Result<PackageSet, ArchiveError> {
    let keyring = Keyring::parse(&request.keyring).map_err(ArchiveError::Keyring)?;
    let jobs: Vec<(&Source, &String)> =
        request.sources.iter().flat_map(|source| source.suites.iter().map(move |suite| (source, suite))).collect();
    if jobs.is_empty() || jobs.iter().any(|(source, _)| source.mirrors.is_empty()) {
        return Err(ArchiveError::NoMirror);
    }
    let suites = in_parallel(&jobs, |(source, suite)| {
        Suite { request, fetcher, keyring: &keyring, source, suite, note }.read()
    })?;
    let indices: Vec<&Index> = suites.iter().flat_map(|(_, indices)| indices).collect();
    let origin_of: Vec<usize> =
        suites.iter().enumerate().flat_map(|(origin, (_, indices))| indices.iter().map(move |_| origin)).collect();
    note(&format!("resolving among {} packages", indices.iter().map(|index| index.len()).sum::<usize>()));

    let merged_usr = true;
    let exclude = without_usrmerge(request, &indices, merged_usr);
    let wanted = Wanted {
        variant: request.variant,
        architecture: &request.architecture,
        foreign_architectures: &request.foreign_architectures,
        include: &request.include,
        exclude: &exclude,
        recommends: request.recommends,
    };
    let resolution = resolver::resolve(&indices, &wanted).map_err(ArchiveError::Resolve)?;
    let chosen: Vec<(Package<'_>, usize)> = resolution
        .choices
        .iter()
        .map(|Choice { index, record }| {
            let package = indices[*index].packages().nth(*record).expect("the resolver hands out what it was given");
            (package, origin_of[*index])
        })
        .collect();
    let foundation = foundation(&chosen, &request.architecture);
    let mut packages = chosen
        .into_iter()
        .map(|(package, origin)| {
            let foundation = foundation.contains(package.name());
            package_ref(package, origin).map(|package| PackageRef { foundation, ..package })
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(ArchiveError::Resolve)?;
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Ok(PackageSet {
        architecture: request.architecture.clone(),
        foreign_architectures: request.foreign_architectures.clone(),
        origins: suites.into_iter().map(|(origin, _)| origin).collect(),
        packages,
        requested: resolution.requested.into_iter().collect(),
        merged_usr,
        apt_keys: match request.hand_over_keyring {
            true => Some(keyring.armored().map_err(ArchiveError::Keyring)?),
            false => None,
        },
    })
}

/// The names of what dpkg and the first scripts need: the essential packages, dpkg, and whatever of the choice these
/// depend on by any alternative (Debian policy 3.8, 7.2).
fn foundation<'a>(chosen: &[(Package<'a>, usize)], architecture: &str) -> HashSet<&'a str> {
    let mut by_name: HashMap<&str, Vec<&Package<'a>>> = HashMap::new();
    for (package, _) in chosen {
        let provided = relation::parse(package.provides(), architecture).flatten().map(|provided| provided.name);
        for name in provided.chain([package.name()]) {
            by_name.entry(name).or_default().push(package);
        }
    }
    let mut found = HashSet::new();
    let first = chosen.iter().map(|(package, _)| package);
    let mut open: Vec<&Package<'a>> = first.filter(|first| first.essential() || first.name() == "dpkg").collect();
    while let Some(package) = open.pop() {
        if found.insert(package.name()) {
            let needs = [package.pre_depends(), package.depends()];
            let needed = needs.into_iter().flat_map(|field| relation::parse(field, architecture).flatten());
            open.extend(needed.filter_map(|relation| by_name.get(relation.name)).flatten().copied());
        }
    }
    found
}

/// Where a suite has both a package that says that `/usr` is merged and one that merges it, dependencies name either. As
/// the links are laid down first, the first is the true one; where nothing asks for it any more, it is left out.
fn without_usrmerge(request: &ArchiveRequest, indices: &[&Index], merged: bool) -> Vec<String> {
    let mut exclude = request.exclude.clone();
    let offered = || indices.iter().flat_map(|index| index.packages()).any(|package| package.name() == "usr-is-merged");
    if merged && request.variant.is_some() && !request.include.iter().any(|name| name == "usrmerge") && offered() {
        exclude.push("usrmerge".to_owned());
    }
    exclude
}

/// Runs one job per thread and gives the results in order, or the first job's error.
fn in_parallel<J: Sync, T: Send, E: Send>(jobs: &[J], work: impl Fn(&J) -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    if let [job] = jobs {
        return Ok(vec![work(job)?]);
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = jobs.iter().map(|job| scope.spawn(|| work(job))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// One suite of one archive, on its way.
struct Suite<'a> {
    request: &'a ArchiveRequest,
    fetcher: &'a Fetcher,
    keyring: &'a Keyring,
    source: &'a Source,
    suite: &'a str,
    note: &'a (dyn Fn(&str) + Sync),
}

impl Suite<'_> {
    fn read(&self) -> Result<(Origin, Vec<Index>), ArchiveError> {
        let first = self.release()?;
        match self.indices(&first.0) {
            Ok(indices) => Ok((self.accept(first), indices)),
            Err(error) => {
                // The archive may have been updated between the two: then the Release is a new one.
                let second = self.release()?;
                if second.0.date <= first.0.date {
                    return Err(error);
                }
                let indices = self.indices(&second.0)?;
                Ok((self.accept(second), indices))
            }
        }
    }

    /// The Release served: what it says is remembered.
    fn accept(&self, (release, mirror): (Release, usize)) -> Origin {
        if let Some(memory) = &self.request.memory
            && let Err(error) = memory.remember(&release)
        {
            (self.note)(&format!("cannot remember the date of {}: {error}", self.suite));
        }
        let mut mirrors: Vec<String> =
            self.source.mirrors.iter().map(|mirror| mirror.trim_end_matches('/').to_owned()).collect();
        mirrors[..=mirror].rotate_right(1);
        Origin {
            mirrors,
            suite: self.suite.to_owned(),
            codename: release.codename,
            components: self.source.components.clone(),
            date: release.date,
            signed_by: release.signed_by,
        }
    }

    /// The first mirror's Release that can be had and trusted, and that mirror's place.
    fn release(&self) -> Result<(Release, usize), ArchiveError> {
        let mut first_error = None;
        for (place, mirror) in self.source.mirrors.iter().enumerate() {
            let dir = format!("{}/dists/{}", mirror.trim_end_matches('/'), self.suite);
            match self.release_from(&dir) {
                Ok(release) => {
                    (self.note)(&format!("{} of {} is signed by {}", self.suite, mirror, release.signed_by.join(" ")));
                    return Ok((release, place));
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(ArchiveError::NoMirror))
    }

    fn release_from(&self, dir: &str) -> Result<Release, ArchiveError> {
        let terms = Terms {
            now: self.request.now,
            floor: self.request.date_floor,
            ignore_valid_until: self.request.ignore_valid_until,
        };
        let fetch = |name: &str| self.fetcher.get_small(&format!("{dir}/{name}"), RELEASE_MAX);
        let failed = |source| ArchiveError::Fetch { suite: self.suite.to_owned(), what: "the Release file", source };
        let (url, release) = match fetch("InRelease") {
            Ok(file) => (format!("{dir}/InRelease"), Release::from_inline(&file, self.keyring, terms)),
            Err(absent @ (FetchError::Status { status: 404 | 410, .. } | FetchError::File { .. })) => {
                // Old archives sign beside; if that is not there either, what is missing is InRelease.
                let Ok(file) = fetch("Release") else { return Err(failed(absent)) };
                let signature = fetch("Release.gpg").map_err(failed)?;
                (format!("{dir}/Release"), Release::from_detached(&file, &signature, self.keyring, terms))
            }
            Err(error) => return Err(failed(error)),
        };
        let checked = release.and_then(|release| {
            release.check_suite(self.suite)?;
            if let Some(memory) = self.request.memory.as_ref().filter(|_| !self.request.allow_older) {
                release.check_not_older(memory.newest(&release))?;
            }
            for architecture in self.architectures() {
                release.check_architecture(architecture)?;
            }
            for component in &self.source.components {
                release.check_component(component)?;
            }
            Ok(release)
        });
        checked.map_err(|source| ArchiveError::Release { url, source })
    }

    fn architectures(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.request.architecture.as_str())
            .chain(self.request.foreign_architectures.iter().map(String::as_str))
    }

    fn indices(&self, release: &Release) -> Result<Vec<Index>, ArchiveError> {
        let mut jobs: Vec<(&str, &str)> = Vec::new();
        for component in &self.source.components {
            jobs.extend(self.architectures().map(|architecture| (component.as_str(), architecture)));
            if !release.all_in_each {
                jobs.push((component, "all"));
            }
        }
        in_parallel(&jobs, |(component, architecture)| self.index(release, component, architecture))
    }

    fn index(&self, release: &Release, component: &str, architecture: &str) -> Result<Index, ArchiveError> {
        let plain = format!("{component}/binary-{architecture}/Packages");
        let found = FORMATS.iter().find_map(|format| {
            let path = format!("{plain}{}", format.suffix);
            release.files.get(&path).map(|expected| (format, path, *expected))
        });
        let Some((format, path, expected)) = found else {
            // An architecture-independent index is optional.
            if architecture == "all" {
                return Ok(Index::default());
            }
            let suite = self.suite.to_owned();
            return Err(ArchiveError::NoIndex {
                suite,
                component: component.to_owned(),
                architecture: architecture.to_owned(),
            });
        };
        let urls = self.index_urls(release, &path, expected);
        let failed = |source| ArchiveError::Fetch { suite: self.suite.to_owned(), what: "the package index", source };
        let packed = self.fetcher.fetch_verified(&urls, expected, &mut |_| ()).map_err(failed)?;
        let limit = release.files.get(&plain).map_or(INDEX_MAX, |plain| plain.size).0.min(INDEX_MAX.0);
        let index =
            decode(format, &packed, limit).map_err(|source| ArchiveError::Decode { url: urls[0].clone(), source })?;
        (self.note)(&format!("{} {component} {architecture}: {} packages", self.suite, index.len()));
        Ok(index)
    }

    /// By digest where the archive offers it, so that an update meanwhile cannot get in the way.
    fn index_urls(&self, release: &Release, path: &str, expected: Expected) -> Vec<String> {
        let mut urls = Vec::new();
        for mirror in &self.source.mirrors {
            let dir = format!("{}/dists/{}", mirror.trim_end_matches('/'), self.suite);
            if release.by_hash
                && let Some((parent, _)) = path.rsplit_once('/')
            {
                urls.push(format!("{dir}/{parent}/by-hash/SHA256/{}", expected.digest.hex()));
            }
            urls.push(format!("{dir}/{path}"));
        }
        urls
    }
}

struct Format {
    suffix: &'static str,
    open: for<'a> fn(&'a [u8]) -> std::io::Result<Box<dyn Read + 'a>>,
}

/// Best first: zstd and gzip unpack several times faster than xz, which saves more than their size costs.
const FORMATS: &[Format] = &[
    Format { suffix: ".zst", open: |packed| Ok(Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)) },
    Format { suffix: ".gz", open: |packed| Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed))) },
    Format { suffix: ".xz", open: |packed| Ok(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(packed))) },
    Format { suffix: "", open: |packed| Ok(Box::new(packed)) },
];

fn decode(format: &Format, packed: &[u8], limit: u64) -> std::io::Result<Index> {
    let mut reader = (format.open)(packed)?;
    let mut builder = Builder::default();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(builder.finish()),
            Ok(count) => {
                total += count as u64;
                if total > limit {
                    return Err(std::io::Error::other(format!("unpacks to more than the {limit} bytes announced")));
                }
                builder.push(&buffer[..count]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A package as part of a set. Its words become file names and URLs, so they are checked here.
fn package_ref(package: Package<'_>, origin: usize) -> Result<PackageRef, ResolveError> {
    let damaged = |field| ResolveError::Damaged { name: package.name().to_owned(), field };
    let word = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
    };
    if !word(package.name(), "+-.") || package.name().len() > 128 {
        return Err(damaged("Package"));
    }
    if !super::version::is_valid(package.version()) {
        return Err(damaged("Version"));
    }
    if !word(package.architecture(), "-") {
        return Err(damaged("Architecture"));
    }
    let filename = package.filename();
    let safe = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    if !filename.strip_prefix("./").unwrap_or(filename).split('/').all(safe) {
        return Err(damaged("Filename"));
    }
    if package.size() == Bytes::ZERO {
        return Err(damaged("Size"));
    }
    Ok(PackageRef {
        name: package.name().to_owned(),
        version: package.version().to_owned(),
        architecture: package.architecture().to_owned(),
        origin,
        filename: filename.to_owned(),
        size: package.size(),
        sha256: package.sha256().ok_or_else(|| damaged("SHA256"))?,
        essential: package.essential(),
        foundation: false,
        priority: package.priority(),
        installed_size: package.installed_size(),
        source: package.source().to_owned(),
        section: package.section().to_owned(),
    })
}

#[cfg(test)]
mod tests;
