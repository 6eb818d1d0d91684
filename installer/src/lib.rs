//! The parts of the appliance that need no PID 1: network, time, config sources, reporting.
//!
//! They are a library so that examples and tests can run them as ordinary programs.

pub mod anchors;
pub mod net;
pub mod report;
pub mod sources;
pub mod time;
