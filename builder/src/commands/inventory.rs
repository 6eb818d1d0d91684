//! `castiron inventory`: what this machine has, for a person or as a recording.

use std::fmt::Write as _;

use camino::Utf8PathBuf;
use castiron_engine::inventory::{self, Inventory};

use super::{Report, read_input};

/// Shows what the machine has and what its disks hold; changes nothing.
#[derive(clap::Args)]
pub struct Args {
    /// Print a recording for `castiron plan --inventory`. It holds serial numbers.
    #[arg(long)]
    json: bool,
    /// Show a recorded machine, of ours or of `lsblk --json -O -b`, instead of this one; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    recording: Option<Utf8PathBuf>,
}

pub fn run(args: Args) -> Result<(), Report> {
    let inventory = match &args.recording {
        None => Inventory::read("/".as_ref())?,
        Some(path) => inventory::from_recording(&String::from_utf8_lossy(&read_input(path)?))?,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&inventory)?),
        false => print!("{}", page(&inventory)),
    }
    Ok(())
}

fn page(inventory: &Inventory) -> String {
    let mut page =
        format!("machine  {}, {:?} firmware, {}\n", inventory.architecture, inventory.firmware, inventory.memory);
    let dmi = &inventory.dmi;
    let told = [
        ("vendor", &dmi.vendor),
        ("product", &dmi.product),
        ("serial", &dmi.serial),
        ("uuid", &dmi.uuid),
        ("asset tag", &dmi.asset_tag),
    ];
    let mut line = |text: String| writeln!(page, "{text}").expect("a String takes everything");
    for (key, value) in told {
        if let Some(value) = value {
            line(format!("         {key} {}", value.escape_debug()));
        }
    }
    for nic in &inventory.nics {
        let mac = nic.mac.as_deref().unwrap_or("no address");
        let driver = nic.driver.as_deref().unwrap_or("no driver");
        let carrier = if nic.carrier == Some(true) { ", carrier" } else { "" };
        line(format!("card     {} {mac}, {driver}{carrier}", nic.name));
    }
    for disk in &inventory.disks {
        let medium = if disk.is_boot_medium { ", boot medium" } else { "" };
        line(format!("disk     {disk}{medium}"));
        for found in disk.signatures.iter().map(|signature| &signature.kind) {
            line(format!("         {found}"));
        }
        for partition in &disk.partitions {
            let kind = partition.filesystem.as_ref().map_or("nothing known", |found| &found.kind);
            line(format!("         {} {}, {kind}", partition.name, partition.size));
        }
        for holder in &disk.holders {
            line(format!("         used by {holder}"));
        }
    }
    page
}
