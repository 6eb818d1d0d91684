//! The block graph: disks, partition tables, file systems, swap, mounts; one file per kind.
//!
//! In: nodes whose identities and sizes are decided. Out: the same nodes in the order in which they
//! are made: dependencies first, then by mount path, then as the config lists them.
//! Invariant: no I/O; names are unique, every base exists, there is no ring.
//!
//! RAID, LUKS, LVM and further file systems join as further [`Kind`]s, each in a file of its own.

pub mod disk;
pub mod filesystem;
pub mod gpt;
pub mod mbr;
pub mod mount;
pub mod swap;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::NodeId;

pub use disk::{Disk, DiskIdentity, Target, Wipe};
pub use filesystem::{Filesystem, FsKind};
pub use mount::Mount;
pub use swap::Swap;
pub use table::{Partition, Table, TableKind};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Disk(Disk),
    /// The table on a disk; its partitions are nodes that others may name as their base.
    Table(Table),
    Filesystem(Filesystem),
    Swap(Swap),
    Mount(Mount),
}

impl Kind {
    /// The node this one is made on.
    pub fn base(&self) -> Option<&NodeId> {
        match self {
            Self::Disk(_) => None,
            Self::Table(table) => Some(&table.base),
            Self::Filesystem(filesystem) => Some(&filesystem.base),
            Self::Swap(swap) => Some(&swap.base),
            Self::Mount(mount) => Some(&mount.base),
        }
    }

    /// The names that come into being beside the node's own.
    fn provides(&self) -> Vec<&NodeId> {
        match self {
            Self::Table(table) => table.partitions.iter().map(|partition| &partition.node).collect(),
            Self::Disk(_) | Self::Filesystem(_) | Self::Swap(_) | Self::Mount(_) => Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    #[error("two nodes are called `{0}`")]
    Duplicate(NodeId),
    #[error("`{node}` is based on `{base}`, which nothing defines")]
    UnknownBase { node: NodeId, base: NodeId },
    #[error("`{0}` is, by way of its bases, based on itself")]
    Ring(NodeId),
}

impl GraphError {
    pub fn node(&self) -> &NodeId {
        match self {
            Self::Duplicate(node) | Self::UnknownBase { node, .. } | Self::Ring(node) => node,
        }
    }
}

/// Nodes in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockGraph {
    nodes: Vec<Node>,
}

impl BlockGraph {
    pub fn new(nodes: Vec<Node>) -> Result<Self, GraphError> {
        let owners = owners(&nodes)?;
        for node in &nodes {
            if let Some(base) = node.kind.base()
                && !owners.contains_key(base)
            {
                return Err(GraphError::UnknownBase { node: node.id.clone(), base: base.clone() });
            }
        }
        Ok(Self { nodes: in_order(nodes)? })
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn disks(&self) -> impl Iterator<Item = (&NodeId, &Disk)> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Disk(disk) => Some((&node.id, disk)),
            _ => None,
        })
    }

    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Table(table) => Some(table),
            _ => None,
        })
    }

    pub fn partitions(&self) -> impl Iterator<Item = (&Table, &Partition)> {
        self.tables().flat_map(|table| table.partitions.iter().map(move |partition| (table, partition)))
    }

    pub fn filesystems(&self) -> impl Iterator<Item = (&NodeId, &Filesystem)> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Filesystem(filesystem) => Some((&node.id, filesystem)),
            _ => None,
        })
    }

    pub fn filesystem(&self, id: &NodeId) -> Option<&Filesystem> {
        self.filesystems().find(|(name, _)| *name == id).map(|(_, filesystem)| filesystem)
    }

    pub fn swaps(&self) -> impl Iterator<Item = &Swap> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Swap(swap) => Some(swap),
            _ => None,
        })
    }

    /// Mounts, parents before what lies inside them.
    pub fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Mount(mount) => Some(mount),
            _ => None,
        })
    }
}

/// Who brings which name into being.
fn owners(nodes: &[Node]) -> Result<BTreeMap<&NodeId, usize>, GraphError> {
    let mut owners = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for name in std::iter::once(&node.id).chain(node.kind.provides()) {
            if owners.insert(name, index).is_some() {
                return Err(GraphError::Duplicate(name.clone()));
            }
        }
    }
    Ok(owners)
}

fn in_order(nodes: Vec<Node>) -> Result<Vec<Node>, GraphError> {
    let mut made: BTreeSet<NodeId> = BTreeSet::new();
    let mut waiting = nodes;
    let mut ordered = Vec::with_capacity(waiting.len());
    waiting.sort_by_key(|node| match &node.kind {
        Kind::Mount(mount) => Some(mount.at.clone()),
        _ => None,
    });
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|node| node.kind.base().is_none_or(|base| made.contains(base)));
        let Some(ready) = ready else { return Err(GraphError::Ring(waiting[0].id.clone())) };
        let node = waiting.remove(ready);
        made.insert(node.id.clone());
        made.extend(node.kind.provides().into_iter().cloned());
        ordered.push(node);
    }
    Ok(ordered)
}
