//! The archive that packages come from: asked, verified and resolved before anything is written.

use std::path::Path;

use camino::Utf8Path;
use castiron_engine::appliance::contents::{ARCHIVE_KEYS, RELEASES};
use castiron_engine::catalogue::Catalogue;
use castiron_engine::config::Config;
use castiron_engine::debian::gather::Source;
use castiron_engine::debian::{Memory, PackageSet, gather};
use castiron_engine::fetch::{Fetcher, resource};
use castiron_engine::inventory::Inventory;
use castiron_engine::resolve::{self, ArchiveDefaults};
use castiron_engine::units::Bytes;

use super::Stop;
use crate::cmdline::Boot;
use crate::context::Context;
use crate::finish::Wish;

/// The mirrors that the appliance was built with.
const MIRRORS: &str = "etc/castiron/sources.list";
/// No keyring is longer.
const KEYRING_MAX: Bytes = Bytes::mib(4);

pub fn packages(
    boot: &Boot,
    context: &mut Context,
    config: &Config,
    inventory: &Inventory,
    catalogue: &Catalogue,
    fetcher: &Fetcher,
) -> Result<PackageSet, Stop> {
    let defaults = ArchiveDefaults {
        sources: default_sources(boot),
        keyring: keyring(config, catalogue, fetcher)?,
        own_keyring: Path::new("/").join(ARCHIVE_KEYS).exists(),
        now: jiff::Timestamp::now().as_second(),
        memory: context.owns_machine.then(|| Memory::new(Utf8Path::new("/").join(RELEASES))),
        ..ArchiveDefaults::default()
    };
    let request = resolve::archive_request(config, inventory, catalogue, &defaults)?;
    let console = context.console.clone();
    let note = move |text: &str| console.line(text);
    let set = gather::gather(&request, fetcher, &note);
    set.map_err(|error| {
        let hint = error.hint();
        Stop::failed(&error, hint.as_deref())
    })
}

/// Those of the config, else those that the appliance was built with: given by hand, or the distribution's own, which it
/// carries where the distribution keeps them.
fn keyring(config: &Config, catalogue: &Catalogue, fetcher: &Fetcher) -> Result<Vec<u8>, Stop> {
    let bootstrap = config.source.bootstrap.as_ref();
    if let Some(resource) = bootstrap.and_then(|bootstrap| bootstrap.keyring.as_ref()) {
        let read = resource::read(resource, fetcher, KEYRING_MAX);
        return read.map_err(|error| Stop::failed(&error, Some(error.hint())));
    }
    let given = Path::new("/").join(ARCHIVE_KEYS);
    if given.exists() {
        return std::fs::read(&given).map_err(|error| Stop::failed(&error, None));
    }
    let known = bootstrap.and_then(|bootstrap| catalogue.distribution(&bootstrap.distribution));
    let Some(distribution) = known else { return Ok(Vec::new()) };
    std::fs::read(&distribution.keyring).map_err(|error| Stop::Failed {
        reason: format!("this appliance carries no keys of {}: {}: {error}", distribution.name, distribution.keyring),
        wish: Wish::default(),
    })
}

/// `castiron.mirror=`, else what the appliance was built with.
fn default_sources(boot: &Boot) -> Vec<Source> {
    if let Some(mirror) = &boot.mirror {
        let mirrors = vec![mirror.trim_end_matches('/').to_owned()];
        return vec![Source { mirrors, suites: Vec::new(), components: vec!["main".to_owned()] }];
    }
    let text = std::fs::read_to_string(Path::new("/").join(MIRRORS)).unwrap_or_default();
    text.lines().filter_map(source_line).collect()
}

/// The one-line style of sources.list(5), without options.
fn source_line(line: &str) -> Option<Source> {
    let mut words = line.split_whitespace();
    if words.next()? != "deb" {
        return None;
    }
    let mirror = words.next()?.trim_end_matches('/').to_owned();
    let suite = words.next()?.to_owned();
    let components: Vec<String> = words.map(str::to_owned).collect();
    Some(Source { mirrors: vec![mirror], suites: vec![suite], components })
}
