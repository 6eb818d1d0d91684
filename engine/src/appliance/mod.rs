//! The appliance: kernel, initramfs and boot media that turn a machine with an empty disk into an installed one.
//!
//! In: a board, unpacked packages, the init and what its owner wants baked in. Out: bytes of the files to boot from,
//! and a manifest of all that is in them. Everything here is pure but for reading the unpacked packages.
//! Invariant: the same inputs give the same bytes.

pub mod archive;
pub mod assemble;
pub mod contents;
pub mod elf;
pub mod kmod;
pub mod libraries;
pub mod licence;
pub mod manifest;
pub mod medium;
pub mod overlay;
pub mod texts;
pub mod uki;
