//! Carries out a plan.
//!
//! In: a plan, a journal, a [`System`], a sink. Out: an [`Outcome`]. Invariant: the plan is never altered; whatever
//! was acquired is released at the end of every run, in reverse order.

pub mod journal;

use thiserror::Error;

use crate::event::{Event, EventResult, EventSink, EventType, Level};
use crate::plan::{Effect, Plan, Step, StepPhase, Undo};
use crate::system::{Bindings, EffectError, System};

pub use journal::{Entry, Journal};

/// What becomes of a target whose plan failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It stays as it is, for a look.
    Keep,
    /// It is made unbootable, or removed.
    Revert,
}

#[derive(Debug, Error)]
#[error("{title} failed")]
pub struct RunError {
    pub phase: StepPhase,
    pub step: String,
    pub title: String,
    #[source]
    pub cause: EffectError,
}

/// A step failed, or someone asked for an end.
pub type Outcome = Result<(), RunError>;

/// What the caller may do between steps.
pub trait Observer {
    /// Called before the first step of each phase.
    fn phase(&mut self, phase: StepPhase);
    /// Whether to stop before the next step.
    fn interrupted(&self) -> bool {
        false
    }
}

impl Observer for () {
    fn phase(&mut self, _: StepPhase) {}
}

pub fn run(
    plan: &Plan,
    journal: &mut Journal,
    system: &mut dyn System,
    events: &mut dyn EventSink,
    observer: &mut dyn Observer,
    on_failure: OnFailure,
) -> Outcome {
    let mut state = State { bindings: Bindings::default(), held: Vec::new(), reverts: Vec::new() };
    let mut phase = None;
    let mut outcome = Ok(());
    for step in &plan.steps {
        if phase != Some(step.phase) {
            phase = Some(step.phase);
            observer.phase(step.phase);
        }
        let name = format!("install/{}/{}", step.phase.name(), step.name);
        events.emit(&Event::start(&name, &step.title));
        journal.record(&Entry::Started { step: step.id.clone(), title: step.title.clone() });
        let result = match observer.interrupted() {
            true => Err(EffectError::interrupted()),
            false => perform(step, &name, journal, system, events, &mut state),
        };
        if let Err(cause) = result {
            events.emit(&Event::finish(&name, format!("{}: {cause}", step.title), EventResult::Fail));
            journal.record(&Entry::Failed { step: step.id.clone() });
            outcome = Err(RunError { phase: step.phase, step: step.name.clone(), title: step.title.clone(), cause });
            break;
        }
        journal.record(&Entry::Finished { step: step.id.clone() });
        events.emit(&Event::finish(&name, &step.title, EventResult::Success));
    }
    release(&mut state, journal, system, events);
    if outcome.is_err() && on_failure == OnFailure::Revert {
        revert(&mut state, system, events);
    }
    outcome
}

struct State {
    bindings: Bindings,
    held: Vec<Effect>,
    reverts: Vec<Effect>,
}

fn perform(
    step: &Step,
    name: &str,
    journal: &mut Journal,
    system: &mut dyn System,
    events: &mut dyn EventSink,
    state: &mut State,
) -> Result<(), EffectError> {
    for effect in &step.effects {
        let undo = effect.undo();
        if let Undo::Release(release) = &undo {
            journal.record(&Entry::Acquiring { release: release.clone() });
        }
        let mut progress = |progress, description: Option<&str>| {
            events.emit(&Event::progress(name, description.unwrap_or(&step.title), progress));
        };
        let regions = system.perform(effect, &state.bindings, &mut progress)?;
        for (node, region) in regions {
            state.bindings.bind(node, region);
        }
        match undo {
            Undo::Nothing => {}
            Undo::Release(release) => state.held.push(release),
            Undo::Revert(revert) => state.reverts.push(revert),
        }
    }
    Ok(())
}

/// In reverse order; one that fails is reported and does not keep the others from being tried.
fn release(state: &mut State, journal: &mut Journal, system: &mut dyn System, events: &mut dyn EventSink) {
    while let Some(effect) = state.held.pop() {
        match system.perform(&effect, &state.bindings, &mut |_, _| ()) {
            Ok(_) => journal.record(&Entry::Released { release: effect }),
            Err(error) => {
                let text = format!("cannot release what was held: {error}");
                events.emit(&Event::finish("install/release", text, EventResult::Warn));
            }
        }
    }
}

fn revert(state: &mut State, system: &mut dyn System, events: &mut dyn EventSink) {
    while let Some(effect) = state.reverts.pop() {
        if let Err(error) = system.perform(&effect, &state.bindings, &mut |_, _| ()) {
            let text = format!("cannot take back what was done: {error}");
            events.emit(&Event::finish("install/revert", text, EventResult::Warn));
        }
    }
}

/// Carries out [`Plan::on_failure`]: each effect is tried, whatever became of the others.
pub fn after_failure(effects: &[Effect], system: &mut dyn System, events: &mut dyn EventSink) {
    const NAME: &str = "install/error-commands";
    if effects.is_empty() {
        return;
    }
    let note = |level, text: String| Event { event_type: EventType::Progress, level, ..Event::start(NAME, text) };
    events.emit(&Event::start(NAME, "run the error commands"));
    let mut failed = 0;
    for effect in effects {
        events.emit(&note(Level::Info, effect.to_string()));
        if let Err(error) = system.perform(effect, &Bindings::default(), &mut |_, _| ()) {
            failed += 1;
            events.emit(&note(Level::Warn, error.to_string()));
        }
    }
    let (text, result) = match failed {
        0 => ("run the error commands".to_owned(), EventResult::Success),
        _ => (format!("{failed} of {} error commands failed", effects.len()), EventResult::Warn),
    };
    events.emit(&Event::finish(NAME, text, result));
}

#[cfg(test)]
mod tests;
