//! Where tools live: the search path of a host, or the fixed places of the appliance.

use camino::{Utf8Path, Utf8PathBuf};

use crate::plan::{Plan, Tool};

#[derive(Clone, Debug)]
pub struct Toolbox {
    folders: Vec<Utf8PathBuf>,
}

/// Administrators' tools are often not in a user's search path.
const SYSTEM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];

impl Toolbox {
    pub fn from_search_path(path: &str) -> Self {
        let folders = path.split(':').filter(|folder| !folder.is_empty()).chain(SYSTEM_FOLDERS.iter().copied());
        Self { folders: folders.map(Utf8PathBuf::from).collect() }
    }

    pub fn find(&self, tool: Tool) -> Option<Utf8PathBuf> {
        self.find_program(tool.source().name)
    }

    pub fn find_program(&self, name: &str) -> Option<Utf8PathBuf> {
        if name.contains('/') {
            return Utf8Path::new(name).is_file().then(|| name.into());
        }
        self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Tools that the plan needs and this machine lacks.
    pub fn missing(&self, plan: &Plan) -> Vec<Tool> {
        plan.tools().into_iter().filter(|tool| self.find(*tool).is_none()).collect()
    }
}
