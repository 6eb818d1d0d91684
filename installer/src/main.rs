//! PID 1 of the appliance: early mounts, then the work in a process of its own, then an ending by policy.
//!
//! Started as an ordinary program it does the same without touching the machine: the command line comes from
//! `CASTIRON_CMDLINE`, a recorded inventory from `CASTIRON_INVENTORY`, and the ending is an exit status.

mod appliance;
mod attempts;
mod cmdline;
mod console;
mod context;
mod devices;
mod early;
mod finish;
mod log;
mod memory;
mod modules;
mod phases;
mod power;
mod reaper;
mod uevent;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cmdline::Boot;
use console::Console;
use context::{Context, Stopped};
use devices::Devices;
use finish::Outcome;
use log::Log;
use phases::{Phase, Phases};
use reaper::Reaper;

/// The kernel passes `NAME=value` of its command line to PID 1, so this also serves to try one out in a container.
const COMMAND_LINE: &str = "CASTIRON_CMDLINE";
const INVENTORY: &str = "CASTIRON_INVENTORY";

/// How long devices may keep coming before the work goes on without waiting for more.
const SETTLE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if early::is_init() {
        let _ = std::panic::catch_unwind(init);
        finish::last_resort()
    }
    program()
}

fn init() {
    let mut troubles = early::mount_all(early::MOUNTS);
    troubles.extend(early::open_stdio().err());
    troubles.extend(early::settle_in());
    let boot = Boot::parse(&command_line());
    let log = Log::with_kernel_copy();
    let console = Console::open(Path::new("/"), &boot.consoles, log.clone());
    show_panics(&console);
    match Reaper::start() {
        Ok(mut reaper) => {
            let ended = reaper.supervise(&console, || {
                let mut context = Context::new(console.clone(), log.clone(), Phases::new(boot.breaks.clone()));
                context.owns_machine = early::is_whole_machine();
                run(&boot, &mut context, |context| prepare(&boot, context, &troubles))
            });
            finish::act(&mut reaper, &console, &boot, &Outcome::from(ended))
        }
        Err(cause) => console.warn(&format!("cannot receive signals: {cause}")),
    }
}

fn program() -> ExitCode {
    let boot = Boot::parse(&std::env::var(COMMAND_LINE).unwrap_or_default());
    let log = Log::default();
    let console = Console::standard_error(log.clone());
    let mut context = Context::new(console.clone(), log.clone(), Phases::new(boot.breaks.clone()));
    context.recorded_inventory = std::env::var_os(INVENTORY).map(Into::into);
    log::subscribe(&log, &console, boot.debug);
    let outcome = run(&boot, &mut context, |_| Ok(()));
    console.line(&format!("as PID 1: {:?}", outcome.policy(&boot).ending));
    console.drain(Duration::from_secs(5));
    if outcome.failure().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn command_line() -> String {
    std::env::var(COMMAND_LINE).ok().or_else(|| std::fs::read_to_string("/proc/cmdline").ok()).unwrap_or_default()
}

/// A panic is told on the consoles; what becomes of it is decided where it is caught.
fn show_panics(console: &Console) {
    let console = console.clone();
    std::panic::set_hook(Box::new(move |info| console.warn(&format!("{info}"))));
}

/// All phases, from the first line on a console to the last.
fn run(boot: &Boot, context: &mut Context, prepare: impl FnOnce(&mut Context) -> Result<(), Stopped>) -> Outcome {
    let outcome = prepare(context).and_then(|()| check(boot, context)).map_or_else(stopped, |failure| {
        failure.unwrap_or_else(|| appliance::install(boot, context).unwrap_or_else(stopped))
    });
    context.close(&outcome);
    outcome
}

/// PID 1 answers for the outcome itself when it asked for the stop.
fn stopped(stopped: Stopped) -> Outcome {
    Outcome::failed(stopped.to_string())
}

/// What needs the machine: threads, kernel settings, its drivers.
fn prepare(boot: &Boot, context: &mut Context, troubles: &[String]) -> Result<(), Stopped> {
    context.console.start_flushing();
    log::subscribe(&context.log, &context.console, boot.debug);
    context.enter(Phase::System)?;
    let system = rustix::system::uname();
    context.console.line(&format!(
        "castiron {}, Linux {}",
        env!("CARGO_PKG_VERSION"),
        system.release().to_string_lossy()
    ));
    for trouble in troubles {
        context.console.warn(trouble);
    }
    memory::report(&context.console);
    log::quieten_kernel(boot.loglevel_given);
    context.enter(Phase::CommandLine)?;
    context.console.line(&boot.text);
    if !boot.diagnostics.0.is_empty() {
        context.console.warn(&boot.diagnostics.to_string());
    }
    context.enter(Phase::Modules)?;
    context.devices = Devices::start(Path::new("/"), boot, &context.console);
    for trouble in early::mount_all(early::MODULE_MOUNTS) {
        context.console.warn(&trouble);
    }
    context.devices.cold_plug();
    let settled = context.devices.settle(SETTLE);
    devices::report_missing_firmware(&context.console);
    let count = context.devices.loaded().len();
    let end = if settled { "devices have settled" } else { "devices keep coming" };
    context.console.line(&format!("{count} modules loaded, {end}"));
    if let Some(patience) = boot.watchdog {
        match watchdog::start(patience) {
            Some(sink) => context.events.add(sink),
            None => context.console.warn("this machine has no watchdog that could be used"),
        }
    }
    let absent = context.devices.absent();
    if !absent.is_empty() {
        context.console.line(&format!("drivers not carried: {}", absent.join(" ")));
    }
    Ok(())
}

/// A command line that was misunderstood must not install anything.
fn check(boot: &Boot, context: &Context) -> Result<Option<Outcome>, Stopped> {
    if context.stop_requested() {
        return Err(Stopped);
    }
    Ok(boot.diagnostics.has_errors().then(|| Outcome::failed("the kernel command line has mistakes")))
}
