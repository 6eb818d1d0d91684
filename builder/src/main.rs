//! `castiron`: the engine on a host. One file per command in `commands/`.

mod commands;
mod decide;
mod isolate;
mod qcow2;
mod terminal;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;

/// Casts an operating system onto iron.
#[derive(Parser)]
#[command(name = "castiron", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    terminal::log_to_stderr();
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => report.show(),
    }
}
