//! The door to the operating system: the only place that changes disks and trees.

pub mod bootstrap;
pub mod chroot;
pub mod configure;
pub mod unpack;
