//! The consoles: every one the kernel names gets every line, and none can hold the installation up.
//!
//! In: lines and events. Out: bytes to terminals and to the virtio-serial port `castiron.events`, a copy to the log.
//! Invariant: a write never blocks. What a dead or stopped line does not take waits in a bounded buffer; beyond that,
//! whole lines are dropped and counted. No foreign text reaches a terminal with its control characters.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, EventSink, EventType, Level, Progress, Unit};
use castiron_engine::units::Bytes;
use rustix::fs::{Mode, OFlags};

use crate::early;
use crate::log::{Log, Priority, Ring, stamp};
use crate::phases::Phase;

/// What waits for one slow line at most: some minutes of 9600 baud.
const PENDING_MAX: Bytes = Bytes::kib(64);
/// Events are for programs, which want them all.
const EVENTS_PENDING_MAX: Bytes = Bytes::mib(1);
/// Name of the virtio-serial port that takes events as JSON lines.
const EVENT_PORT: &str = "castiron.events";
/// How often a line that is not there is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// A handle; clones write to the same consoles.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
    log: Log,
}

#[derive(Debug, Default)]
struct Shared {
    outlets: Mutex<Outlets>,
    waiting: Condvar,
}

#[derive(Debug, Default)]
struct Outlets {
    terminals: Vec<Outlet>,
    events: Option<Outlet>,
    /// Events for a port whose driver is not loaded yet; the oldest go first.
    unsent: Ring,
    /// When the event port was last looked for.
    looked: Option<Instant>,
}

impl Console {
    /// Opens the consoles that the command line (`named`) and the kernel (`/proc/consoles`) name below `root`; without
    /// any, standard error serves.
    pub fn open(root: &Path, named: &[String], log: Log) -> Self {
        let active = fs::read_to_string(root.join("proc/consoles")).unwrap_or_default();
        let mut terminals: Vec<Outlet> = device_names(named, &active)
            .iter()
            .filter_map(|name| Outlet::open(&root.join("dev").join(name), PENDING_MAX).ok())
            .collect();
        if terminals.is_empty() {
            terminals.extend(Outlet::standard_error());
        }
        let outlets = Mutex::new(Outlets { terminals, ..Outlets::default() });
        Self { shared: Arc::new(Shared { outlets, waiting: Condvar::new() }), log }
    }

    /// Only standard error, for a start as an ordinary program.
    pub fn standard_error(log: Log) -> Self {
        let outlets = Outlets { terminals: Outlet::standard_error().into_iter().collect(), ..Outlets::default() };
        Self { shared: Arc::new(Shared { outlets: Mutex::new(outlets), waiting: Condvar::new() }), log }
    }

    /// Prints text with the time since the kernel started, line by line.
    pub fn line(&self, text: &str) {
        self.print(Priority::Info, text);
    }

    /// As [`Self::line`], marked as a warning in the logs.
    pub fn warn(&self, text: &str) {
        self.print(Priority::Warning, text);
    }

    fn print(&self, priority: Priority, text: &str) {
        for line in text.lines() {
            let line = neutral(line);
            self.log.add(priority, &line);
            let mut bytes = stamp(early::uptime(), &line).into_bytes();
            bytes.push(b'\n');
            for terminal in &mut self.lock().terminals {
                terminal.revive();
                terminal.write(&bytes);
            }
        }
        self.shared.waiting.notify_all();
    }

    /// Sends an event as one JSON line to the event port, now or when there is one.
    fn send(&self, event: &Event) {
        let Ok(line) = serde_json::to_string(event) else { return };
        self.lock().send(Path::new("/"), line);
        self.shared.waiting.notify_all();
    }

    /// Starts the thread that hands on what slow lines could not take at once.
    pub fn start_flushing(&self) {
        let shared = Arc::clone(&self.shared);
        let flush = move || loop {
            let mut outlets = shared.lock();
            while !outlets.pending() {
                outlets = shared.waiting.wait(outlets).unwrap_or_else(PoisonError::into_inner);
            }
            let moved = outlets.flush();
            drop(outlets);
            // `poll` would not do: a virtio port without a reader reports an error at once, for ever.
            std::thread::sleep(Duration::from_millis(if moved { 20 } else { 250 }));
        };
        if let Err(cause) = std::thread::Builder::new().name("console".to_owned()).spawn(flush) {
            self.warn(&format!("slow consoles are served late: {cause}"));
        }
    }

    /// Gives slow lines up to `patience` to take what waits for them.
    pub fn drain(&self, patience: Duration) {
        let end = Instant::now() + patience;
        self.lock().looked = None;
        loop {
            let mut outlets = self.lock();
            outlets.find_event_port(Path::new("/"));
            outlets.flush();
            if !outlets.pending() || Instant::now() >= end {
                break;
            }
            drop(outlets);
            std::thread::sleep(Duration::from_millis(20));
        }
        for terminal in &self.lock().terminals {
            while output_queued(terminal.file.as_fd()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Paths of the terminals that a shell can be opened on.
    pub fn terminals(&self) -> Vec<PathBuf> {
        self.lock().terminals.iter().filter_map(|terminal| terminal.path.clone()).collect()
    }

    /// The same terminals for reading without waiting; what was typed before is forgotten.
    pub fn keyboards(&self) -> Vec<fs::File> {
        let open = |path: PathBuf| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
            let _ = rustix::termios::tcflush(&file, rustix::termios::QueueSelector::IFlush); // pipes have no such queue
            Some(file.into())
        };
        self.terminals().into_iter().filter_map(open).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Outlets> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outlets> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets {
    fn pending(&self) -> bool {
        self.terminals.iter().chain(&self.events).any(|outlet| !outlet.pending.is_empty())
    }

    /// True when any line took anything.
    fn flush(&mut self) -> bool {
        self.terminals.iter_mut().chain(&mut self.events).fold(false, |moved, outlet| outlet.flush() | moved)
    }

    fn send(&mut self, root: &Path, line: String) {
        self.unsent.push(line, EVENTS_PENDING_MAX);
        self.find_event_port(root);
    }

    /// Looks for the port now and then, and gives it what waited for it.
    fn find_event_port(&mut self, root: &Path) {
        self.events.take_if(|port| port.dead.is_some());
        if self.events.is_none() && self.looked.is_none_or(|looked| looked.elapsed() >= RETRY) {
            self.looked = Some(Instant::now());
            self.events = event_port(root).and_then(|path| Outlet::open(&path, EVENTS_PENDING_MAX).ok());
        }
        if let Some(port) = &mut self.events {
            self.unsent.take().into_iter().for_each(|line| port.write(format!("{line}\n").as_bytes()));
        }
    }
}

/// One line to the outside that may be slow, stopped or dead.
#[derive(Debug)]
struct Outlet {
    path: Option<PathBuf>,
    file: OwnedFd,
    pending: VecDeque<u8>,
    capacity: Bytes,
    lost_lines: u64,
    /// Hung up or gone, since when.
    dead: Option<Instant>,
}

impl Outlet {
    fn open(path: &Path, capacity: Bytes) -> rustix::io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: Some(path.to_owned()), file, pending: VecDeque::new(), capacity, lost_lines: 0, dead: None })
    }

    /// Opened anew where that is possible, so that not blocking stays our own business.
    fn standard_error() -> Option<Self> {
        let anew = Self::open(Path::new("/proc/self/fd/2"), PENDING_MAX);
        let file = anew.map(|outlet| outlet.file).or_else(|_| rustix::io::dup(rustix::stdio::stderr())).ok()?;
        Some(Self { path: None, file, pending: VecDeque::new(), capacity: PENDING_MAX, lost_lines: 0, dead: None })
    }

    /// Takes a whole line or, when the buffer is full, none of it.
    fn write(&mut self, line: &[u8]) {
        self.flush();
        let note = match self.lost_lines {
            0 => Vec::new(),
            lost => format!("({lost} lines were lost here: the line is slow)\n").into_bytes(),
        };
        if (self.pending.len() + note.len() + line.len()) as u64 > self.capacity.0 {
            self.lost_lines += 1;
            return;
        }
        self.lost_lines = 0;
        self.pending.extend(note);
        self.pending.extend(line);
        self.flush();
    }

    fn flush(&mut self) -> bool {
        let mut moved = false;
        let mut reopened = false;
        while !self.pending.is_empty() {
            let (first, _) = self.pending.as_slices();
            match rustix::io::write(&self.file, first) {
                Ok(0) => break,
                Ok(count) => {
                    self.pending.drain(..count);
                    moved = true;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                // A shell that was the terminal's session leader hung it up when it ended: opened again it works.
                Err(_) if !reopened && self.reopen() => reopened = true,
                // Nobody will ever read this.
                Err(_) => {
                    self.pending.clear();
                    self.dead = Some(Instant::now());
                    break;
                }
            }
        }
        moved
    }

    /// Tries again, now and then, to open a terminal that was not there.
    fn revive(&mut self) {
        if self.dead.is_some_and(|dead| dead.elapsed() >= RETRY) {
            self.dead = (!self.reopen()).then(Instant::now);
        }
    }

    fn reopen(&mut self) -> bool {
        let again = self.path.as_deref().map(|path| Self::open(path, self.capacity));
        let Some(Ok(again)) = again else { return false };
        self.file = again.file;
        true
    }
}

fn output_queued(file: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd as _;
    let mut queued: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int; on anything but a terminal it fails and `queued` stays zero.
    unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) == 0 && queued > 0 }
}

/// Consoles by device name, the kernel's preferred one first. `tty0` is whatever screen is in front.
fn device_names(named: &[String], active: &str) -> Vec<String> {
    // `ttyS0  -W- (EC p a)  4:64`; consoles without a device file (netconsole) show no number.
    let active = active.lines().filter(|line| line.contains(':')).filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = Vec::new();
    for name in named.iter().map(String::as_str).chain(active) {
        let safe = !name.is_empty() && !name.contains(['/', '.']) && !matches!(name, "null" | "ttynull");
        if safe && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The device of the port named `castiron.events`: udev's link, or the name that the port itself has in sysfs.
fn event_port(root: &Path) -> Option<PathBuf> {
    let link = root.join("dev/virtio-ports").join(EVENT_PORT);
    if link.exists() {
        return Some(link);
    }
    fs::read_dir(root.join("sys/class/virtio-ports")).ok()?.flatten().find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        (name.trim() == EVENT_PORT).then(|| root.join("dev").join(port.file_name()))
    })
}

/// The text with control characters made visible, so that no log line can command a terminal. Tabs stay.
pub fn neutral(text: &str) -> String {
    let dangerous = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if dangerous(c) {
            let _ = write!(clean, "{}", c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Prints events for people. Progress comes at most every few seconds, so that it suits 9600 baud and a scroll-back.
pub struct ConsoleSink {
    console: Console,
    progress_printed: Option<Instant>,
    started: BTreeMap<String, Instant>,
}

const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// A step that ends well within this time has no line of its own for its end.
const QUICK: Duration = Duration::from_secs(2);

impl ConsoleSink {
    pub fn new(console: Console) -> Self {
        Self { console, progress_printed: None, started: BTreeMap::new() }
    }
}

impl EventSink for ConsoleSink {
    fn emit(&mut self, event: &Event) {
        match event.event_type {
            // Phases have their own line.
            EventType::Start if short(&event.name).parse::<Phase>().is_ok() => {}
            EventType::Start => {
                self.started.insert(event.name.clone(), Instant::now());
                self.console.line(&format!("{}: {}", short(&event.name), event.description));
            }
            // Something to know about the work, and not how far it is.
            EventType::Progress if event.progress.is_none() => {
                let line = format!("{}: {}", short(&event.name), event.description);
                if event.level >= Level::Warn { self.console.warn(&line) } else { self.console.line(&line) }
            }
            EventType::Progress => {
                let due = self.progress_printed.is_none_or(|printed| printed.elapsed() >= PROGRESS_INTERVAL);
                if let Some(progress) = event.progress.filter(|_| due) {
                    self.progress_printed = Some(Instant::now());
                    self.console.line(&format!("{}  {}", short(&event.name), progress_text(progress)));
                }
            }
            EventType::Finish => {
                let took = self.started.remove(&event.name).map(|started| started.elapsed()).unwrap_or_default();
                let name = short(&event.name);
                match event.result {
                    Some(EventResult::Fail) => self.console.warn(&format!("{name}: FAILED: {}", event.description)),
                    Some(EventResult::Warn) => self.console.warn(&format!("{name}: warning: {}", event.description)),
                    Some(EventResult::Success) | None if took >= QUICK => {
                        self.console.line(&format!("{name}: done in {:.1} s", took.as_secs_f64()));
                    }
                    Some(EventResult::Success) | None => {}
                }
            }
        }
    }
}

/// `install/storage/format-root` is `storage/format-root` to people who know that they install.
fn short(name: &str) -> &str {
    name.strip_prefix("install/").unwrap_or(name)
}

fn progress_text(progress: Progress) -> String {
    let count = |number: u64| match progress.unit {
        Unit::Bytes => Bytes(number).to_string(),
        Unit::Packages | Unit::Steps | Unit::Seconds => number.to_string(),
    };
    let unit = match progress.unit {
        Unit::Bytes => "",
        Unit::Packages => " packages",
        Unit::Steps => " steps",
        Unit::Seconds => " s",
    };
    match progress.total {
        Some(total) if total > 0 => {
            let percent = (u128::from(progress.done) * 100 / u128::from(total)).min(100);
            format!("{percent:>3} % ({}/{}{unit})", count(progress.done), count(total))
        }
        _ => format!("{}{unit}", count(progress.done)),
    }
}

/// Sends every event to the virtio-serial port, for the program that watches the machine.
pub struct PortSink(pub Console);

impl EventSink for PortSink {
    fn emit(&mut self, event: &Event) {
        self.0.send(event);
    }
}

#[cfg(test)]
mod tests;
