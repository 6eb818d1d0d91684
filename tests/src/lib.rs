//! The harness: everything the tests, the demo and the bench stand on.
//!
//! [`toy`] makes a small signed Debian-style archive that installs and boots in seconds, [`http`] serves files
//! and breaks them on purpose, [`proxy`] keeps what the real mirror once gave, [`qemu`] runs machines and counts
//! what they write, [`leaks`] finds what a run left behind on this host.
//!
//! Nothing here is linked into the two programs; the harness meets them as a user does, by their command lines.

#![allow(clippy::disallowed_methods, reason = "the harness starts programs; it is no part of the engine")]

pub mod appliance;
pub mod debian;
pub mod host;
pub mod http;
pub mod leaks;
pub mod proxy;
pub mod qemu;
pub mod rivals;
pub mod site;
pub mod toy;
pub mod watch;
