//! PID 1 of the appliance: early mounts, then the work in a process of its own, then an ending by policy.
//!
//! Started as an ordinary program it does the same without touching the machine: the command line comes from
//! `CASTIRON_CMDLINE`, a recorded inventory from `CASTIRON_INVENTORY`, and the ending is an exit status.

mod attempts;
