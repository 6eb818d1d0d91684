//! The directory of one build, beside its image: the disk in the making, a mount point, a journal, and a lease that
//! tells whether its build still lives.

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::commands::Report;

const PREFIX: &str = ".castiron-build-";
const LEASE: &str = "lease.json";

pub struct Workspace {
    pub path: Utf8PathBuf,
}

/// Names one process beyond the reuse of its number and beyond a reboot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    boot_id: String,
    pid: u32,
    start_time: u64,
}

impl Lease {
    fn of(pid: u32) -> Option<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The 22nd field (proc(5)), counted behind the name, which may hold anything.
        let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { boot_id, pid, start_time })
    }

    fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

impl Workspace {
    pub fn new(beside: &Utf8Path) -> Result<Self, Report> {
        let pid = std::process::id();
        let folder = beside.canonicalize_utf8()?;
        let path = folder.join(format!("{PREFIX}{pid}"));
        fs::create_dir(&path)
            .map_err(|error| Report::failure(format!("error: cannot make {path}\n  cause: {error}")))?;
        let lease = Lease::of(pid).ok_or_else(|| Report::failure("error: /proc does not show this process"))?;
        fs::write(path.join(LEASE), serde_json::to_string(&lease)?)?;
        fs::create_dir(path.join("target"))?;
        Ok(Self { path })
    }
}

/// Workspaces whose build lives no more.
pub fn abandoned(folder: &Utf8Path) -> Result<Vec<Utf8PathBuf>, Report> {
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let path = entry?.into_path();
        if !path.file_name().is_some_and(|name| name.starts_with(PREFIX)) || !path.is_dir() {
            continue;
        }
        let lease =
            fs::read_to_string(path.join(LEASE)).ok().and_then(|text| serde_json::from_str::<Lease>(&text).ok());
        if lease.is_none_or(|lease| !lease.lives()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The known files, then the directories, which must be empty: a mount that is still there is never entered.
pub fn remove(path: &Utf8Path) -> Result<(), Report> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for name in ["disk.raw", "disk.qcow2", "journal", LEASE] {
        gone(fs::remove_file(path.join(name)))?;
    }
    gone(fs::remove_dir(path.join("target")))?;
    gone(fs::remove_dir(path))
        .map_err(|error| Report::failure(format!("error: cannot remove {path}\n  cause: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_lives_is_not_abandoned_and_a_dead_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(dir.path()).unwrap();
        let workspace = Workspace::new(folder).unwrap();
        assert!(abandoned(folder).unwrap().is_empty());
        let mut lease = Lease::of(std::process::id()).unwrap();
        lease.start_time += 1;
        fs::write(workspace.path.join(LEASE), serde_json::to_string(&lease).unwrap()).unwrap();
        let found = abandoned(folder).unwrap();
        assert_eq!(found.len(), 1);
        remove(&found[0]).unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }
}
