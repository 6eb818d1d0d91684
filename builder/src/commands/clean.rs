//! `castiron clean`: removes what builds left behind that were killed.

use camino::Utf8PathBuf;

use super::Report;
use crate::workspace;

/// Remove what killed builds left behind.
#[derive(clap::Args)]
pub struct Args {
    /// Where images were being built
    #[arg(default_value = ".")]
    folder: Utf8PathBuf,
}

pub fn run(args: Args) -> Result<(), Report> {
    let left = workspace::abandoned(&args.folder)?;
    for path in &left {
        workspace::remove(path)?;
        println!("removed {path}");
    }
    if left.is_empty() {
        println!("nothing was left behind in {}", args.folder);
    }
    Ok(())
}
