//! The installation itself: ordinary code that runs as PID 1 and on a development machine alike.
//!
//! In: the command line and a [`Context`]. Out: an [`Outcome`]. Nothing is written to a disk before the config is
//! verified, the archive's index too, everything is resolved, and the disk's identity is proven once more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castiron_engine::catalogue::Catalogue;
use castiron_engine::config::system::{Ending as Written, Proxy};
use castiron_engine::config::{self, Config};
use castiron_engine::debian::gather::Source;
use castiron_engine::debian::{PackageSet, gather};
use castiron_engine::diagnostic::Diagnostics;
use castiron_engine::event::{Event, EventSink};
use castiron_engine::fetch::{Fetcher, resource};
use castiron_engine::inventory::Inventory;
use castiron_engine::plan::disk::Places;
use castiron_engine::plan::{self, Plan, StepPhase};
use castiron_engine::resolve::{self, ArchiveDefaults};
use castiron_engine::run::{Journal, Observer, OnFailure, run};
use castiron_engine::spec::{self, Spec};
use castiron_engine::system::{Linux, Recorder, System, Toolbox};
use castiron_engine::trust::{self, Document, Proof, Verified};
use castiron_engine::units::Bytes;
use castiron_init::anchors::{self, TrustArguments};
use castiron_init::net::{self, NetArguments, NetRequest, NetState};
use castiron_init::report::Reporting;
use castiron_init::sources::{self, SourceRequest, Variables};
use castiron_init::time::{Clocks, KernelClock};

use crate::cmdline::{Boot, Ending, Mode};
use crate::context::{Context, Stopped};
use crate::early;
use crate::finish::{Kexec, Outcome, Wish};
use crate::log::Priority;
use crate::phases::Phase;

/// Where the target's file systems are mounted.
const TARGET: &str = "/run/castiron/target";
/// The mirrors that the appliance was built with.
const MIRRORS: &str = "etc/castiron/sources.list";
/// No keyring is longer.
const KEYRING_MAX: Bytes = Bytes::mib(4);
const NTP_WAIT: Duration = Duration::from_secs(5);

/// Why an installation ended early.
enum Stop {
    /// Somebody asked for it.
    Stopped(Stopped),
    Failed {
        reason: String,
        wish: Wish,
    },
}

impl From<Stopped> for Stop {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl Stop {
    fn failed(error: &dyn std::error::Error, hint: Option<&str>) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason.push_str(&format!("\n  cause: {error}"));
            cause = error.source();
        }
        if let Some(hint) = hint {
            reason.push_str(&format!("\n  hint: {hint}"));
        }
        Self::Failed { reason, wish: Wish::default() }
    }
}

impl From<Diagnostics> for Stop {
    fn from(found: Diagnostics) -> Self {
        Self::Failed { reason: found.to_string(), wish: Wish::default() }
    }
}

pub fn install(boot: &Boot, context: &mut Context) -> Result<Outcome, Stopped> {
    match attempt(boot, context) {
        Ok(outcome) => {
            context.enter(Phase::Finish)?;
            Ok(outcome)
        }
        Err(Stop::Stopped(stopped)) => Err(stopped),
        Err(Stop::Failed { reason, wish }) => {
            context.console.warn(&reason);
            Ok(Outcome::Failed { reason, wish })
        }
    }
}

fn attempt(boot: &Boot, context: &mut Context) -> Result<Outcome, Stop> {
    if boot.mode == Some(Mode::Rescue) {
        return Ok(Outcome::Done { wish: Wish { ending: Some(Ending::Shell), reboot_after: None }, kexec: None });
    }
    let root = PathBuf::from("/");
    let network = bring_up(boot, context)?;
    let (fetcher, mut clocks) = fetcher_and_clocks(boot, context, &root, network.as_ref())?;
    let (document, config) = find_config(boot, context, &root, network.as_ref(), &fetcher, &mut clocks)?;
    let fetcher = behind_proxy_of(&config, boot, &root, fetcher)?;
    report_to(context, &config, &variables(boot, &root, network.as_ref()), &fetcher);
    synchronise(context, &config, network.as_ref(), &mut clocks)?;
    let wish = wish(&config);
    let failed = |stop: Stop| match stop {
        Stop::Failed { reason, .. } => Stop::Failed { reason, wish: failure_wish(&config) },
        stopped @ Stop::Stopped(_) => stopped,
    };
    let (spec, plan) = decide(boot, context, &document, &config, &fetcher).map_err(failed)?;
    carry_out(context, &config, &spec, &plan, &fetcher).map_err(failed)?;
    context.enter(Phase::Report)?;
    if let Some(network) = &network {
        network.report(&mut context.events);
    }
    let kexec = (spec.on_success == spec::Ending::Kexec).then(|| Kexec {
        kernel: Path::new(plan::boot::KEXEC_FOLDER).join("vmlinuz"),
        initrd: Path::new(plan::boot::KEXEC_FOLDER).join("initrd.img"),
        command_line: plan::boot::arguments(&spec).join(" "),
    });
    Ok(Outcome::Done { wish, kexec })
}

/// An appliance with its config built in may need no network, so its absence is told and not yet an end.
fn bring_up(boot: &Boot, context: &mut Context) -> Result<Option<NetState>, Stop> {
    context.enter(Phase::Network)?;
    let arguments = NetArguments {
        ip: boot.network.ip.iter().map(String::as_str).collect(),
        nameserver: boot.network.nameserver.iter().map(String::as_str).collect(),
        bootif: boot.network.bootif.as_deref(),
        route: boot.network.route.iter().map(String::as_str).collect(),
        vlan: boot.network.vlan.iter().map(String::as_str).collect(),
        bond: boot.network.bond.iter().map(String::as_str).collect(),
    };
    let request = NetRequest::parse(&arguments)?;
    match net::bring_up(&request, &mut context.events) {
        Ok(state) => Ok(Some(state)),
        Err(error) => {
            context.console.warn(&format!("no network: {error}\n  hint: {}", error.hint()));
            Ok(None)
        }
    }
}

fn fetcher_and_clocks(
    boot: &Boot,
    context: &mut Context,
    root: &Path,
    network: Option<&NetState>,
) -> Result<(Fetcher, Clocks), Stop> {
    context.enter(Phase::Time)?;
    let options = anchors::fetch_options(root, boot.proxy.as_deref(), &boot.ca)
        .map_err(|error| Stop::failed(&error, Some("correct castiron.ca= or castiron.proxy=")))?;
    let fetcher = Fetcher::new(&options).map_err(|error| Stop::failed(&error, None))?;
    let clock = kernel_clock(context);
    let mut clocks = Clocks::start(root, &clock, &mut context.events);
    let servers: Vec<String> = match network {
        Some(network) => boot.ntp.iter().cloned().chain(network.ntp().iter().map(ToString::to_string)).collect(),
        None => Vec::new(),
    };
    clocks.ask_network(&servers, NTP_WAIT, &clock, &mut context.events);
    Ok((fetcher, clocks))
}

/// From here on by the config's proxy, unless the command line names one.
fn behind_proxy_of(config: &Config, boot: &Boot, root: &Path, fetcher: Fetcher) -> Result<Fetcher, Stop> {
    if config.proxy == Proxy::default() || boot.proxy.is_some() {
        return Ok(fetcher);
    }
    let options = anchors::fetch_options(root, None, &boot.ca)
        .map_err(|error| Stop::failed(&error, None))?
        .or_proxy(&config.proxy);
    Fetcher::new(&options).map_err(|error| Stop::failed(&error, Some("correct `proxy` in the config")))
}

fn kernel_clock(context: &Context) -> KernelClock {
    KernelClock { may_set: early::is_init() && context.recorded_inventory.is_none() }
}

/// The config, verified and read; nothing of it is looked at before.
fn find_config(
    boot: &Boot,
    context: &mut Context,
    root: &Path,
    network: Option<&NetState>,
    fetcher: &Fetcher,
    clocks: &mut Clocks,
) -> Result<(Verified<Document>, Config), Stop> {
    context.enter(Phase::Config)?;
    let arguments = TrustArguments { keys: &boot.keys, pin: boot.config_hash, any: boot.trust_any };
    let policy = anchors::policy(root, &arguments).map_err(|error| Stop::failed(&error, None))?;
    let request = SourceRequest {
        config: boot.config.clone(),
        early: boot.config_early.clone(),
        inline: boot.config_inline.clone(),
        device: boot.config_device.clone(),
        path: boot.config_path.clone(),
        dhcp_urls: network.map(NetState::config_urls).unwrap_or_default(),
        variables: variables(boot, root, network),
        signature: boot.config_hash.is_none(),
        root: root.to_owned(),
        ..SourceRequest::default()
    };
    let document = sources::find(&request, fetcher, &mut context.events)
        .map_err(|error| Stop::failed(&error, Some(&error.hint())))?;
    context.console.line(&format!("config: {}", document.name));
    let verified = trust::verify(document, &policy, &sources::machine(root), &clocks.evidence())
        .map_err(|error| Stop::failed(&error, Some(error.hint())))?;
    context.console.line(&format!("config: {}", verified.proof()));
    if let Proof::Anything = verified.proof() {
        context.console.warn("ANYONE ON THIS NETWORK COULD HAVE WRITTEN THIS CONFIG (castiron.trust=any)");
    }
    if let Proof::Signed { clock, envelope, .. } = verified.proof() {
        clocks.adopt(envelope.window, clock, &kernel_clock(context), &mut context.events);
    }
    let config = config::parse(&verified.get().bytes, &verified.get().name)?;
    Ok((verified, config))
}

/// What may stand in URLs for this machine.
fn variables(boot: &Boot, root: &Path, network: Option<&NetState>) -> Variables {
    let mac = network.and_then(NetState::boot_link).map(|link| link.mac);
    let hostname = network.and_then(NetState::hostname).or_else(|| boot.network.hostname.clone());
    Variables::read(root, mac, hostname)
}

/// The config's time servers, if no other has answered before.
fn synchronise(
    context: &mut Context,
    config: &Config,
    network: Option<&NetState>,
    clocks: &mut Clocks,
) -> Result<(), Stop> {
    let ntp = &config.ntp;
    if network.is_some() && !clocks.is_synchronised() && !ntp.servers.is_empty() {
        clocks.ask_network(&ntp.servers, ntp.boot_timeout.0, &kernel_clock(context), &mut context.events);
    }
    match ntp.required && !clocks.is_synchronised() {
        true => Err(Stop::Failed {
            reason: "no time server answered, and ntp.required says that one must".to_owned(),
            wish: failure_wish(config),
        }),
        false => Ok(()),
    }
}

/// From here on whoever the config names hears every event.
fn report_to(context: &mut Context, config: &Config, variables: &Variables, fetcher: &Fetcher) {
    let machine = config.identity.hostname.as_ref().and_then(|name| variables.fill_plain(&name.0).ok());
    let (reporting, troubles) = Reporting::start(config, variables, fetcher.client(), machine.as_deref());
    for trouble in troubles {
        context.console.warn(&trouble);
    }
    for webhook in reporting.sinks() {
        context.events.add(webhook);
    }
    context.reporting = reporting;
}

fn wish(config: &Config) -> Wish {
    Wish { ending: Some(ending(config.install.on_success)), reboot_after: None }
}

fn failure_wish(config: &Config) -> Wish {
    let on_error = &config.install.on_error;
    Wish { ending: Some(ending(on_error.action)), reboot_after: on_error.reboot_after.as_ref().map(|span| span.0) }
}

fn ending(written: Written) -> Ending {
    match written {
        Written::Reboot => Ending::Reboot,
        Written::Poweroff => Ending::PowerOff,
        Written::Halt => Ending::Halt,
        Written::Kexec => Ending::Kexec,
        Written::Shell => Ending::Shell,
        Written::Wait => Ending::Wait,
    }
}

/// Everything that can be checked is checked here, before the first write.
fn decide(
    boot: &Boot,
    context: &mut Context,
    document: &Verified<Document>,
    config: &Config,
    fetcher: &Fetcher,
) -> Result<(Spec, Plan), Stop> {
    context.enter(Phase::Inventory)?;
    context.devices.settle(Duration::from_secs(3));
    let inventory = read_inventory(context)?;
    for disk in &inventory.disks {
        context.console.line(&format!("disk: {disk}"));
    }
    context.enter(Phase::Plan)?;
    let catalogue = Catalogue::shipped().map_err(|error| Stop::failed(&error, None))?;
    let seed = resolve::seed(&inventory, &document.get().bytes);
    // Disks are chosen and sizes checked before anything is fetched.
    resolve::resolve(config, &inventory, &catalogue, None, seed)?;
    let packages = archive(boot, context, config, &inventory, &catalogue, fetcher)?;
    let spec = resolve::resolve(config, &inventory, &catalogue, Some(&packages), seed)?;
    let places = Places { root: TARGET.into(), images: BTreeMap::new() };
    let plan = plan::disk::plan(&spec, &places).map_err(|error| Stop::failed(&error, None))?;
    let missing = toolbox().missing(&plan);
    if let (Some(tool), None) = (missing.first(), &context.recorded_inventory) {
        let source = tool.source();
        let reason = format!("this appliance lacks {}, which the plan needs", source.name);
        return Err(Stop::Failed { reason, wish: Wish::default() });
    }
    context.console.line(&plan::render::text(&spec, &plan));
    Ok((spec, plan))
}

fn read_inventory(context: &Context) -> Result<Inventory, Stop> {
    match &context.recorded_inventory {
        None => Inventory::read(Path::new("/")).map_err(|error| Stop::failed(&error, None)),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Stop::failed(&error, None))?;
            serde_json::from_str(&text).map_err(|error| Stop::failed(&error, None))
        }
    }
}

fn archive(
    boot: &Boot,
    context: &mut Context,
    config: &Config,
    inventory: &Inventory,
    catalogue: &Catalogue,
    fetcher: &Fetcher,
) -> Result<PackageSet, Stop> {
    let keyring = keyring(config, catalogue, fetcher)?;
    let defaults = ArchiveDefaults {
        sources: default_sources(boot),
        nearer_mirrors: Vec::new(),
        keyring,
        now: jiff::Timestamp::now().as_second(),
        date_floor: None,
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

/// Those of the config, else the distribution's own, which the appliance carries where the distribution keeps them.
fn keyring(config: &Config, catalogue: &Catalogue, fetcher: &Fetcher) -> Result<Vec<u8>, Stop> {
    let bootstrap = config.source.bootstrap.as_ref();
    if let Some(resource) = bootstrap.and_then(|bootstrap| bootstrap.keyring.as_ref()) {
        let read = resource::read(resource, fetcher, KEYRING_MAX);
        return read.map_err(|error| Stop::failed(&error, Some(error.hint())));
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

fn toolbox() -> Toolbox {
    Toolbox::from_search_path(&std::env::var("PATH").unwrap_or_default())
}

fn carry_out(context: &mut Context, config: &Config, spec: &Spec, plan: &Plan, fetcher: &Fetcher) -> Result<(), Stop> {
    let log = context.log.clone();
    let recorded = context.recorded_inventory.is_some();
    let secrets = resolve::secrets(config);
    let mut linux = Linux::new(toolbox(), fetcher, secrets, move |line| log.add(Priority::Info, line));
    let mut recorder = Recorder::default();
    let system: &mut dyn System = if recorded { &mut recorder } else { &mut linux };
    let shared = RefCell::new(&mut *context);
    let mut watcher = Watcher { context: &shared, stopped: false };
    let outcome = run(plan, &mut Journal::default(), system, &mut Emitter(&shared), &mut watcher, OnFailure::Revert);
    if watcher.stopped {
        return Err(Stop::Stopped(Stopped));
    }
    outcome.map_err(|error| {
        let hint = error.cause.hint().map(str::to_owned);
        Stop::failed(&error, hint.as_deref())
    })?;
    let reached: Vec<String> = spec.graph.disks().map(|(id, _)| id.to_string()).collect();
    context.console.line(&format!("installed on {}", reached.join(", ")));
    Ok(())
}

/// What `run` tells goes where the phases' events go.
struct Emitter<'a, 'b>(&'a RefCell<&'b mut Context>);

impl EventSink for Emitter<'_, '_> {
    fn emit(&mut self, event: &Event) {
        self.0.borrow_mut().events.emit(event);
    }
}

/// The plan's phases are the appliance's.
struct Watcher<'a, 'b> {
    context: &'a RefCell<&'b mut Context>,
    stopped: bool,
}

impl Observer for Watcher<'_, '_> {
    fn phase(&mut self, phase: StepPhase) {
        let phase = match phase {
            StepPhase::Storage => Phase::Storage,
            StepPhase::Bootstrap => Phase::Bootstrap,
            StepPhase::Provision => Phase::Provision,
            StepPhase::BootLoader => Phase::BootLoader,
        };
        self.stopped |= self.context.borrow_mut().enter(phase).is_err();
    }

    fn interrupted(&self) -> bool {
        self.stopped || self.context.borrow().stop_requested()
    }
}
