//! What the door is: one trait, one error.

use std::error::Error;
use std::fmt;

use super::{Bindings, Region};
use crate::event::Progress;
use crate::plan::Effect;
use crate::units::NodeId;

/// Told how far an effect is, with a line for people where there is something to say.
pub type OnProgress<'a> = dyn FnMut(Progress, Option<&str>) + 'a;

/// The one door to the operating system.
pub trait System {
    /// Carries out one effect and tells where the nodes live that came into being.
    fn perform(
        &mut self,
        effect: &Effect,
        bindings: &Bindings,
        progress: &mut OnProgress<'_>,
    ) -> Result<Vec<(NodeId, Region)>, EffectError>;
}

/// Why an effect failed: what, what caused it, what was run, what to do about it.
#[derive(Debug)]
pub struct EffectError {
    message: String,
    hint: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl EffectError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, cause: None }
    }

    pub fn caused(message: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(message) }
    }

    pub fn interrupted() -> Self {
        Self::new("interrupted").with_hint("run the same command again to start over")
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for EffectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for EffectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// `.context("cannot …")` on any result inside the door.
pub trait Context<T> {
    fn context(self, message: impl fmt::Display) -> Result<T, EffectError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, message: impl fmt::Display) -> Result<T, EffectError> {
        self.map_err(|cause| EffectError::caused(message.to_string(), cause))
    }
}
