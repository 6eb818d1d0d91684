//! The installation itself: ordinary code that runs as PID 1 and on a development machine alike.
//!
//! In: the command line and a [`Context`]. Out: an [`Outcome`]. Nothing is written to a disk before the config is
//! verified, the archive's index too, everything is resolved, and the disk's identity is proven once more.

mod archive;
mod confirm;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castiron_engine::catalogue::Catalogue;
use castiron_engine::config::system::{Ending as Written, Proxy};
use castiron_engine::config::{self, Config};
use castiron_engine::diagnostic::Diagnostics;
use castiron_engine::fetch::Fetcher;
use castiron_engine::inventory::Inventory;
use castiron_engine::plan::disk::Places;
use castiron_engine::plan::{self, Plan};
use castiron_engine::resolve;
use castiron_engine::run::after_failure;
use castiron_engine::spec::{self, Spec};
use castiron_engine::trust::{self, Document, Proof, Verified};
use castiron_init::anchors::{self, TrustArguments};
use castiron_init::net::{self, NetArguments, NetRequest, NetState};
use castiron_init::report::Reporting;
use castiron_init::sources::{self, SourceRequest, Variables};
use castiron_init::time::{Clocks, KernelClock};

use crate::cmdline::{Boot, Ending, Mode};
use crate::context::{Context, Stopped};
use crate::finish::{Kexec, Outcome, Wish};
use crate::phases::Phase;

/// Where the target's file systems are mounted.
const TARGET: &str = "/run/castiron/target";
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
        Ok(outcome @ Outcome::Done { .. }) => {
            context.enter(Phase::Finish)?;
            Ok(outcome)
        }
        Ok(outcome) => Ok(outcome),
        Err(Stop::Stopped(stopped)) => Err(stopped),
        Err(Stop::Failed { reason, wish }) => {
            context.console.warn(&reason);
            Ok(Outcome::Failed { reason, wish })
        }
    }
}

fn attempt(boot: &Boot, context: &mut Context) -> Result<Outcome, Stop> {
    match boot.mode {
        Some(Mode::Rescue) => return Ok(rescue(context)),
        Some(Mode::Wipe | Mode::Ramdisk) => return Err(mode_later()),
        Some(Mode::Install | Mode::Inspect | Mode::Rehearse) | None => {}
    }
    let root = PathBuf::from("/");
    let network = bring_up(boot, context)?;
    let (fetcher, mut clocks) = fetcher_and_clocks(boot, context, &root, network.as_ref())?;
    let (document, config) = find_config(boot, context, &root, network.as_ref(), &fetcher, &mut clocks)?;
    let fetcher = behind_proxy_of(&config, boot, &root, fetcher)?;
    report_to(context, &config, &variables(boot, &root, network.as_ref()), &fetcher);
    let mode = boot.mode.unwrap_or(config.install.mode);
    if mode == Mode::Rescue {
        return Ok(rescue(context));
    }
    let failed = |stop: Stop| match stop {
        Stop::Failed { reason, .. } => Stop::Failed { reason, wish: failure_wish(&config) },
        stopped @ Stop::Stopped(_) => stopped,
    };
    synchronise(context, &config, network.as_ref(), &mut clocks).map_err(failed)?;
    let spec = decide(boot, context, &document, &config, &fetcher).map_err(failed)?;
    let writes = context.recorded_inventory.is_none() && mode == Mode::Install;
    let mut system = work::system(context, &config, &fetcher, writes);
    let done = plan_of(context, &spec).and_then(|plan| match mode {
        Mode::Inspect => {
            context.done = "inspected, nothing was written";
            Ok(())
        }
        Mode::Install | Mode::Rehearse | Mode::Rescue | Mode::Wipe | Mode::Ramdisk => {
            if writes {
                confirm::ask(boot, context, &config, document.get().origin, &spec, &plan)?;
            }
            work::carry_out(context, &plan, &mut *system)?;
            if writes {
                let reached: Vec<String> = spec.graph.disks().map(|(id, _)| id.to_string()).collect();
                context.console.line(&format!("installed on {}", reached.join(", ")));
            } else {
                context.done = "rehearsed, nothing was written";
            }
            Ok(())
        }
    });
    match done {
        Ok(()) => {}
        Err(stopped @ Stop::Stopped(_)) => return Err(stopped),
        Err(Stop::Failed { reason, .. }) => {
            context.console.warn(&reason);
            after_failure(&plan::disk::on_failure(&spec), &mut *system, &mut context.events);
            return Ok(Outcome::Failed { reason, wish: failure_wish(&config) });
        }
    }
    context.enter(Phase::Report)?;
    if let Some(network) = &network {
        network.report(&mut context.events);
    }
    let kexec = (mode == Mode::Install && spec.on_success == spec::Ending::Kexec).then(|| Kexec {
        kernel: Path::new(plan::boot::KEXEC_FOLDER).join("vmlinuz"),
        initrd: Path::new(plan::boot::KEXEC_FOLDER).join("initrd.img"),
        command_line: plan::boot::arguments(&spec).join(" "),
    });
    Ok(Outcome::Done { wish: wish(&config), kexec })
}

fn rescue(context: &mut Context) -> Outcome {
    context.done = "a shell for a rescue";
    Outcome::Done { wish: Wish { ending: Some(Ending::Shell), reboot_after: None }, kexec: None }
}

fn mode_later() -> Stop {
    Stop::Failed {
        reason:
            "this castiron.mode= is not in this version of castiron\n  hint: write install, inspect, rehearse or rescue"
                .to_owned(),
        wish: Wish::default(),
    }
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
    KernelClock { may_set: context.owns_machine }
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
    let mut config = config::parse(&verified.get().bytes, &verified.get().name)?;
    // The plan keeps a kernel at hand for an ending by kexec, so it has to know of the command line's.
    config.install.on_success = boot.on_success.map_or(config.install.on_success, written);
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
    let clock = kernel_clock(context);
    let synchronised = clocks.synchronise(&config.ntp, network.is_some(), &clock, &mut context.events);
    synchronised.map_err(|error| Stop::failed(&error, Some("see whether a server can be reached, or leave it out")))
}

/// From here on whoever the config names hears every event.
fn report_to(context: &mut Context, config: &Config, variables: &Variables, fetcher: &Fetcher) {
    let machine = config.identity.hostname.as_ref().and_then(|name| variables.fill_plain(&name.0).ok());
    let (reporting, listeners, troubles) = Reporting::start(config, variables, fetcher.client(), machine.as_deref());
    for trouble in troubles {
        context.console.warn(&trouble);
    }
    for listener in listeners {
        context.events.add(listener);
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

fn written(ending: Ending) -> Written {
    match ending {
        Ending::Reboot => Written::Reboot,
        Ending::PowerOff => Written::Poweroff,
        Ending::Halt => Written::Halt,
        Ending::Kexec => Written::Kexec,
        Ending::Shell => Written::Shell,
        Ending::Wait => Written::Wait,
    }
}

/// Everything that can be checked without a plan is checked here.
fn decide(
    boot: &Boot,
    context: &mut Context,
    document: &Verified<Document>,
    config: &Config,
    fetcher: &Fetcher,
) -> Result<Spec, Stop> {
    context.enter(Phase::Inventory)?;
    context.devices.settle(Duration::from_secs(3));
    let inventory = read_inventory(context)?;
    for line in inventory.lines() {
        context.note(Phase::Inventory, &line);
    }
    context.enter(Phase::Plan)?;
    let catalogue = Catalogue::shipped().map_err(|error| Stop::failed(&error, None))?;
    let seed = resolve::seed(&inventory, &document.get().bytes);
    // Disks are chosen and sizes checked before anything is fetched.
    resolve::resolve(config, &inventory, &catalogue, None, seed)?;
    let packages = archive::packages(boot, context, config, &inventory, &catalogue, fetcher)?;
    Ok(resolve::resolve(config, &inventory, &catalogue, Some(&packages), seed)?)
}

/// The plan, shown and reported, with all its tools at hand.
fn plan_of(context: &mut Context, spec: &Spec) -> Result<Plan, Stop> {
    let places = Places { root: TARGET.into(), images: BTreeMap::new() };
    let plan = plan::disk::plan(spec, &places).map_err(|error| Stop::failed(&error, None))?;
    let missing = work::toolbox().missing(&plan);
    if let (Some(tool), None) = (missing.first(), &context.recorded_inventory) {
        let source = tool.source();
        let reason = format!("this appliance lacks {}, which the plan needs", source.name);
        return Err(Stop::Failed { reason, wish: Wish::default() });
    }
    context.console.line(&plan::render::text(spec, &plan));
    for loss in &plan.losses {
        context.note(Phase::Plan, &format!("to be lost: {loss}"));
    }
    context.note(Phase::Plan, &format!("{} steps, plan {}", plan.steps.len(), plan.digest()));
    Ok(plan)
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
