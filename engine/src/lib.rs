//! The engine turns a description into a bootable disk.
//!
//! Information flows one way: what people wrote ([`config`]) and what the machine reports
//! ([`inventory`]) are resolved into what shall be ([`spec`]), that becomes a [`plan`], the plan is
//! [`run`], events come out. Nothing below asks back upwards. See `ARCHITECTURE.md`.
//!
//! The engine does not know whether it is PID 1, whether its target is a file, or who is watching;
//! it prints nothing, and only [`system`] changes disks and trees.

pub mod appliance;
pub mod block;
pub mod catalogue;
pub mod config;
pub mod debian;
pub mod diagnostic;
pub mod event;
pub mod fetch;
pub mod inventory;
pub mod plan;
pub mod resolve;
pub mod run;
pub mod spec;
pub mod system;
pub mod trust;
pub mod units;
