//! `castiron bootstrap`: a Debian system in a directory, without any tool of the host.

use std::time::{Duration, Instant, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::catalogue::Catalogue;
use castiron_engine::debian::{ArchiveRequest, Source, Variant, gather};
use castiron_engine::event::{Event, EventResult, EventSink};
use castiron_engine::fetch::{FetchOptions, Fetcher};
use castiron_engine::system::bootstrap::{BootstrapOptions, BootstrapStats, bootstrap};

use super::{Report, apt_sources, archive_report, memory};
use crate::terminal::Terminal;

/// Makes a Debian system in a directory.
#[derive(clap::Args)]
pub struct Args {
    /// The suite, such as bookworm
    #[arg(long)]
    suite: String,
    /// minbase, buildd, important or standard
    #[arg(long, default_value = "minbase")]
    variant: Variant,
    /// Debian's name of the architecture; this machine's by default
    #[arg(long = "arch", default_value = native_architecture())]
    architecture: String,
    /// More packages, separated by commas
    #[arg(long, value_delimiter = ',')]
    include: Vec<String>,
    /// Packages that are left out, whatever needs them
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "main")]
    components: Vec<String>,
    /// Where the archive is; repeat for fallbacks. Else the first of the host's apt sources that has the suite
    #[arg(long, env = "DIB_DISTRIBUTION_MIRROR")]
    mirror: Vec<String>,
    /// More suites of the same mirror, separated by commas, such as bookworm-updates
    #[arg(long, value_delimiter = ',')]
    extra_suites: Vec<String>,
    /// A further archive as in sources.list: `URI SUITE COMPONENT…`; may be repeated (security updates)
    #[arg(long, value_name = "SOURCE")]
    extra_source: Vec<String>,
    /// OpenPGP keys to trust, binary or armored
    #[arg(long, default_value = "/usr/share/keyrings/debian-archive-keyring.gpg")]
    keyring: Utf8PathBuf,
    /// Keeps what was downloaded, by digest
    #[arg(long, value_name = "DIR")]
    cache: Option<Utf8PathBuf>,
    /// Install recommended packages too
    #[arg(long)]
    recommends: bool,
    /// Accept an archive that is past its date, such as a snapshot
    #[arg(long)]
    ignore_valid_until: bool,
    /// Accept an archive that is older than it was seen before; --ignore-valid-until implies it
    #[arg(long)]
    allow_older: bool,
    /// Write where the time went to this file as JSON
    #[arg(long, value_name = "FILE", hide = true)]
    timings: Option<Utf8PathBuf>,
    /// Where the system goes: an empty or absent directory
    dir: Utf8PathBuf,
}

pub fn run(args: Args) -> Result<(), Report> {
    let mut terminal = Terminal::default();
    let fetcher = Fetcher::new(&FetchOptions { cache: args.cache.clone(), ..FetchOptions::default() })?;
    let request = request(&args)?;
    check_target(&args.dir)?;

    let started = Instant::now();
    terminal.emit(&Event::start("bootstrap/index", format!("read the index of {}", args.suite)));
    let gathered = gather(&request, &fetcher, &|line| tracing::info!("{line}"));
    let ending = if gathered.is_ok() { EventResult::Success } else { EventResult::Fail };
    terminal.emit(&Event::finish("bootstrap/index", "index", ending));
    let set = gathered.map_err(archive_report)?;
    let index = started.elapsed();

    std::fs::create_dir_all(&args.dir)
        .map_err(|error| Report::failure(format!("error: cannot create {}\n  cause: {error}", args.dir)))?;
    let root = args
        .dir
        .canonicalize_utf8()
        .map_err(|error| Report::failure(format!("error: {}\n  cause: {error}", args.dir)))?;
    let apt_sources = Some(set.apt_sources(args.keyring.as_str()));
    let options = BootstrapOptions { apt_sources, ..BootstrapOptions::default() };
    let stats = bootstrap(&set, &fetcher, &root, &options, &mut terminal).map_err(|error| {
        let (rule, hint) = (error.rule(), error.hint());
        with_rule(Report::from(error), rule, hint)
    })?;
    if let Some(path) = &args.timings {
        write_timings(path, index, &stats)?;
    }
    Ok(())
}

fn with_rule(report: Report, rule: &str, hint: Option<String>) -> Report {
    let report = report.with_line(format!("rule: {rule}"));
    match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

fn request(args: &Args) -> Result<ArchiveRequest, Report> {
    let mirrors = match args.mirror.is_empty() {
        false => args.mirror.clone(),
        true => apt_sources::mirror_of(&apt_sources::read(Utf8Path::new("/")), &args.suite).into_iter().collect(),
    };
    if mirrors.is_empty() {
        return Err(Report::usage(format!("error: no mirror is known for {}", args.suite))
            .with_hint("give --mirror, set DIB_DISTRIBUTION_MIRROR, or have an apt source for the suite"));
    }
    let suites = std::iter::once(&args.suite).chain(&args.extra_suites).cloned().collect();
    let mut sources = vec![Source { mirrors, suites, components: args.components.clone() }];
    for text in &args.extra_source {
        let mut words = text.split_whitespace().filter(|word| *word != "deb").map(str::to_owned);
        let (Some(mirror), Some(suite)) = (words.next(), words.next()) else {
            return Err(
                Report::usage(format!("error: `{text}` is no source")).with_hint("write `URI SUITE COMPONENT…`")
            );
        };
        let components: Vec<String> = words.collect();
        let components = if components.is_empty() { args.components.clone() } else { components };
        sources.push(Source { mirrors: vec![mirror], suites: vec![suite], components });
    }
    let keyring = std::fs::read(&args.keyring).map_err(|error| {
        Report::usage(format!("error: cannot read the keyring {}\n  cause: {error}", args.keyring))
            .with_hint("give --keyring with the archive's keys")
    })?;
    Ok(ArchiveRequest {
        sources,
        architecture: args.architecture.clone(),
        variant: Some(args.variant),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        recommends: args.recommends,
        keyring,
        now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64,
        ignore_valid_until: args.ignore_valid_until,
        memory: memory(args.cache.as_deref()),
        allow_older: args.allow_older || args.ignore_valid_until,
        hand_over_keyring: !comes_with_packages(&args.keyring)?,
        ..ArchiveRequest::default()
    })
}

/// Whether a distribution's own packages bring this keyring.
pub fn comes_with_packages(keyring: &Utf8Path) -> Result<bool, Report> {
    Ok(Catalogue::shipped()?.distributions.iter().any(|distribution| distribution.keyring == keyring.as_str()))
}

/// Nothing is unpacked over anything; an empty file system has its `lost+found`.
fn check_target(dir: &Utf8Path) -> Result<(), Report> {
    if !rustix::process::geteuid().is_root() {
        return Err(Report::usage("error: only root can make files of other owners and run programs in a new root"));
    }
    let Ok(entries) = dir.read_dir_utf8() else { return Ok(()) };
    match entries.flatten().find(|entry| entry.file_name() != "lost+found") {
        None => Ok(()),
        Some(entry) => Err(Report::usage(format!("error: {dir} is not empty: it holds {}", entry.file_name()))
            .with_hint("remove it, also when an earlier run left it unfinished")),
    }
}

/// Debian's name for the machine this was built for.
pub fn native_architecture() -> &'static str {
    const NAMES: &[(&str, &str)] =
        &[("x86_64", "amd64"), ("aarch64", "arm64"), ("x86", "i386"), ("arm", "armhf"), ("powerpc64", "ppc64el")];
    let rust = std::env::consts::ARCH;
    NAMES.iter().find(|(name, _)| *name == rust).map_or(rust, |(_, debian)| debian)
}

fn write_timings(path: &Utf8Path, index: Duration, stats: &BootstrapStats) -> Result<(), Report> {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let timings = serde_json::json!({
        "index": seconds(index),
        "unpack": seconds(stats.unpack.elapsed),
        "fetch_wait": seconds(stats.unpack.waited),
        "scripts": seconds(stats.scripts),
        "packages": stats.unpack.packages,
        "files": stats.unpack.files,
        "downloaded_bytes": stats.unpack.downloaded,
    });
    std::fs::write(path, timings.to_string())
        .map_err(|error| Report::failure(format!("error: cannot write {path}\n  cause: {error}")))
}
