//! The hardware watchdog: a machine whose installation no longer advances is reset.
//!
//! In: events of the installation, `castiron.watchdog=TIME`. Out: signs of life to `/dev/watchdog` (the kernel's
//! watchdog API). Only progress counts: a process that is alive but stuck is not fed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventSink};

const DEVICE: &str = "/dev/watchdog";
/// Hardware bites after 30 s to a few minutes without a sign; drivers take at least this often.
const FEED_INTERVAL: Duration = Duration::from_secs(5);

/// Listens to events; every one is progress.
pub struct WatchdogSink {
    progress: Arc<Mutex<Instant>>,
}

impl EventSink for WatchdogSink {
    fn emit(&mut self, _: &Event) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Starts feeding for as long as there was progress within `patience`. `None` when this machine has no watchdog.
pub fn start(patience: Duration) -> Option<WatchdogSink> {
    let device = OpenOptions::new().write(true).open(DEVICE).ok()?;
    let progress = Arc::new(Mutex::new(Instant::now()));
    let seen = Arc::clone(&progress);
    let feed = move || feed(device, patience, &seen);
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(feed).ok()?;
    Some(WatchdogSink { progress })
}

fn feed(mut device: File, patience: Duration, progress: &Mutex<Instant>) {
    loop {
        let last = *progress.lock().unwrap_or_else(PoisonError::into_inner);
        if is_alive(last, Instant::now(), patience) {
            let _ = device.write_all(b"\0"); // nothing else to do about it than to try again
        } else {
            tracing::warn!("no progress for {} s: the watchdog is no longer fed", patience.as_secs());
            // The descriptor stays open: closing it could stop the watchdog.
            std::thread::sleep(patience);
        }
        std::thread::sleep(FEED_INTERVAL);
    }
}

fn is_alive(last: Instant, now: Instant, patience: Duration) -> bool {
    now.saturating_duration_since(last) < patience
}

/// Stops the watchdog, where its driver allows that, so that people have all the time they need afterwards.
pub fn disarm() {
    if Path::new(DEVICE).exists()
        && let Ok(mut device) = OpenOptions::new().write(true).open(DEVICE)
    {
        let _ = device.write_all(b"V"); // the "magic close"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_keeps_it_fed() {
        let start = Instant::now();
        let patience = Duration::from_secs(60);
        assert!(is_alive(start, start + Duration::from_secs(59), patience));
        assert!(!is_alive(start, start + Duration::from_secs(60), patience));
        let mut sink = WatchdogSink { progress: Arc::new(Mutex::new(start)) };
        std::thread::sleep(Duration::from_millis(2));
        sink.emit(&Event::start("install", "any event"));
        assert!(*sink.progress.lock().unwrap() > start);
    }
}
