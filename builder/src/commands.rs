//! The commands: one file, one `Args`, one `run` each.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use castiron_engine::diagnostic::Diagnostics;

mod keygen;
mod sign;

#[derive(clap::Subcommand)]
pub enum Command {
    Keygen(keygen::Args),
    Sign(sign::Args),
}

impl Command {
    pub fn run(self) -> Result<(), Report> {
        match self {
            Self::Keygen(args) => keygen::run(args),
            Self::Sign(args) => sign::run(args),
        }
    }
}

/// What a person reads when a command ends badly, and the status that programs see.
#[derive(Debug)]
pub struct Report {
    text: String,
    status: u8,
}

impl Report {
    /// Status 1: the work failed.
    pub fn failure(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 1 }
    }

    /// Status 2: the input is wrong and nothing was done.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 2 }
    }

    pub fn with_hint(self, hint: impl fmt::Display) -> Self {
        Self { text: format!("{}\n  hint: {hint}", self.text), ..self }
    }

    pub fn show(&self) -> ExitCode {
        eprintln!("{}", self.text);
        ExitCode::from(self.status)
    }
}

/// An error and its causes, one a line.
impl<E: Error> From<E> for Report {
    fn from(error: E) -> Self {
        let mut text = format!("error: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!("\n  cause: {error}"));
            cause = error.source();
        }
        Self::failure(text)
    }
}

impl Report {
    pub fn diagnostics(diagnostics: &Diagnostics) -> Self {
        Self::usage(diagnostics.to_string())
    }
}
