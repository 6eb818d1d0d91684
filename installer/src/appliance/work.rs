//! Carrying the plan out: the door that is used and whom the steps are told to.

use std::cell::RefCell;

use castiron_engine::config::Config;
use castiron_engine::event::{Event, EventSink};
use castiron_engine::fetch::Fetcher;
use castiron_engine::plan::{Plan, StepPhase};
use castiron_engine::resolve;
use castiron_engine::run::{Journal, Observer, OnFailure, run};
use castiron_engine::system::{Linux, Recorder, System, Toolbox};

use super::Stop;
use crate::context::{Context, Stopped};
use crate::log::Priority;
use crate::phases::Phase;

pub fn toolbox() -> Toolbox {
    Toolbox::from_search_path(&std::env::var("PATH").unwrap_or_default())
}

/// The door of this run: to the machine, or to nothing where nothing may be changed.
pub fn system<'a>(context: &Context, config: &Config, fetcher: &'a Fetcher, writes: bool) -> Box<dyn System + 'a> {
    if !writes {
        return Box::new(Recorder::default());
    }
    let log = context.log.clone();
    Box::new(Linux::new(toolbox(), fetcher, resolve::secrets(config), move |line| log.add(Priority::Info, line)))
}

pub fn carry_out(context: &mut Context, plan: &Plan, system: &mut dyn System) -> Result<(), Stop> {
    let shared = RefCell::new(&mut *context);
    let mut watcher = Watcher { context: &shared, stopped: false };
    let outcome = run(plan, &mut Journal::default(), system, &mut Emitter(&shared), &mut watcher, OnFailure::Revert);
    if watcher.stopped {
        return Err(Stop::Stopped(Stopped));
    }
    outcome.map_err(|error| {
        let hint = error.cause.hint().map(str::to_owned);
        Stop::failed(&error, hint.as_deref())
    })
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
