//! From a config file to a plan, for the commands that show plans and those that carry them out.
//!
//! Reads only: the config, the machine or its recording, the archive's index.

use std::collections::BTreeMap;
use std::path::Path;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::catalogue::Catalogue;
use castiron_engine::config::{self, Config};
use castiron_engine::debian::{PackageSet, Source, gather};
use castiron_engine::event::{Event, EventResult, EventSink};
use castiron_engine::fetch::{FetchOptions, Fetcher, resource};
use castiron_engine::inventory::{self, Inventory};
use castiron_engine::plan::Plan;
use castiron_engine::plan::disk::{self, Places};
use castiron_engine::resolve::{self, ArchiveDefaults};
use castiron_engine::spec::{Firmware, Secrets, Spec};
use castiron_engine::units::Bytes;

use crate::commands::bootstrap::{comes_with_packages, native_architecture};
use crate::commands::{Report, apt_sources, archive_report, memory, read_input};

/// No keyring is longer.
const KEYRING_MAX: Bytes = Bytes::mib(4);

/// Options of every command that resolves a config.
#[derive(clap::Args)]
pub struct DecideArgs {
    /// The config; `-` is the standard input.
    pub config: Utf8PathBuf,
    /// OpenPGP keys of the archive, binary or armored
    #[arg(long, value_name = "FILE", default_value = "/usr/share/keyrings/debian-archive-keyring.gpg")]
    pub keyring: Utf8PathBuf,
    /// A mirror to ask before those of the config, such as a cache at hand
    #[arg(long, value_name = "URI")]
    pub mirror: Vec<String>,
    /// Where downloads are kept, by digest
    #[arg(long, value_name = "DIR", env = "CASTIRON_CACHE")]
    pub cache: Option<Utf8PathBuf>,
    /// Accept an archive that is older than it was seen before
    #[arg(long)]
    pub allow_older: bool,
}

/// What a config is resolved for.
pub enum For {
    /// This machine, or a recorded one.
    Machine { recording: Option<Utf8PathBuf> },
    /// Image files.
    Image { size: Option<Bytes> },
}

pub struct Decision {
    pub spec: Spec,
    pub secrets: Secrets,
    pub fetcher: Fetcher,
}

pub fn decide(args: &DecideArgs, what: For, events: &mut dyn EventSink) -> Result<Decision, Report> {
    let bytes = read_input(&args.config)?;
    let config = config::parse(&bytes, args.config.as_str()).map_err(|found| Report::diagnostics(&found))?;
    let (config, inventory) = for_what(config, what)?;
    let catalogue = Catalogue::shipped()?;
    let seed = resolve::seed(&inventory, &bytes);
    let diagnostics = |found| Report::diagnostics(&found);
    resolve::resolve(&config, &inventory, &catalogue, None, seed).map_err(diagnostics)?;
    let cache = args.cache.clone().or_else(default_cache);
    let fetcher = Fetcher::new(&FetchOptions { cache, ..FetchOptions::default() }.or_proxy(&config.proxy))?;
    let packages = packages(args, &config, &inventory, &catalogue, &fetcher, events)?;
    let spec = resolve::resolve(&config, &inventory, &catalogue, Some(&packages), seed).map_err(diagnostics)?;
    Ok(Decision { spec, secrets: resolve::secrets(&config), fetcher })
}

fn for_what(config: Config, what: For) -> Result<(Config, Inventory), Report> {
    match what {
        For::Machine { recording: None } => Ok((config, Inventory::read(Path::new("/"))?)),
        For::Machine { recording: Some(path) } => {
            let text = String::from_utf8_lossy(&read_input(&path)?).into_owned();
            Ok((config, inventory::from_recording(&text)?))
        }
        For::Image { size } => Ok((resolve::as_image(config, size), no_machine())),
    }
}

/// Images are for machines that nobody has seen yet.
fn no_machine() -> Inventory {
    Inventory {
        firmware: Firmware::Uefi,
        architecture: native_architecture().to_owned(),
        dmi: Default::default(),
        device_tree: None,
        memory: Bytes::ZERO,
        nics: Vec::new(),
        disks: Vec::new(),
    }
}

/// `~/.cache/castiron`, as the XDG base directory specification has it.
pub fn default_cache() -> Option<Utf8PathBuf> {
    let base = std::env::var("XDG_CACHE_HOME").ok().filter(|path| path.starts_with('/')).map(Utf8PathBuf::from);
    let base = base.or_else(|| std::env::var("HOME").ok().map(|home| Utf8Path::new(&home).join(".cache")));
    base.map(|base| base.join("castiron"))
}

fn packages(
    args: &DecideArgs,
    config: &Config,
    inventory: &Inventory,
    catalogue: &Catalogue,
    fetcher: &Fetcher,
    events: &mut dyn EventSink,
) -> Result<PackageSet, Report> {
    let keyring = keyring(args, config, fetcher)?;
    let sources = apt_sources::read(Utf8Path::new("/"));
    let defaults = ArchiveDefaults {
        sources: host_sources(config, &sources),
        nearer_mirrors: args.mirror.clone(),
        keyring,
        now: jiff::Timestamp::now().as_second(),
        date_floor: None,
        own_keyring: !comes_with_packages(&args.keyring)?,
        memory: memory(args.cache.as_deref()),
        allow_older: args.allow_older,
    };
    let request = resolve::archive_request(config, inventory, catalogue, &defaults)
        .map_err(|found| Report::diagnostics(&found))?;
    events.emit(&Event::start("plan/archive", "read the archive's index"));
    let gathered = gather(&request, fetcher, &|line| tracing::info!("{line}"));
    let result = if gathered.is_ok() { EventResult::Success } else { EventResult::Fail };
    events.emit(&Event::finish("plan/archive", "read the archive's index", result));
    gathered.map_err(archive_report)
}

/// Those of the config, else those of the command line.
fn keyring(args: &DecideArgs, config: &Config, fetcher: &Fetcher) -> Result<Vec<u8>, Report> {
    let resource = config.source.bootstrap.as_ref().and_then(|bootstrap| bootstrap.keyring.as_ref());
    if let Some(resource) = resource {
        return resource::read(resource, fetcher, KEYRING_MAX).map_err(|error| {
            let hint = error.hint();
            Report::from(error).with_hint(hint)
        });
    }
    std::fs::read(&args.keyring).map_err(|error| {
        Report::usage(format!("error: cannot read the keyring {}\n  cause: {error}", args.keyring))
            .with_hint("Debian has it in the package debian-archive-keyring; or give --keyring")
    })
}

/// What serves a config without mirrors: `DIB_DISTRIBUTION_MIRROR`, else the host's own apt sources.
fn host_sources(config: &Config, known: &[apt_sources::AptSource]) -> Vec<Source> {
    let release = config.source.bootstrap.as_ref().map(|bootstrap| bootstrap.release.clone()).unwrap_or_default();
    let mirror = std::env::var("DIB_DISTRIBUTION_MIRROR").ok().or_else(|| apt_sources::mirror_of(known, &release));
    let mirrors: Vec<String> = mirror.into_iter().collect();
    if mirrors.is_empty() {
        return Vec::new();
    }
    vec![Source { mirrors, suites: vec![release], components: vec!["main".to_owned()] }]
}

/// The plan for places that the caller knows.
pub fn plan(
    spec: &Spec,
    root: &Utf8Path,
    images: BTreeMap<castiron_engine::units::NodeId, Utf8PathBuf>,
) -> Result<Plan, Report> {
    Ok(disk::plan(spec, &Places { root: root.to_owned(), images })?)
}
