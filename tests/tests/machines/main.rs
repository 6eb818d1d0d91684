//! Machines that install themselves: the appliance boots, fetches its config, and does what it says or refuses.
//!
//! Most cases install the toy suite, one installs the real Debian. Each case has a server of its own; the appliance
//! and the toy archive are made once.

mod debian;
mod inspections;
mod installs;
mod refusals;
mod stops;
mod support;
