//! `castiron schema`: the JSON Schema of a config, for editors.

use std::io::Write as _;

use super::Report;

/// Print the JSON Schema of a config.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Result<(), Report> {
    std::io::stdout().write_all(castiron_engine::config::schema().as_bytes())?;
    Ok(())
}
