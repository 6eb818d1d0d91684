//! The commands: one file, one `Args`, one `run` each.

mod appliance;
pub mod apt_sources;
pub mod bootstrap;
mod build;
mod clean;
mod inventory;
mod keygen;
mod plan;
mod schema;
mod sign;
mod validate;

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::process::ExitCode;

use camino::Utf8Path;
use castiron_engine::debian::{ArchiveError, Memory};
use castiron_engine::diagnostic::Diagnostics;

#[derive(clap::Subcommand)]
pub enum Command {
    Appliance(appliance::Args),
    Bootstrap(bootstrap::Args),
    Build(build::Args),
    Clean(clean::Args),
    Inventory(inventory::Args),
    Keygen(keygen::Args),
    Plan(plan::Args),
    Schema(schema::Args),
    Sign(sign::Args),
    Validate(validate::Args),
}

impl Command {
    pub fn run(self) -> Result<(), Report> {
        match self {
            Self::Appliance(args) => appliance::run(args),
            Self::Bootstrap(args) => bootstrap::run(args),
            Self::Build(args) => build::run(args),
            Self::Clean(args) => clean::run(args),
            Self::Inventory(args) => inventory::run(args),
            Self::Keygen(args) => keygen::run(args),
            Self::Plan(args) => plan::run(args),
            Self::Schema(args) => schema::run(args),
            Self::Sign(args) => sign::run(args),
            Self::Validate(args) => validate::run(args),
        }
    }
}

/// The bytes of a file, or of the standard input for `-`.
pub fn read_input(path: &Utf8Path) -> Result<Vec<u8>, Report> {
    let mut bytes = Vec::new();
    let read = match path.as_str() {
        "-" => std::io::stdin().read_to_end(&mut bytes),
        _ => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Report::usage(format!("error: cannot read {path}\n  cause: {error}"))),
    }
}

/// Where the dates of archives are kept, so that no mirror can serve an old state as the newest: beside the downloads.
pub fn memory(cache: Option<&Utf8Path>) -> Option<Memory> {
    let cache = cache.map(Utf8Path::to_owned).or_else(crate::decide::default_cache);
    cache.map(|cache| Memory::new(cache.join("releases")))
}

/// An archive that cannot be used, with the rule that it broke and what helps.
pub fn archive_report(error: ArchiveError) -> Report {
    let (rule, hint) = (error.rule(), error.hint());
    let report = Report::from(error).with_line(format!("rule: {rule}"));
    let report = hint.into_iter().fold(report, |report, hint| report.with_hint(hint));
    match rule {
        "archive.replayed" => report.with_hint("to use the old state knowingly, give --allow-older"),
        _ => report,
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

    /// A status for programs that already have the answer on the standard output.
    pub fn silent(status: u8) -> Self {
        Self { text: String::new(), status }
    }

    /// One more line below the message, such as the rule that was broken.
    pub fn with_line(self, line: impl fmt::Display) -> Self {
        Self { text: format!("{}\n  {line}", self.text), ..self }
    }

    pub fn with_hint(self, hint: impl fmt::Display) -> Self {
        Self { text: format!("{}\n  hint: {hint}", self.text), ..self }
    }

    pub fn show(&self) -> ExitCode {
        ExitCode::from(self.show_status())
    }

    pub fn show_status(&self) -> u8 {
        if !self.text.is_empty() {
            eprintln!("{}", self.text);
        }
        self.status
    }

    pub fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
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
