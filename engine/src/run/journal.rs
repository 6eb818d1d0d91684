//! What a run did, entry by entry, flushed before the next effect begins.

use std::fs::File;
use std::io::{self, Write};

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use crate::plan::{Effect, StepId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    Started {
        step: StepId,
        title: String,
    },
    /// Written before something is acquired, so that a crash in between is noticed.
    Acquiring {
        release: Effect,
    },
    Released {
        release: Effect,
    },
    Finished {
        step: StepId,
    },
    Failed {
        step: StepId,
    },
}

/// Entries in memory and, where one is given, in a file of JSON lines.
#[derive(Default)]
pub struct Journal {
    entries: Vec<Entry>,
    file: Option<File>,
}

impl Journal {
    pub fn in_file(path: &Utf8Path) -> io::Result<Self> {
        Ok(Self { entries: Vec::new(), file: Some(File::create(path)?) })
    }

    pub fn record(&mut self, entry: &Entry) {
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(entry).expect("entries are plain data") + "\n";
            // A journal that cannot be written must not stop the work it describes.
            if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
                tracing::warn!("cannot write the journal: {error}");
                self.file = None;
            }
        }
        self.entries.push(entry.clone());
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads what a run left behind; a torn last line is passed over.
    pub fn read(path: &Utf8Path) -> io::Result<Vec<Entry>> {
        Ok(std::fs::read_to_string(path)?.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What was acquired and never released, newest first.
    pub fn held(entries: &[Entry]) -> Vec<Effect> {
        let mut held = Vec::new();
        for entry in entries {
            match entry {
                Entry::Acquiring { release } => held.push(release.clone()),
                Entry::Released { release } => held.retain(|other| other != release),
                Entry::Started { .. } | Entry::Finished { .. } | Entry::Failed { .. } => {}
            }
        }
        held.reverse();
        held
    }
}
