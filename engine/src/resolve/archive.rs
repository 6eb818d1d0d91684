//! Which archive to ask, and for what. Pure; asking is [`crate::debian::gather`].

use super::Sources;
use crate::catalogue::{self, Catalogue};
use crate::config::Config;
use crate::config::source::Variant as WrittenVariant;
use crate::config::storage::{Layout, Storage};
use crate::config::system::{FirmwareChoice, Loader};
use crate::debian::{ArchiveRequest, Memory, Source, Variant};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::Inventory;
use crate::spec::Firmware;

/// What the config leaves to where castiron runs.
#[derive(Clone, Debug, Default)]
pub struct ArchiveDefaults {
    /// Mirrors for a config that names none: of the appliance, or of the build host's own apt. Those without
    /// suites serve the release.
    pub sources: Vec<Source>,
    /// Go before the mirrors of the config, for a cache at hand; they must serve all the suites.
    pub nearer_mirrors: Vec<String>,
    /// OpenPGP certificates: of `source.bootstrap.keyring` if the config has one, else the distribution's.
    pub keyring: Vec<u8>,
    /// Seconds since 1970.
    pub now: i64,
    /// Releases dated earlier are replays (seconds since 1970).
    pub date_floor: Option<i64>,
    /// The keys are others than the distribution's, so that no package brings them to the target.
    pub own_keyring: bool,
    /// What earlier runs saw of archives.
    pub memory: Option<Memory>,
    /// Believe an older state of an archive than was seen.
    pub allow_older: bool,
}

/// The request for everything that the config's system is made of.
pub fn archive_request(
    config: &Config,
    inventory: &Inventory,
    catalogue: &Catalogue,
    defaults: &ArchiveDefaults,
) -> Result<ArchiveRequest, Diagnostics> {
    let found = Sources::find(config, inventory, catalogue)?;
    let bootstrap = found.bootstrap;
    let release = || vec![bootstrap.release.clone()];
    let mut sources: Vec<Source> = Vec::new();
    for mirror in &bootstrap.mirrors {
        let suites = if mirror.suites.is_empty() { release() } else { mirror.suites.clone() };
        let uri = mirror.uri.trim_end_matches('/').to_owned();
        // Mirrors of the same suites are the same archive, one standing in for the other.
        match sources.iter_mut().find(|known| known.suites == suites && known.components == mirror.components) {
            Some(known) => known.mirrors.push(uri),
            None => {
                let mirrors = defaults.nearer_mirrors.iter().cloned().chain([uri]).collect();
                sources.push(Source { mirrors, suites, components: mirror.components.clone() });
            }
        }
    }
    if sources.is_empty() {
        sources = defaults.sources.clone();
        sources.iter_mut().filter(|source| source.suites.is_empty()).for_each(|source| source.suites = release());
    }
    if sources.iter().all(|source| source.mirrors.is_empty()) {
        return Err(Diagnostic::error("source.mirror", "no mirror is known")
            .at(config.places.of("source.bootstrap"))
            .hint("write `mirrors: [ { uri: \"https://mirror.example.org/debian\" } ]`")
            .into());
    }
    let mut include = include(config, inventory, &found);
    let in_target = bootstrap.mirrors.iter().map(|mirror| mirror.target_uri.as_ref().unwrap_or(&mirror.uri));
    let unnamed = sources.iter().filter(|_| bootstrap.mirrors.is_empty()).flat_map(|source| source.mirrors.first());
    if in_target.chain(unnamed).any(|uri| uri.starts_with("https:")) {
        include.extend(
            found
                .distribution
                .packages
                .https
                .iter()
                .filter(|name| !include.contains(name))
                .cloned()
                .collect::<Vec<_>>(),
        );
    }
    Ok(ArchiveRequest {
        sources,
        architecture: found.architecture.to_owned(),
        foreign_architectures: foreign(config, found.architecture),
        variant: Some(match bootstrap.variant {
            WrittenVariant::Minbase => Variant::Minbase,
            WrittenVariant::Buildd => Variant::Buildd,
            WrittenVariant::Important => Variant::Important,
            WrittenVariant::Standard => Variant::Standard,
        }),
        include,
        exclude: Vec::new(),
        recommends: false,
        keyring: defaults.keyring.clone(),
        now: defaults.now,
        date_floor: defaults.date_floor,
        ignore_valid_until: false,
        memory: defaults.memory.clone(),
        allow_older: defaults.allow_older,
        hand_over_keyring: defaults.own_keyring || bootstrap.keyring.is_some(),
    })
}

/// The architectures that packages are named with, beside the system's own.
fn foreign(config: &Config, own: &str) -> Vec<String> {
    let named = config.packages.iter().filter_map(|name| name.0.split_once(':')).map(|(_, arch)| arch.to_owned());
    let mut foreign: Vec<String> = named.filter(|arch| arch != own && arch != "any" && arch != "all").collect();
    foreign.sort();
    foreign.dedup();
    foreign
}

/// The system's packages, the kernel and the loader, what settings need, and what the config names.
fn include(config: &Config, inventory: &Inventory, found: &Sources<'_>) -> Vec<String> {
    let packages = &found.distribution.packages;
    let mut include: Vec<String> = match &found.bootstrap.base_packages {
        Some(base) => base.iter().map(|name| name.0.clone()).collect(),
        None => {
            let addressed = config.network.as_ref().is_none_or(|network| !network.ethernets.is_empty());
            let resolver = if addressed { packages.resolver.as_slice() } else { &[] };
            packages.system.iter().chain(resolver).cloned().collect()
        }
    };
    if config.boot.loader != Loader::None {
        let kernel = config.boot.kernel_package.as_ref().map_or(&found.board.kernel.package, |name| &name.0);
        include.push(kernel.clone());
        match &config.boot.loader_packages {
            Some(loader) => include.extend(loader.iter().map(|name| name.0.clone())),
            None => {
                include.extend(packages.loader.iter().cloned());
                include.extend(loader_of_board(config, inventory, found.board));
            }
        }
    }
    if config.locale.as_deref().is_some_and(needs_locales) {
        include.extend(packages.locale.iter().cloned());
    }
    if config.timezone.as_deref().is_some_and(|zone| !["UTC", "Etc/UTC"].contains(&zone)) {
        include.extend(packages.timezone.iter().cloned());
    }
    if config.keyboard.is_some() {
        include.extend(packages.keyboard.iter().cloned());
    }
    if config.users.iter().any(|user| !user.sudo.0.is_empty()) {
        include.extend(packages.sudo.iter().cloned());
    }
    include.extend(config.packages.iter().map(|name| name.0.clone()));
    let mut seen = std::collections::BTreeSet::new();
    include.retain(|name| seen.insert(name.clone()));
    include
}

/// The C library carries `C` and `POSIX` itself.
pub(super) fn needs_locales(locale: &str) -> bool {
    let language = locale.split('.').next().unwrap_or_default();
    !["C", "POSIX"].contains(&language)
}

fn loader_of_board(config: &Config, inventory: &Inventory, board: &catalogue::Board) -> Vec<String> {
    let is_image = |storage: &Storage| storage.layout.iter().any(|entry| matches!(entry, Layout::LocalLoop(_)));
    let image = config.storage.as_ref().is_some_and(is_image);
    let wants = |kind: Firmware| match config.boot.firmware {
        FirmwareChoice::Auto => image || inventory.firmware == kind,
        FirmwareChoice::Both => true,
        FirmwareChoice::Uefi => kind == Firmware::Uefi,
        FirmwareChoice::Bios => kind == Firmware::Bios,
    };
    let bios = board.bios.as_ref().filter(|_| wants(Firmware::Bios)).map(|bios| bios.grub.package.clone());
    let uefi = board.efi.as_ref().filter(|_| wants(Firmware::Uefi)).map(|efi| efi.grub.package.clone());
    bios.into_iter().chain(uefi).collect()
}
