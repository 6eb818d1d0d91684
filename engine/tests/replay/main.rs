//! Recorded machines in `tests/replay` still give what was reviewed: the disk that is chosen, and the plan.

mod choice;
mod plans;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use castiron_engine::inventory::{self, Inventory};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/replay")
}

fn machine(name: &str) -> Inventory {
    let path = folder().join(name).with_extension("json");
    inventory::from_recording(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The names of all recordings.
fn recordings() -> BTreeSet<String> {
    let paths = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let recordings = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    recordings.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}
