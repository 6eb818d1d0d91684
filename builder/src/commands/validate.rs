//! `castiron validate`: reads a config and shows every mistake in it that would be one on every machine.
//! Nothing else is looked at.

use camino::Utf8PathBuf;
use castiron_engine::catalogue::Catalogue;
use castiron_engine::{config, resolve};

use super::Report;

/// Check a config and show every mistake with its place.
#[derive(clap::Args)]
pub struct Args {
    /// The config; `-` is the standard input.
    config: Utf8PathBuf,
    /// Print the mistakes as a JSON list.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<(), Report> {
    let bytes = super::read_input(&args.config)?;
    let found = match config::parse(&bytes, args.config.as_str()) {
        Ok(config) => resolve::check(&config, &Catalogue::shipped()?),
        Err(found) => found,
    };
    match (args.json, found.has_errors()) {
        (true, wrong) => {
            println!("{}", serde_json::to_string_pretty(&found)?);
            if wrong { Err(Report::silent(2)) } else { Ok(()) }
        }
        (false, true) => Err(Report::diagnostics(&found)),
        (false, false) => {
            println!("{}: valid", args.config);
            Ok(())
        }
    }
}
