//! The door to the operating system: the only place that changes disks and trees.

mod bindings;
pub mod bootstrap;
pub mod chroot;
pub mod configure;
mod door;
pub mod linux;
mod recorder;
mod toolbox;
pub mod unpack;

pub use bindings::{Bindings, Region};
pub use door::{Context, EffectError, OnProgress, System};
pub use linux::Linux;
pub use recorder::Recorder;
pub use toolbox::Toolbox;
