//! Stands in for [`super::Linux`] where nothing may be changed: records effects, binds nodes to places that do not
//! exist, and fails where it is told to.

use camino::Utf8PathBuf;

use super::{Bindings, EffectError, OnProgress, Region, System};
use crate::plan::Effect;
use crate::units::{Bytes, NodeId};

#[derive(Debug, Default)]
pub struct Recorder {
    pub performed: Vec<Effect>,
    /// The effect with this index fails once.
    pub fail_at: Option<usize>,
    count: usize,
    held: Vec<Effect>,
}

impl Recorder {
    pub fn failing_at(index: usize) -> Self {
        Self { fail_at: Some(index), ..Self::default() }
    }

    /// What was acquired and not released.
    pub fn held(&self) -> &[Effect] {
        &self.held
    }
}

impl System for Recorder {
    fn perform(
        &mut self,
        effect: &Effect,
        bindings: &Bindings,
        _: &mut OnProgress<'_>,
    ) -> Result<Vec<(NodeId, Region)>, EffectError> {
        let index = self.count;
        self.count += 1;
        if self.fail_at == Some(index) {
            return Err(EffectError::new("told to fail here"));
        }
        self.performed.push(effect.clone());
        let region = |path: Utf8PathBuf, offset, length| Region { path, offset, length };
        let bound = |node: &NodeId| {
            bindings.region(node).cloned().ok_or_else(|| EffectError::new(format!("`{node}` is not bound yet")))
        };
        match effect {
            Effect::Verify { disk, identity } => {
                let path = Utf8PathBuf::from("/dev").join(&identity.kernel_name);
                Ok(vec![(disk.clone(), region(path, Bytes::ZERO, identity.size))])
            }
            Effect::CreateFile { disk, path, size } => {
                Ok(vec![(disk.clone(), region(path.clone(), Bytes::ZERO, *size))])
            }
            Effect::ScanPartitions { disk, partitions } => {
                let base = bound(disk)?;
                Ok(partitions
                    .iter()
                    .map(|place| (place.node.clone(), region(base.path.clone(), place.start, place.length)))
                    .collect())
            }
            Effect::WriteSectors { node, .. } | Effect::FormatFat { node, .. } | Effect::FillFat { node, .. } => {
                bound(node).map(|_| Vec::new())
            }
            Effect::Wipe { disk, .. } | Effect::ClearTable { disk } | Effect::EmbedGrub { disk, .. } => {
                bound(disk).map(|_| Vec::new())
            }
            Effect::Mount { node, at, .. } => {
                bound(node)?;
                self.held.push(Effect::Unmount { at: at.clone() });
                Ok(Vec::new())
            }
            Effect::Unmount { .. } => {
                self.held.retain(|held| held != effect);
                Ok(Vec::new())
            }
            Effect::RemoveFile { .. }
            | Effect::MakeDirectory { .. }
            | Effect::WriteFile { .. }
            | Effect::RemoveTargetFile { .. }
            | Effect::Symlink { .. }
            | Effect::CopyFolder { .. }
            | Effect::Unpack { .. }
            | Effect::Configure { .. }
            | Effect::Exec(_)
            | Effect::GrubConfig(_)
            | Effect::BootEntry(_)
            | Effect::KeepKernel { .. }
            | Effect::Sync { .. } => Ok(Vec::new()),
        }
    }
}
