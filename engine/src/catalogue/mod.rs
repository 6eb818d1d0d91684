//! What is shipped as data: boards now; elements and kernel fragments beside them.
//!
//! Nothing here knows a board by name; a board is a folder with a `board.toml`.

pub mod board;

pub use board::{Bios, Board, BoardError, Efi, Firmware, Grub, ModuleEntry, PackageFile};
