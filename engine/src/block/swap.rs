//! Swap space: a header that is written natively (`union swap_header` of the kernel's `include/linux/swap.h`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::units::{Bytes, NodeId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    pub base: NodeId,
    pub uuid: Uuid,
    pub label: Option<String>,
}

/// The page size of the machines that will use the space.
const PAGE: usize = 4096;
const LABEL_LENGTH_MAX: usize = 15;

/// The first page of a swap space of `length`.
pub fn header(swap: &Swap, length: Bytes) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let pages = length.0 / PAGE as u64;
    let last_page = u32::try_from(pages.saturating_sub(1)).unwrap_or(u32::MAX);
    page[1024..1028].copy_from_slice(&1u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    page[1036..1052].copy_from_slice(swap.uuid.as_bytes());
    let label = swap.label.as_deref().unwrap_or_default().as_bytes();
    let label = &label[..label.len().min(LABEL_LENGTH_MAX)];
    page[1052..1052 + label.len()].copy_from_slice(label);
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    page
}
