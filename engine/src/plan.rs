//! A plan: steps of effects, as data. Printable, storable, comparable.
//!
//! In: a [`Spec`]. Out: what [`crate::run`] carries out. Invariant: planners are pure; the same spec gives the same
//! bytes, and a plan holds references to secrets, never secrets.

pub mod boot;
pub mod cmd;
pub mod disk;
pub mod effect;
pub mod provision;
pub mod render;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::units::Digest;

pub use cmd::{Arg, Cmd, Program, Tool};
pub use effect::{Effect, Piece, Undo};

/// How steps are grouped for people: the boot phases of the appliance that a plan covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepPhase {
    Storage,
    Bootstrap,
    Provision,
    BootLoader,
}

impl StepPhase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Bootstrap => "bootstrap",
            Self::Provision => "provision",
            Self::BootLoader => "boot-loader",
        }
    }
}

/// The hash of a step and of all before it: equal ids mean that equal work led here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    pub phase: StepPhase,
    /// Short and unique: `format-root`.
    pub name: String,
    pub title: String,
    pub effects: Vec<Effect>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What a person loses when the plan is carried out, one finding a line, which begins with the disk's name.
    pub losses: Vec<String>,
    pub steps: Vec<Step>,
    /// What is done after a failure, by [`crate::run::after_failure`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<Effect>,
}

impl Plan {
    pub fn add(&mut self, phase: StepPhase, name: impl Into<String>, title: impl Into<String>, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let previous = self.steps.last().map(|step| step.id.0.as_str()).unwrap_or_default();
        let (name, title) = (name.into(), title.into());
        let content = serde_json::to_string(&(previous, phase, &name, &effects)).expect("effects are plain data");
        let id = StepId(Digest::of(content.as_bytes()).hex()[..16].to_owned());
        self.steps.push(Step { id, phase, name, title, effects });
    }

    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.steps.iter().flat_map(|step| &step.effects)
    }

    /// The programs that the plan starts on the machine that carries it out.
    pub fn tools(&self) -> BTreeSet<Tool> {
        self.effects().chain(&self.on_failure).filter_map(Effect::tool).collect()
    }

    /// Names the whole plan: what was reviewed is what runs.
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::to_string(self).expect("a plan is plain data").as_bytes())
    }
}
