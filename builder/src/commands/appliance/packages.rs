//! Packages for the appliance: resolved, fetched, verified and unpacked, each into a folder of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::appliance::overlay::{Overlay, Package};
use castiron_engine::catalogue::Board;
use castiron_engine::debian::{ArchiveRequest, PackageRef, PackageSet, Source, gather};
use castiron_engine::event::{Event, EventResult, EventSink, Progress, Unit};
use castiron_engine::fetch::{FetchOptions, Fetcher};
use castiron_engine::system::unpack::{UnpackOptions, unpack};
use castiron_engine::units::Bytes;
use rayon::prelude::*;

use super::cache::Cache;
use crate::commands::{Report, apt_sources, archive_report, memory};
use crate::terminal::Terminal;

/// Debian's keys on a host that is a Debian.
const HOST_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
#[derive(clap::Args)]
pub struct ArchiveArgs {
    /// The suite, such as bookworm; the host's own if not given.
    #[arg(long)]
    suite: Option<String>,
    /// Where the archive is; repeat for fallbacks. Else the host's apt source that has the suite
    #[arg(long, env = "DIB_DISTRIBUTION_MIRROR")]
    mirror: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "main")]
    components: Vec<String>,
    /// A further archive: `URI SUITE COMPONENT…`, as in sources.list; repeat for more (security updates).
    #[arg(long, value_name = "SOURCE")]
    extra_source: Vec<String>,
    /// OpenPGP keys that sign the archive, binary or armored; Debian's if not given. The machine then trusts these keys
    /// and no others, unless its config names a keyring
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<Utf8PathBuf>,
    /// Accept an archive that is past its date, such as a snapshot.
    #[arg(long)]
    ignore_valid_until: bool,
    /// Accept an archive that is older than it was seen before; --ignore-valid-until implies it.
    #[arg(long)]
    allow_older: bool,
}

impl ArchiveArgs {
    /// The archives to use: those named, else the host's apt sources of the suite with its updates.
    fn sources(&self) -> Result<Vec<Source>, Report> {
        let host = apt_sources::read(Utf8Path::new("/"));
        let suite = match &self.suite {
            Some(suite) => suite.clone(),
            None => suite_of(&host).ok_or_else(|| {
                Report::usage("error: no suite is named, and this host's apt sources tell none")
                    .with_hint("give --suite and --mirror")
            })?,
        };
        let mut sources = match self.mirror.is_empty() {
            false => vec![Source {
                mirrors: self.mirror.clone(),
                suites: vec![suite.clone()],
                components: self.components.clone(),
            }],
            true => self.of_host(&host, &suite),
        };
        if sources.is_empty() {
            return Err(Report::usage(format!("error: no mirror is known for {suite}"))
                .with_hint("give --mirror, set DIB_DISTRIBUTION_MIRROR, or have an apt source for the suite"));
        }
        for text in &self.extra_source {
            let mut words = text.split_whitespace().filter(|word| *word != "deb").map(str::to_owned);
            let (Some(mirror), Some(suite)) = (words.next(), words.next()) else {
                return Err(
                    Report::usage(format!("error: `{text}` is no source")).with_hint("write `URI SUITE COMPONENT…`")
                );
            };
            let components: Vec<String> = words.collect();
            let components = if components.is_empty() { self.components.clone() } else { components };
            sources.push(Source { mirrors: vec![mirror], suites: vec![suite], components });
        }
        Ok(sources)
    }

    /// The host's sources of a suite, its updates and its security archive.
    fn of_host(&self, host: &[apt_sources::AptSource], suite: &str) -> Vec<Source> {
        let belongs = |name: &&String| {
            *name == suite || name.strip_prefix(suite).is_some_and(|rest| ["-updates", "-security"].contains(&rest))
        };
        let mut sources: Vec<Source> = Vec::new();
        for source in host {
            let suites: Vec<String> = source.suites.iter().filter(belongs).cloned().collect();
            let mirrors = vec![source.uri.trim_end_matches('/').to_owned()];
            if !suites.is_empty() {
                sources.push(Source { mirrors, suites, components: self.components.clone() });
            }
        }
        if !sources.iter().any(|source| source.suites.iter().any(|name| name == suite)) {
            let mirrors: Vec<String> = apt_sources::mirror_of(host, suite).into_iter().collect();
            sources.retain(|_| false);
            if !mirrors.is_empty() {
                sources.push(Source { mirrors, suites: vec![suite.to_owned()], components: self.components.clone() });
            }
        }
        sources
    }

    /// The archives as lines of sources.list(5), for the appliance.
    pub fn sources_list(&self) -> Result<String, Report> {
        let line = |source: &Source, suite: &String| {
            source
                .mirrors
                .first()
                .map(|mirror| format!("deb {mirror} {suite} {}\n", source.components.join(" ")))
                .unwrap_or_default()
        };
        Ok(self
            .sources()?
            .iter()
            .flat_map(|source| source.suites.iter().map(move |suite| line(source, suite)))
            .collect())
    }
}

/// The suite that the host's apt sources follow: the first that has an updates suite beside it.
fn suite_of(host: &[apt_sources::AptSource]) -> Option<String> {
    let suites: Vec<&String> = host.iter().flat_map(|source| &source.suites).collect();
    suites
        .iter()
        .find(|suite| suites.iter().any(|other| **other == format!("{suite}-updates")))
        .map(|suite| (*suite).clone())
}

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// The named packages with all they need, unpacked, as one tree; and the dates of the archives that they came from, for
/// the appliance's own memory.
pub fn overlay(
    names: &[String],
    board: &Board,
    args: &ArchiveArgs,
    cache: &Cache,
    terminal: &mut Terminal,
) -> Result<(Overlay, Files), Report> {
    if !rustix::process::geteuid().is_root() {
        return Err(Report::usage(
            "error: only root can unpack packages and run their programs in a root of their own",
        ));
    }
    let fetcher = Fetcher::new(&FetchOptions { cache: Some(cache.downloads()), ..FetchOptions::default() })?;
    let mut request = request(names, board, args)?;
    let seen = tempfile::tempdir()?;
    let seen_path = Utf8Path::from_path(seen.path()).ok_or_else(|| Report::failure("error: $TMPDIR is not UTF-8"))?;
    request.memory = request.memory.map(|memory| memory.and(seen_path));
    terminal.emit(&Event::start("appliance/index", "read and verify the archive's index"));
    let gathered = gather(&request, &fetcher, &|line| tracing::info!("{line}"));
    let ending = if gathered.is_ok() { EventResult::Success } else { EventResult::Fail };
    terminal.emit(&Event::finish("appliance/index", "index", ending));
    let set = gathered.map_err(archive_report)?;
    unpack_all(&set, &fetcher, cache, terminal)?;
    let folders =
        set.packages.iter().map(|package| (entry(package), cache.unpacked(package.sha256).into_std_path_buf()));
    Ok((Overlay::read(folders)?, files_of(seen_path)?))
}

/// In the order of the names.
fn files_of(dir: &Utf8Path) -> Result<Files, Report> {
    let mut files = Vec::new();
    for entry in dir.read_dir_utf8()? {
        let entry = entry?;
        files.push((entry.file_name().to_owned(), std::fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

fn request(names: &[String], board: &Board, args: &ArchiveArgs) -> Result<ArchiveRequest, Report> {
    let mut sources = args.sources()?;
    let mut include = names.to_vec();
    let firmware = &board.firmware_packages;
    include.extend(firmware.packages.iter().cloned());
    if let Some(component) = firmware.component.as_ref().filter(|_| !firmware.packages.is_empty()) {
        for source in sources.iter_mut().filter(|source| !source.components.contains(component)) {
            source.components.push(component.clone());
        }
    }
    let keyring = args.keyring.as_deref().unwrap_or(Utf8Path::new(HOST_KEYRING));
    let keyring = std::fs::read(keyring).map_err(|cause| {
        Report::usage(format!("error: cannot read {keyring}\n  cause: {cause}"))
            .with_hint("name the archive's keys with --keyring")
    })?;
    Ok(ArchiveRequest {
        sources,
        architecture: board.arch.clone(),
        include,
        exclude: board.kernel.without.clone(),
        keyring,
        now: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64),
        ignore_valid_until: args.ignore_valid_until,
        memory: memory(None),
        allow_older: args.allow_older || args.ignore_valid_until,
        ..ArchiveRequest::default()
    })
}

fn entry(package: &PackageRef) -> Package {
    Package {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        sha256: Some(package.sha256),
    }
}

/// Unpacks what the cache does not have yet.
fn unpack_all(set: &PackageSet, fetcher: &Fetcher, cache: &Cache, terminal: &mut Terminal) -> Result<(), Report> {
    let missing: Vec<&PackageRef> =
        set.packages.iter().filter(|package| !cache.unpacked(package.sha256).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let total: Bytes = missing.iter().map(|package| package.size).sum();
    let name = "appliance/packages";
    terminal.emit(&Event::start(name, format!("fetch and unpack {} packages, {total}", missing.len())));
    let done = AtomicU64::new(0);
    let watcher = Mutex::new(&mut *terminal);
    let result = missing.par_iter().try_for_each(|package| {
        unpack_one(set, package, fetcher, cache)?;
        let done = done.fetch_add(package.size.0, Ordering::Relaxed) + package.size.0;
        let progress = Progress { done, total: Some(total.0), unit: Unit::Bytes };
        if let Ok(mut terminal) = watcher.lock() {
            terminal.emit(&Event::progress(name, package.name.clone(), progress));
        }
        Ok(())
    });
    let ending = if result.is_ok() { EventResult::Success } else { EventResult::Fail };
    terminal.emit(&Event::finish(name, "packages", ending));
    result
}

/// Unpacks one package beside its place and moves it there when it is whole.
fn unpack_one(set: &PackageSet, package: &PackageRef, fetcher: &Fetcher, cache: &Cache) -> Result<(), Report> {
    let scratch = cache.scratch()?;
    let root = Utf8PathBuf::from_path_buf(scratch.path().to_owned())
        .map_err(|path| Report::failure(format!("error: {} is not UTF-8", path.display())))?;
    let alone = PackageSet { packages: vec![package.clone()], requested: Vec::new(), ..set.clone() };
    let options = UnpackOptions { workers: 1, fetchers: 1, ..UnpackOptions::default() };
    unpack(&alone, fetcher, &root, &options, &mut |_| {}).map_err(|error| {
        let hint = error.hint();
        let report = Report::from(error);
        hint.into_iter().fold(report, |report, hint| report.with_hint(hint))
    })?;
    let place = cache.unpacked(package.sha256);
    match std::fs::rename(&root, &place) {
        // Another build was faster; its result is the same.
        Err(_) if place.exists() => Ok(()),
        Err(cause) => Err(Report::failure(format!("error: cannot create {place}\n  cause: {cause}"))),
        Ok(()) => {
            let _ = scratch.keep();
            Ok(())
        }
    }
}
