//! What an installation runs in: where phases are announced, events go, devices come from and stopping is asked.
//!
//! The same for PID 1 and for an ordinary program on a development machine; only [`Devices`] and the consoles differ.

use std::path::PathBuf;
use std::time::Duration;

use castiron_engine::event::{Event, EventResult, EventSink, EventType, Fanout};
use castiron_init::report::Reporting;
use thiserror::Error;

use crate::console::{Console, ConsoleSink, PortSink};
use crate::devices::Devices;
use crate::early;
use crate::finish::{self, Outcome};
use crate::log::Log;
use crate::phases::{Phase, Phases};
use crate::reaper;

/// How long the end waits for a webhook, and for the upload of the log.
const REPORT_WAIT: Duration = Duration::from_secs(15);

/// Somebody asked the machine to stop: Ctrl-Alt-Del, the power button, a signal to PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("somebody asked the machine to stop")]
pub struct Stopped;

pub struct Context {
    pub console: Console,
    pub log: Log,
    pub phases: Phases,
    /// Consoles and the virtio-serial port listen already; add a webhook here.
    pub events: Fanout<'static>,
    pub devices: Devices,
    /// Who is told besides the consoles, once the config has said so.
    pub reporting: Reporting,
    /// What is said at the end of a success.
    pub done: &'static str,
    /// A recorded inventory to work with instead of the machine's own; nothing may be changed then.
    pub recorded_inventory: Option<PathBuf>,
    /// This works for PID 1 of a machine, whose clock it may set.
    pub owns_machine: bool,
}

impl Context {
    pub fn new(console: Console, log: Log, phases: Phases) -> Self {
        let mut events = Fanout::default();
        events.add(ConsoleSink::new(console.clone()));
        events.add(PortSink(console.clone()));
        Self {
            console,
            log,
            phases,
            events,
            devices: Devices::none(),
            reporting: Reporting::default(),
            done: "done",
            recorded_inventory: None,
            owns_machine: false,
        }
    }

    /// Begins a phase: ends the one before, says so everywhere, opens a shell where `castiron.break=` asks for one.
    pub fn enter(&mut self, phase: Phase) -> Result<(), Stopped> {
        if self.stop_requested() {
            return Err(Stopped);
        }
        let entered = self.phases.enter(phase, early::uptime());
        if let Some(left) = entered.left {
            self.emit_finish(left.phase, EventResult::Success, left.phase.title());
        }
        if entered.stop {
            self.console.line(&format!("stopped before {} as castiron.break asks; `exit` goes on", phase.title()));
            finish::shell(&self.console);
        }
        self.console.line(&format!("== {}", phase.title()));
        self.events.emit(&Event::start(event_name(phase), phase.title()));
        Ok(())
    }

    /// Whether to come to an end as soon as that is safe.
    pub fn stop_requested(&self) -> bool {
        reaper::stop_requested()
    }

    /// Ends the last phase and says how everything went. Called once, after the installation.
    pub fn close(&mut self, outcome: &Outcome) {
        let (result, text) = match outcome.failure() {
            None => (EventResult::Success, self.done.to_owned()),
            Some(reason) => (EventResult::Fail, reason),
        };
        if let Some(left) = self.phases.end(early::uptime()) {
            let description = if result == EventResult::Success { left.phase.title() } else { &text };
            self.emit_finish(left.phase, result, description);
        }
        let times = self.phases.timings().into_iter().filter_map(|timing| {
            let took = timing.took.filter(|took| *took >= Duration::from_millis(50))?;
            Some(format!("{} {:.1}", timing.phase.title(), took.as_secs_f64()))
        });
        let times: Vec<String> = times.collect();
        self.console.line(&format!("seconds: {}", times.join(", ")));
        self.events.emit(&Event::finish("install", text, result));
        for trouble in self.reporting.finish(|| self.log.contents(), REPORT_WAIT) {
            self.console.warn(&trouble);
        }
    }

    /// Tells everybody something about the work of a phase.
    pub fn note(&mut self, phase: Phase, text: &str) {
        self.events.emit(&Event { event_type: EventType::Progress, ..Event::start(event_name(phase), text) });
    }

    fn emit_finish(&mut self, phase: Phase, result: EventResult, description: &str) {
        self.events.emit(&Event::finish(event_name(phase), description, result));
    }
}

fn event_name(phase: Phase) -> String {
    format!("install/{}", phase.name())
}
