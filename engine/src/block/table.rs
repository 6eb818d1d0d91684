//! A partition table on a disk. The bytes are made by [`super::gpt`] and [`super::mbr`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::units::{Bytes, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Gpt,
    Mbr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub base: NodeId,
    pub kind: TableKind,
    /// The disk GUID; an MBR takes its first four bytes as disk signature.
    pub uuid: Uuid,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// How firmware and kernels know a disk with an MBR.
    pub fn mbr_signature(&self) -> [u8; 4] {
        self.uuid.as_bytes()[..4].try_into().expect("four bytes")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    pub node: NodeId,
    /// From one, as the kernel counts.
    pub number: u32,
    pub start: Bytes,
    pub length: Bytes,
    /// The GPT type; see the Discoverable Partitions Specification.
    pub type_guid: Uuid,
    /// The type byte in an MBR.
    pub type_byte: u8,
    pub uuid: Uuid,
    /// The GPT partition name, at most 36 UTF-16 units.
    pub name: String,
    /// Marked active in an MBR.
    pub active: bool,
}

/// The EFI system partition (UEFI 2.10, 13.3.3).
pub const ESP: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Where GRUB keeps its core image on a GPT disk that a BIOS starts.
pub const BIOS_BOOT: Uuid = Uuid::from_u128(0x21686148_6449_6e6f_744e_656564454649);
/// Linux data without a place of its own.
pub const LINUX_DATA: Uuid = Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4);
/// Linux swap.
pub const LINUX_SWAP: Uuid = Uuid::from_u128(0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f);
