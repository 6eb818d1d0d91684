//! The log in memory: bounded, readable at any time, copied to the kernel's log.
//!
//! In: lines of the console and `tracing` events of every crate. Out: [`Log::contents`] for the upload at the end.
//! Invariant: adding a line never blocks and never grows the log beyond its bound.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use castiron_engine::units::Bytes;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::console::{Console, neutral};
use crate::early;

/// Enough for hours of an installation, small beside 512 MiB.
const CAPACITY: Bytes = Bytes::mib(1);
/// One record of the kernel's log holds 1024 bytes with its prefix (`PRINTKRB_RECORD_MAX`).
const KMSG_LINE_BYTES_MAX: usize = 960;

/// Priorities of syslog (RFC 5424, 6.2.1); nothing of ours is above a warning, so that the kernel does not print it
/// on the consoles a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Warning = 4,
    Info = 6,
    Debug = 7,
}

/// A handle; clones write to the same log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    ring: Arc<Mutex<Ring>>,
    kmsg: Option<Arc<std::fs::File>>,
}

/// Lines up to so many bytes; the oldest make room.
#[derive(Debug, Default)]
pub struct Ring {
    lines: VecDeque<String>,
    bytes: u64,
    dropped: u64,
}

impl Log {
    /// A log that is copied to `/dev/kmsg` where that can be written.
    pub fn with_kernel_copy() -> Self {
        let kmsg = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        Self { kmsg: kmsg.ok().map(Arc::new), ..Self::default() }
    }

    /// Adds one line, without its newline.
    pub fn add(&self, priority: Priority, line: &str) {
        if let Some(kmsg) = &self.kmsg {
            // Facility 1: user. A full or missing kernel log is no reason to fail.
            let _ = kmsg.as_ref().write_all(format!("<{}>castiron: {}", 8 + priority as u8, head(line)).as_bytes());
        }
        self.lock().push(stamp(early::uptime(), line), CAPACITY);
    }

    /// Everything that is kept, oldest first; the first line says how much was dropped, if any was.
    #[allow(dead_code, reason = "for the phases that follow the modules")]
    pub fn contents(&self) -> String {
        let ring = self.lock();
        let mut text = String::with_capacity(ring.bytes as usize + 64);
        if ring.dropped > 0 {
            let _ = writeln!(text, "({} earlier lines were dropped)", ring.dropped);
        }
        for line in &ring.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    pub fn push(&mut self, line: String, capacity: Bytes) {
        self.bytes += line.len() as u64 + 1;
        self.lines.push_back(line);
        while self.bytes > capacity.0 {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len() as u64 + 1;
            self.dropped += 1;
        }
    }

    /// All lines, which leaves none.
    pub fn take(&mut self) -> VecDeque<String> {
        self.bytes = 0;
        std::mem::take(&mut self.lines)
    }
}

/// The line with the time since the kernel started before it.
pub fn stamp(uptime: Duration, line: &str) -> String {
    format!("[{:>7.2}] {line}", uptime.as_secs_f64())
}

fn head(line: &str) -> &str {
    let mut end = line.len().min(KMSG_LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// The kernel's own log, as `dmesg` shows it; empty where it may not be read.
pub fn kernel_messages() -> String {
    const READ_ALL: libc::c_int = 3;
    const SIZE_BUFFER: libc::c_int = 10;
    // SAFETY: the size is asked for without a buffer.
    let size = unsafe { libc::klogctl(SIZE_BUFFER, std::ptr::null_mut(), 0) };
    let mut buffer = vec![0u8; usize::try_from(size).unwrap_or_default()];
    let room = libc::c_int::try_from(buffer.len()).unwrap_or_default();
    // SAFETY: the kernel writes at most `room` bytes, which the buffer has.
    let read = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), room) };
    buffer.truncate(usize::try_from(read).unwrap_or_default());
    String::from_utf8_lossy(&buffer).into_owned()
}

/// Leaves only the kernel's errors on the consoles, unless the command line says what it wants: thousands of messages
/// about devices cost minutes on a slow line. All of them stay in the kernel's log.
pub fn quieten_kernel(asked_otherwise: bool) {
    const CONSOLE_LEVEL: libc::c_int = 8;
    const ERRORS: libc::c_int = 4;
    if !asked_otherwise {
        // SAFETY: no buffer is involved.
        unsafe { libc::klogctl(CONSOLE_LEVEL, std::ptr::null_mut(), ERRORS) };
    }
}

/// Makes `log` the destination of `tracing`; warnings go to the consoles too, and debug messages where asked for.
pub fn subscribe(log: &Log, console: &Console, debug: bool) {
    let layer = Records { log: log.clone(), console: console.clone(), debug };
    let ours = tracing_subscriber::filter::Targets::new()
        .with_target("castiron_init", LevelFilter::DEBUG)
        .with_target("castiron_engine", LevelFilter::DEBUG)
        .with_default(LevelFilter::WARN);
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
    // Fails only when it is called twice, and then the first one keeps working.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Records {
    log: Log,
    console: Console,
    debug: bool,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Records {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = neutral(&format!("{}{}", text.message, text.fields));
        let level = *event.metadata().level();
        match level {
            tracing::Level::ERROR | tracing::Level::WARN => self.console.warn(&line),
            _ if self.debug => self.console.line(&line),
            tracing::Level::INFO => self.log.add(Priority::Info, &line),
            tracing::Level::DEBUG | tracing::Level::TRACE => self.log.add(Priority::Debug, &line),
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_first() {
        let mut ring = Ring::default();
        for n in 0..10 {
            ring.push(format!("line {n}"), Bytes(21));
        }
        assert_eq!(ring.lines, ["line 7", "line 8", "line 9"]);
        assert_eq!((ring.bytes, ring.dropped), (21, 7));
        ring.push("x".repeat(100), Bytes(21));
        assert!(ring.lines.is_empty() && ring.bytes == 0, "a line longer than the log is not kept");
    }

    #[test]
    fn what_was_dropped_is_said() {
        let log = Log::default();
        log.add(Priority::Info, "first");
        log.lock().dropped = 3;
        let contents = log.contents();
        assert!(contents.starts_with("(3 earlier lines were dropped)\n["), "{contents}");
        assert!(contents.ends_with("] first\n"), "{contents}");
    }

    #[test]
    fn a_kernel_record_is_cut_between_characters() {
        let line = "ä".repeat(KMSG_LINE_BYTES_MAX);
        assert_eq!(head(&line).len(), KMSG_LINE_BYTES_MAX);
        assert_eq!(head(&format!("a{line}")).len(), KMSG_LINE_BYTES_MAX - 1);
    }
}
