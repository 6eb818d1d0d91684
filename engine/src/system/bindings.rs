//! Where nodes live: the only thing that is not known while planning.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

use crate::units::{Bytes, NodeId};

/// A part of a file or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub path: Utf8PathBuf,
    pub offset: Bytes,
    pub length: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(BTreeMap<NodeId, Region>);

impl Bindings {
    pub fn bind(&mut self, node: NodeId, region: Region) {
        self.0.insert(node, region);
    }

    pub fn region(&self, node: &NodeId) -> Option<&Region> {
        self.0.get(node)
    }
}
