//! What people wrote and what the machine reports become what shall be.
//!
//! Invariant: pure; the same input gives the same answer, on every machine and every day.

pub mod disks;
