//! The phases of a run: announced with the time since the kernel started, timed, and places to stop at.
//!
//! In: what begins. Out: lines on the consoles, events `install/PHASE`, durations. The names are those of
//! `castiron.break=` and of the documentation.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    System,
    CommandLine,
    Modules,
    Network,
    Time,
    Config,
    Inventory,
    Plan,
    Storage,
    Bootstrap,
    Provision,
    BootLoader,
    Report,
    Finish,
}

impl Phase {
    /// In the order they run.
    pub const ALL: [Self; 14] = [
        Self::System,
        Self::CommandLine,
        Self::Modules,
        Self::Network,
        Self::Time,
        Self::Config,
        Self::Inventory,
        Self::Plan,
        Self::Storage,
        Self::Bootstrap,
        Self::Provision,
        Self::BootLoader,
        Self::Report,
        Self::Finish,
    ];

    /// As written in `castiron.break=` and in the names of events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::CommandLine => "command-line",
            Self::Modules => "modules",
            Self::Network => "network",
            Self::Time => "time",
            Self::Config => "config",
            Self::Inventory => "inventory",
            Self::Plan => "plan",
            Self::Storage => "storage",
            Self::Bootstrap => "bootstrap",
            Self::Provision => "provision",
            Self::BootLoader => "boot-loader",
            Self::Report => "report",
            Self::Finish => "finish",
        }
    }

    /// As people read it on the console.
    pub const fn title(self) -> &'static str {
        match self {
            Self::System => "initial system set-up",
            Self::CommandLine => "command line",
            Self::BootLoader => "boot loader",
            Self::Modules
            | Self::Network
            | Self::Time
            | Self::Config
            | Self::Inventory
            | Self::Plan
            | Self::Storage
            | Self::Bootstrap
            | Self::Provision
            | Self::Report
            | Self::Finish => self.name(),
        }
    }
}

impl FromStr for Phase {
    type Err = ();

    /// `boot-loader`, `boot_loader` and `bootloader` are the same.
    fn from_str(text: &str) -> Result<Self, ()> {
        let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        Self::ALL.into_iter().find(|phase| letters(phase.name()) == letters(text)).ok_or(())
    }
}

/// When a phase began, in time since the kernel started, and how long it took once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub phase: Phase,
    pub began: Duration,
    pub took: Option<Duration>,
}

/// What entering a phase asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The phase that ended by this, if any.
    pub left: Option<Timing>,
    /// `castiron.break=` names the phase: open a shell first.
    pub stop: bool,
}

/// The record of phases. Clones share it, so a sink of events may enter phases too.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    breaks: BTreeSet<Phase>,
    timings: Vec<Timing>,
}

impl Phases {
    pub fn new(breaks: BTreeSet<Phase>) -> Self {
        Self { shared: Arc::new(Mutex::new(State { breaks, timings: Vec::new() })) }
    }

    /// Notes that `phase` begins `now` (time since the kernel started) and that the one before it is over. Each break
    /// is taken once.
    pub fn enter(&self, phase: Phase, now: Duration) -> Entered {
        let mut state = self.lock();
        let left = state.close(now);
        let stop = state.breaks.remove(&phase);
        state.timings.push(Timing { phase, began: now, took: None });
        Entered { left, stop }
    }

    /// Ends the phase that is under way.
    pub fn end(&self, now: Duration) -> Option<Timing> {
        self.lock().close(now)
    }

    #[allow(dead_code, reason = "for the phases that follow the modules")]
    pub fn current(&self) -> Option<Phase> {
        self.lock().timings.last().filter(|timing| timing.took.is_none()).map(|timing| timing.phase)
    }

    pub fn timings(&self) -> Vec<Timing> {
        self.lock().timings.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close(&mut self, now: Duration) -> Option<Timing> {
        let last = self.timings.last_mut().filter(|timing| timing.took.is_none())?;
        last.took = Some(now.saturating_sub(last.began));
        Some(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_joined() {
        for phase in Phase::ALL {
            assert_eq!(phase.name().parse(), Ok(phase));
        }
        assert_eq!("boot_loader".parse(), Ok(Phase::BootLoader));
        assert_eq!("bootloader".parse(), Ok(Phase::BootLoader));
        assert!("boot".parse::<Phase>().is_err());
    }

    #[test]
    fn phases_are_timed_and_breaks_are_taken_once() {
        let phases = Phases::new([Phase::Network].into());
        let seconds = Duration::from_secs;
        assert_eq!(phases.enter(Phase::Modules, seconds(2)), Entered { left: None, stop: false });
        let modules = Timing { phase: Phase::Modules, began: seconds(2), took: Some(seconds(3)) };
        assert_eq!(phases.enter(Phase::Network, seconds(5)), Entered { left: Some(modules), stop: true });
        assert_eq!(phases.current(), Some(Phase::Network));
        assert!(!phases.enter(Phase::Network, seconds(6)).stop);
        phases.end(seconds(9));
        assert_eq!(phases.current(), None);
        assert_eq!(phases.timings().len(), 3);
    }
}
