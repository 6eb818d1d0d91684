//! Where a file system appears in the target, and its line in `/etc/fstab`.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::{Filesystem, Swap};
use crate::units::NodeId;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// A file system.
    pub base: NodeId,
    /// Absolute, in the target.
    pub at: Utf8PathBuf,
    /// The options column of `/etc/fstab`.
    pub options: String,
    pub dump_frequency: u8,
    pub fsck_pass: u8,
}

/// See fstab(5).
pub fn fstab_line(mount: &Mount, filesystem: &Filesystem) -> String {
    format!(
        "UUID={} {} {} {} {} {}\n",
        filesystem.uuid_text(),
        mount.at,
        filesystem.kind.name(),
        mount.options,
        mount.dump_frequency,
        mount.fsck_pass
    )
}

/// See fstab(5).
pub fn swap_line(swap: &Swap) -> String {
    format!("UUID={} none swap sw 0 0\n", swap.uuid)
}
