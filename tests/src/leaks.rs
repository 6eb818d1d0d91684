//! What a run left behind on this host.
//!
//! In: a snapshot before and one after. Out: the lines that are new. Only what names the run's own folder, or what
//! belongs to its processes, is looked at: other work on this host must not show up as noise.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::host::{Result, Subject};

/// Everything on the host that has to do with `folder`, and the host's own device nodes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// `folder` is where the audited program works: build, target and temporary files below it.
    pub fn take(folder: &Path) -> Result<Self> {
        let mut found = BTreeSet::new();
        let needle = folder.to_string_lossy().into_owned();
        for process in processes()? {
            let pid = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A process may end while it is looked at; then it left nothing.
            let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            found.extend(mounts.lines().filter(|line| line.contains(&needle)).map(mount_line));
            let uses = ["cwd", "root", "exe"].iter().filter_map(|name| std::fs::read_link(process.join(name)).ok());
            let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let files = files.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            if pid != std::process::id().to_string() {
                let used = uses.chain(files).filter(|path| path.starts_with(folder));
                found.extend(used.map(|path| format!("process {pid} uses {}", path.display())));
            }
        }
        for block in entries(Path::new("/sys/block"))? {
            if let Ok(backing) = std::fs::read_to_string(block.join("loop/backing_file")) {
                found.insert(format!("{} is attached to {}", name(&block), backing.trim()));
            }
        }
        found.extend(entries(Path::new("/dev"))?.iter().map(|path| format!("device node {}", path.display())));
        Ok(Self(found))
    }

    /// What `after` has and this one has not.
    pub fn leaked(&self, after: &Self) -> Vec<String> {
        after.0.difference(&self.0).cloned().collect()
    }
}

fn mount_line(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    format!("mount at {}", words.get(4).copied().unwrap_or(line))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).on(folder.display())?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn processes() -> Result<Vec<PathBuf>> {
    let is_number = |name: &OsStr| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    Ok(entries(Path::new("/proc"))?.into_iter().filter(|path| path.file_name().is_some_and(is_number)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_in_the_folder_is_found_and_a_clean_folder_is_clean() {
        let folder = tempfile::tempdir().unwrap();
        let before = Snapshot::take(folder.path()).unwrap();
        let mut command = Command::new("sleep");
        let mut child = command.arg("60").current_dir(folder.path()).stdin(Stdio::null()).spawn().unwrap();
        let during = Snapshot::take(folder.path()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let line = format!("process {} uses {}", child.id(), folder.path().display());
        assert!(before.leaked(&during).contains(&line), "{:?}", before.leaked(&during));
        let mine = |line: &String| line.contains(&*folder.path().to_string_lossy());
        let after = Snapshot::take(folder.path()).unwrap();
        assert_eq!(before.leaked(&after).into_iter().filter(mine).collect::<Vec<_>>(), Vec::<String>::new());
    }
}
