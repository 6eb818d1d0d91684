//! A clock that is good enough for signatures and TLS, also where there is none.
//!
//! First the floor: it cannot be earlier than the day the appliance was built. Then the network, by
//! SNTP. Then the signed config, whose window decides between them (`trust::Window`). Waiting is done by the
//! monotonic clock everywhere, so that none of these steps disturbs a timeout.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use castiron_engine::config::system::Ntp;
use castiron_engine::event::{Event, EventSink, EventType, Level};
use castiron_engine::trust::{ClockEvidence, ClockVerdict, Window};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

mod sntp;

pub use sntp::SntpError;

/// When the appliance was built, in seconds since 1970 or as RFC 3339, below the root.
const BUILD_DATE: &str = "etc/castiron/build-date";
/// For an appliance without that file: castiron is not older.
const OLDEST: &str = "2026-01-01T00:00:00Z";
/// A clock that is this far ahead of the build date is broken and not late.
const SERVICE_LIFE: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);
/// Smaller errors are left alone.
const STEP_MIN: SignedDuration = SignedDuration::from_millis(100);

/// `ntp.required` without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no time server answered, and `ntp.required` says that one must")]
pub struct NoTime;

/// The clock that programs read.
pub trait SystemClock {
    /// `None`: not a time between the years -9999 and 9999.
    fn now(&self) -> Option<Timestamp>;
    fn set(&self, time: Timestamp) -> io::Result<()>;
}

/// The kernel's clock.
#[derive(Clone, Copy, Debug)]
pub struct KernelClock {
    /// Whether it may be set. Not on a development machine.
    pub may_set: bool,
}

impl SystemClock for KernelClock {
    fn now(&self) -> Option<Timestamp> {
        Timestamp::try_from(std::time::SystemTime::now()).ok()
    }

    fn set(&self, time: Timestamp) -> io::Result<()> {
        if !self.may_set {
            return Ok(());
        }
        let time = nix::sys::time::TimeSpec::new(time.as_second(), i64::from(time.subsec_nanosecond().max(0)));
        Ok(nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time)?)
    }
}

/// What every source said, and how long ago.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    floor: Timestamp,
    hardware: Option<(Timestamp, Instant)>,
    network: Option<(Timestamp, Instant)>,
    /// When the config counts, once that is known. No server may lead out of it.
    window: Option<Window>,
}

impl Clocks {
    /// Looks at the system clock, which the kernel took from the hardware, and lifts it to the floor if
    /// it cannot be right. Says so, because such a machine needs a battery.
    pub fn start(root: &Path, clock: &dyn SystemClock, events: &mut dyn EventSink) -> Self {
        let floor = floor(root, events);
        let seen = Instant::now();
        let now = clock.now();
        let plausible = now.filter(|now| *now >= floor && now.duration_since(floor) <= SERVICE_LIFE);
        if plausible.is_none() {
            let said = now.map_or_else(|| "a time past the year 9999".to_owned(), shown);
            tell(
                events,
                Level::Warn,
                format!(
                    "the hardware clock is implausible, it says {said}: taken to be {}, when the appliance was built",
                    shown(floor)
                ),
            );
            set(clock, floor, events);
        }
        Self { floor, hardware: plausible.map(|now| (now, seen)), network: None, window: None }
    }

    /// Asks the servers in turn until one answers with a time that is possible, and sets the clock.
    /// Without an answer the clock stays as it is.
    pub fn ask_network(
        &mut self,
        servers: &[String],
        wait: Duration,
        clock: &dyn SystemClock,
        events: &mut dyn EventSink,
    ) {
        if servers.is_empty() {
            return tell(events, Level::Info, "no time server is known".to_owned());
        }
        let possible = |time: Timestamp| {
            time >= self.floor
                && time.duration_since(self.floor) <= SERVICE_LIFE
                && self.window.is_none_or(|window| window.contains(time))
        };
        match sntp::ask(servers, self.floor, wait, &possible, &mut |text| tell(events, Level::Warn, text)) {
            Some(answer) => {
                let now = answer.time_now();
                self.network = Some((answer.time, answer.at));
                let off = clock.now().map(|ours| now.duration_since(ours));
                tell(
                    events,
                    Level::Info,
                    format!("{} says {}{}", answer.server, shown(now), off.map(offset).unwrap_or_default()),
                );
                if off.is_none_or(|off| off.abs() >= STEP_MIN) {
                    set(clock, now, events);
                }
            }
            None => tell(events, Level::Warn, format!("no time server answered in {} s", wait.as_secs())),
        }
    }

    /// Asks the config's servers when no other has answered. An error where the config insists on an answer.
    pub fn synchronise(
        &mut self,
        ntp: &Ntp,
        reachable: bool,
        clock: &dyn SystemClock,
        events: &mut dyn EventSink,
    ) -> Result<(), NoTime> {
        if reachable && !self.is_synchronised() && !ntp.servers.is_empty() {
            self.ask_network(&ntp.servers, ntp.boot_timeout.0, clock, events);
        }
        if ntp.required && !self.is_synchronised() { Err(NoTime) } else { Ok(()) }
    }

    /// What the sources say now, for `trust::verify`.
    pub fn evidence(&self) -> ClockEvidence {
        let now = |(time, at): (Timestamp, Instant)| time.saturating_add(elapsed(at)).unwrap_or(time);
        ClockEvidence { floor: self.floor, hardware: self.hardware.map(now), network: self.network.map(now) }
    }

    /// Whether a server's time was taken over.
    pub fn is_synchronised(&self) -> bool {
        self.network.is_some()
    }

    /// Takes over what the signed config's window decided, and holds later answers to it.
    pub fn adopt(
        &mut self,
        window: Window,
        verdict: &ClockVerdict,
        clock: &dyn SystemClock,
        events: &mut dyn EventSink,
    ) {
        self.window = Some(window);
        if verdict.network_rejected {
            self.network = None;
            let text = "the time servers lead out of the time for which the config is signed and are not believed";
            tell(events, Level::Warn, text.to_owned());
        }
        let off = clock.now().map(|ours| verdict.now.duration_since(ours));
        if off.is_none_or(|off| off.abs() > SignedDuration::from_secs(2)) {
            tell(events, Level::Info, format!("the clock is set to {} by {}", shown(verdict.now), verdict.source));
            set(clock, verdict.now, events);
        }
    }
}

fn elapsed(at: Instant) -> SignedDuration {
    SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::ZERO)
}

fn floor(root: &Path, events: &mut dyn EventSink) -> Timestamp {
    let oldest = OLDEST.parse().expect("a time");
    match fs::read_to_string(root.join(BUILD_DATE)) {
        Ok(text) => parse_build_date(&text).unwrap_or_else(|| {
            tell(events, Level::Warn, format!("/{BUILD_DATE} holds no time"));
            oldest
        }),
        Err(_) => oldest,
    }
}

fn parse_build_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    text.parse().ok().or_else(seconds)
}

fn set(clock: &dyn SystemClock, time: Timestamp, events: &mut dyn EventSink) {
    if let Err(error) = clock.set(time) {
        tell(events, Level::Error, format!("cannot set the clock: {error}"));
    }
}

/// To the second.
fn shown(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn offset(off: SignedDuration) -> String {
    let (seconds, way) = (off.abs().as_secs_f64(), if off.is_negative() { "ahead" } else { "behind" });
    if seconds < 0.1 { String::new() } else { format!("; the clock was {seconds:.1} s {way}") }
}

fn tell(events: &mut dyn EventSink, level: Level, text: String) {
    events.emit(&Event { event_type: EventType::Progress, level, ..Event::start("install/time", text) });
}

#[cfg(test)]
mod tests;
