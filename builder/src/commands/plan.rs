//! `castiron plan`: what would be done and what would be lost. Changes nothing.

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::event::{Event, EventSink};
use castiron_engine::plan::render;

use super::Report;
use crate::decide::{self, DecideArgs, For};

/// Show what would be done and what would be lost; change nothing.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    decide: DecideArgs,
    /// Plan for a recorded machine: `castiron inventory --json` or `lsblk --json -O -b`
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    inventory: Option<Utf8PathBuf>,
    /// Plan for an image file instead of this machine's disks
    #[arg(long)]
    image: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

/// A plan is read, not watched.
struct Quiet;

impl EventSink for Quiet {
    fn emit(&mut self, _: &Event) {}
}

pub fn run(args: Args) -> Result<(), Report> {
    let what = match args.image {
        true => For::Image { size: None },
        false => For::Machine { recording: args.inventory.clone() },
    };
    let decision = decide::decide(&args.decide, what, &mut Quiet)?;
    let images =
        decision.spec.graph.disks().map(|(id, _)| (id.clone(), Utf8PathBuf::from(format!("{id}.raw")))).collect();
    let plan = decide::plan(&decision.spec, Utf8Path::new("/run/castiron/target"), images)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&plan)?),
        false => print!("{}\nNothing was changed.\n", render::text(&decision.spec, &plan)),
    }
    Ok(())
}
