//! From what was written and what was seen to what shall be.
//!
//! In: a [`Config`], an [`Inventory`], the [`Catalogue`], the packages that the archive gave, a seed. Out: a
//! [`Spec`] with every default filled in, every identity chosen and every size in bytes; or all that is
//! wrong, with places.
//!
//! Invariant: pure. The same inputs give the same bytes; identities derive from the seed.

pub mod archive;
mod boot;
pub mod disks;
mod geometry;
mod layout;
mod machine;
mod network;
mod partition_type;
mod storage;
mod system;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use uuid::Uuid;

use crate::catalogue::{Board, Catalogue, Distribution};
use crate::config::Config;
use crate::config::source::Bootstrap;
use crate::config::storage::{Layout, LocalLoop, Storage};
use crate::config::system::{Confirm, Ending as WrittenEnding, InstallMode};
use crate::config::values::{Command, Size};
use crate::debian::PackageSet;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::inventory::{DeviceTree, Dmi, Inventory, Nic};
use crate::spec::{CommandSpec, CommandsSpec, Ending, Firmware, Spec};
use crate::units::{Bytes, Digest};

pub use archive::{ArchiveDefaults, archive_request};
pub use system::secrets;

/// Everything a part of `resolve` looks at, and where it leaves what is wrong.
struct Context<'a> {
    config: &'a Config,
    inventory: &'a Inventory,
    packages: Option<&'a PackageSet>,
    distribution: &'a Distribution,
    board: &'a Board,
    bootstrap: &'a Bootstrap,
    seed: Uuid,
    /// No machine is known yet: a disk is one of any size, and what only a machine can tell is not asked.
    any_machine: bool,
    found: Diagnostics,
}

impl Context<'_> {
    /// Notes a mistake at the place of a value such as `boot.loader`.
    fn refuse(&mut self, path: &str, diagnostic: Diagnostic) {
        self.found.push(diagnostic.at(self.config.places.of(path)));
    }

    /// An identity that is the same whenever the same machine gets the same config.
    fn identity(&self, name: &str) -> Uuid {
        Uuid::new_v5(&self.seed, name.as_bytes())
    }
}

/// Decides everything, or says all that stands against it.
pub fn resolve(
    config: &Config,
    inventory: &Inventory,
    catalogue: &Catalogue,
    packages: Option<&PackageSet>,
    seed: Uuid,
) -> Result<Spec, Diagnostics> {
    let source = Sources::find(config, inventory, catalogue)?;
    let mut context = Context {
        config,
        inventory,
        packages,
        distribution: source.distribution,
        board: source.board,
        bootstrap: source.bootstrap,
        seed,
        any_machine: false,
        found: Diagnostics::default(),
    };
    machine::check(&mut context);
    check_mode(&mut context);
    check_confirm(&mut context);
    let storage = written_storage(config);
    let graph = storage::resolve(&storage, &mut context);
    let boot = boot::resolve(graph.as_ref(), &mut context);
    let system = system::resolve(&mut context);
    let commands = commands(&mut context);
    if context.found.has_errors() {
        return Err(in_order(context.found));
    }
    let (Some(graph), Some(boot)) = (graph, boot) else { return Err(context.found) };
    Ok(Spec {
        seed,
        architecture: source.architecture.to_owned(),
        graph,
        packages: packages.cloned(),
        system,
        boot,
        commands,
        on_success: ending(config.install.on_success),
    })
}

/// All that is wrong with a config on every machine.
pub fn check(config: &Config, catalogue: &Catalogue) -> Diagnostics {
    let inventory = any_machine(catalogue);
    let source = match Sources::find(config, &inventory, catalogue) {
        Ok(source) => source,
        Err(found) => return found,
    };
    let mut context = Context {
        config,
        inventory: &inventory,
        packages: None,
        distribution: source.distribution,
        board: source.board,
        bootstrap: source.bootstrap,
        seed: Uuid::nil(),
        any_machine: true,
        found: Diagnostics::default(),
    };
    check_mode(&mut context);
    check_confirm(&mut context);
    storage::resolve(&written_storage(config), &mut context);
    boot::resolve(None, &mut context);
    system::resolve(&mut context);
    in_order(context.found)
}

/// In the order of the config; what has no place comes last.
fn in_order(mut found: Diagnostics) -> Diagnostics {
    found.0.sort_by_key(|diagnostic| match &diagnostic.place {
        Some(place) => (place.line, place.column),
        None => (u32::MAX, u32::MAX),
    });
    found
}

/// A machine that tells everything a config may ask for.
fn any_machine(catalogue: &Catalogue) -> Inventory {
    let told = || Some("x".to_owned());
    let dmi = Dmi { uuid: told(), serial: told(), asset_tag: told(), ..Dmi::default() };
    let firmware = Firmware::Bios;
    let architecture = catalogue.boards.first().map(|board| board.arch.clone()).unwrap_or_default();
    let nic = Nic { mac: told(), ..Nic::default() };
    let device_tree = Some(DeviceTree { serial: told(), ..DeviceTree::default() });
    Inventory { firmware, architecture, dmi, device_tree, memory: Bytes::ZERO, nics: vec![nic], disks: Vec::new() }
}

fn written_storage(config: &Config) -> Cow<'_, Storage> {
    match &config.storage {
        Some(storage) => Cow::Borrowed(storage),
        None => Cow::Owned(layout::default()),
    }
}

/// The seed of a machine's installation: the same machine and the same config give the same result.
pub fn seed(inventory: &Inventory, config: &[u8]) -> Uuid {
    let dmi = &inventory.dmi;
    let machine = [&dmi.uuid, &dmi.serial, &dmi.product].map(|text| text.as_deref().unwrap_or_default()).join("\0");
    let first_mac = inventory.nics.iter().find_map(|nic| nic.mac.as_deref()).unwrap_or_default();
    let name = format!("castiron\0{machine}\0{first_mac}\0{}", Digest::of(config));
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

/// The same config for an image file: every disk becomes a file with the disk's name. `size` goes before the
/// one that is written.
pub fn as_image(mut config: Config, size: Option<Bytes>) -> Config {
    let mut storage = config.storage.take().unwrap_or_else(layout::default);
    for entry in &mut storage.layout {
        if let Layout::Disk(disk) = entry {
            *entry = Layout::LocalLoop(Box::new(LocalLoop {
                name: disk.name.clone(),
                size: None,
                block_size: None,
                directory: None,
                partitioning: disk.partitioning.take(),
                mkfs: disk.mkfs.take(),
            }));
        }
        if let (Layout::LocalLoop(image), Some(size)) = (entry, size) {
            image.size = Some(Size::Exact(size));
        }
    }
    config.storage = Some(Storage { layout: storage.layout });
    config
}

/// What the source refers to in the catalogue.
struct Sources<'a> {
    bootstrap: &'a Bootstrap,
    distribution: &'a Distribution,
    board: &'a Board,
    architecture: &'a str,
}

impl<'a> Sources<'a> {
    fn find(config: &'a Config, inventory: &'a Inventory, catalogue: &'a Catalogue) -> Result<Self, Diagnostics> {
        let Some(bootstrap) = &config.source.bootstrap else {
            return Err(Diagnostic::error("source.none", "`source` names nothing to install")
                .at(config.places.of("source"))
                .hint("write `source: { bootstrap: { release: trixie } }`")
                .into());
        };
        let Some(distribution) = catalogue.distribution(&bootstrap.distribution) else {
            let known: Vec<&str> = catalogue.distributions.iter().map(|known| known.name.as_str()).collect();
            let message = format!("distribution `{}` is not known", bootstrap.distribution);
            return Err(Diagnostic::error("source.distribution", message)
                .at(config.places.of("source.bootstrap.distribution"))
                .hint(format!("write one of: {}", known.join(", ")))
                .into());
        };
        let architecture = bootstrap.architecture.as_deref().unwrap_or(&inventory.architecture);
        let Some(board) = catalogue.board_for(architecture) else {
            let known: Vec<&str> = catalogue.boards.iter().map(|board| board.arch.as_str()).collect();
            return Err(Diagnostic::error(
                "source.architecture",
                format!("no board has architecture `{architecture}`"),
            )
            .at(config.places.of("source.bootstrap.architecture"))
            .hint(format!("write one of: {}", known.join(", ")))
            .into());
        };
        Ok(Self { bootstrap, distribution, board, architecture })
    }
}

fn check_mode(context: &mut Context<'_>) {
    match context.config.install.mode {
        InstallMode::Install | InstallMode::Inspect | InstallMode::Rehearse | InstallMode::Rescue => {}
        mode @ (InstallMode::Wipe | InstallMode::Ramdisk) => {
            let message = format!("mode `{}` is not in this version of castiron", format!("{mode:?}").to_lowercase());
            let hint = "write `install`, `inspect`, `rehearse` or `rescue`";
            context.refuse("install.mode", Diagnostic::error("config.later", message).hint(hint));
        }
    }
}

/// A word that nobody would ask for is refused, never passed over.
fn check_confirm(context: &mut Context<'_>) {
    match context.config.install.confirm {
        Confirm::Auto | Confirm::Console => {}
        Confirm::Remote => {
            let message = "confirming from afar (`remote`) is not in this version of castiron";
            let hint = "write `console` to be asked on the machine's consoles, or `auto`";
            context.refuse("install.confirm", Diagnostic::error("config.later", message).hint(hint));
        }
    }
}

fn ending(ending: WrittenEnding) -> Ending {
    match ending {
        WrittenEnding::Reboot => Ending::Reboot,
        WrittenEnding::Poweroff => Ending::Poweroff,
        WrittenEnding::Halt => Ending::Halt,
        WrittenEnding::Kexec => Ending::Kexec,
        WrittenEnding::Shell => Ending::Shell,
        WrittenEnding::Wait => Ending::Wait,
    }
}

fn commands(context: &mut Context<'_>) -> CommandsSpec {
    let decide = |commands: &[Command]| commands.iter().map(command).collect::<Vec<_>>();
    let config = context.config;
    let mut in_target: Vec<CommandSpec> = network::enable(context).into_iter().map(CommandSpec::Exec).collect();
    in_target.extend(decide(&config.in_target));
    CommandsSpec {
        early: decide(&config.early_commands),
        in_target,
        late: decide(&config.late_commands),
        on_error: decide(&config.error_commands),
    }
}

fn command(command: &Command) -> CommandSpec {
    match command {
        Command::Shell(text) => CommandSpec::Shell(text.clone()),
        Command::Exec(words) => CommandSpec::Exec(words.clone()),
    }
}
