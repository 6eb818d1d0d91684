//! Time against a signed window, on machines whose clock may be wrong or missing.
//!
//! The signature is worth more than any clock: its `not-before` is a floor (it was signed by then),
//! and a network clock that leads out of the window is not believed while the machine's own clock
//! lies inside. But a document is never used after `not-after` because a clock was doubted.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::TrustError;

/// From when to when, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Window {
    #[serde(serialize_with = "as_text")]
    pub not_before: Timestamp,
    #[serde(serialize_with = "as_text")]
    pub not_after: Timestamp,
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// What each source says the time is *now*. The caller has already thrown away a hardware clock that
/// cannot be right (before the appliance was built, or decades after).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEvidence {
    /// When the appliance was built. It is later now.
    pub floor: Timestamp,
    pub hardware: Option<Timestamp>,
    pub network: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    Network,
    Hardware,
    BuildDate,
    /// The `not-before` of the signed document.
    Signature,
}

impl fmt::Display for ClockSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Network => "the network clock",
            Self::Hardware => "the hardware clock",
            Self::BuildDate => "the build date of the appliance",
            Self::Signature => "the signature",
        })
    }
}

/// Which clock is right, given the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockVerdict {
    #[serde(serialize_with = "as_text")]
    pub now: Timestamp,
    pub source: ClockSource,
    /// The network clock led out of the window and was not believed.
    pub network_rejected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    now: Timestamp,
    source: ClockSource,
    expired: bool,
}

impl Refusal {
    pub(super) fn of(self, name: String, window: Window) -> TrustError {
        let Self { now, source: source_of_now, expired } = self;
        match expired {
            true => TrustError::Expired { name, not_after: window.not_after, now, source_of_now },
            false => TrustError::NotYetValid { name, not_before: window.not_before, now, source_of_now },
        }
    }
}

impl Window {
    pub fn contains(&self, time: Timestamp) -> bool {
        self.not_before <= time && time <= self.not_after
    }

    pub(super) fn judge(&self, clocks: &ClockEvidence) -> Result<ClockVerdict, Refusal> {
        let verdict = |now, source| ClockVerdict { now, source, network_rejected: false };
        let refusal = |now, source| Refusal { now, source, expired: now > self.not_after };
        match (clocks.network, clocks.hardware) {
            (Some(now), _) if self.contains(now) => Ok(verdict(now, ClockSource::Network)),
            (Some(_), Some(now)) if self.contains(now) => {
                Ok(ClockVerdict { network_rejected: true, ..verdict(now, ClockSource::Hardware) })
            }
            (Some(now), _) => Err(refusal(now, ClockSource::Network)),
            (None, Some(now)) if self.contains(now) => Ok(verdict(now, ClockSource::Hardware)),
            (None, Some(now)) => Err(refusal(now, ClockSource::Hardware)),
            (None, None) if clocks.floor > self.not_after => Err(refusal(clocks.floor, ClockSource::BuildDate)),
            (None, None) if clocks.floor >= self.not_before => Ok(verdict(clocks.floor, ClockSource::BuildDate)),
            (None, None) => Ok(verdict(self.not_before, ClockSource::Signature)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: (&str, &str) = ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z");

    fn at(text: &str) -> Timestamp {
        format!("{text}T00:00:00Z").parse().unwrap()
    }

    /// `floor hardware network`, `-` for none, and what follows from them.
    fn check(clocks: &str, expected: &str) {
        let window = Window { not_before: WINDOW.0.parse().unwrap(), not_after: WINDOW.1.parse().unwrap() };
        let mut words = clocks.split(' ').map(|word| (word != "-").then(|| at(word)));
        let mut next = || words.next().unwrap();
        let evidence = ClockEvidence { floor: next().unwrap(), hardware: next(), network: next() };
        let text = match window.judge(&evidence) {
            Ok(verdict) => {
                let rejected = if verdict.network_rejected { ", not the network" } else { "" };
                format!("{} by {}{rejected}", &verdict.now.to_string()[..10], verdict.source)
            }
            Err(refusal) => {
                let why = if refusal.expired { "expired" } else { "not yet valid" };
                format!("{why}: {} says {}", refusal.source, &refusal.now.to_string()[..10])
            }
        };
        assert_eq!(text, expected, "{clocks}");
    }

    #[test]
    fn the_network_is_believed_inside_the_window() {
        check("2026-08-01 2026-09-10 2026-09-11", "2026-09-11 by the network clock");
        check("2026-08-01 - 2026-09-11", "2026-09-11 by the network clock");
    }

    #[test]
    fn a_lying_network_clock_does_not_move_a_good_one() {
        check("2026-08-01 2026-09-10 2036-09-10", "2026-09-10 by the hardware clock, not the network");
        check("2026-08-01 2026-09-10 2024-09-10", "2026-09-10 by the hardware clock, not the network");
    }

    #[test]
    fn nothing_is_used_after_its_end() {
        check("2026-08-01 - 2036-09-10", "expired: the network clock says 2036-09-10");
        check("2026-08-01 2026-11-10 2026-11-10", "expired: the network clock says 2026-11-10");
        check("2026-08-01 2026-11-10 -", "expired: the hardware clock says 2026-11-10");
        check("2026-11-01 - -", "expired: the build date of the appliance says 2026-11-01");
    }

    #[test]
    fn a_good_clock_before_the_start_is_believed() {
        check("2026-08-01 2026-08-10 -", "not yet valid: the hardware clock says 2026-08-10");
        check("2026-08-01 - 2026-08-10", "not yet valid: the network clock says 2026-08-10");
    }

    #[test]
    fn without_a_clock_the_signature_is_one() {
        check("2026-08-01 - -", "2026-09-01 by the signature");
        check("2026-09-05 - -", "2026-09-05 by the build date of the appliance");
    }
}
