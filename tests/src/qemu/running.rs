//! A machine that runs: wait for its words, read its events, end it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use castiron_engine::event::Event;

use super::{Firmware, Machine, WriteLog};
use crate::host::{Failure, Result, Subject};

/// A place among the machines that may run at one time: as many as there are processors by two.
pub(super) struct Slot;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Slot {
    pub(super) fn take() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let most = std::env::var("CASTIRON_MACHINES").ok().and_then(|set| set.parse().ok());
        let most: usize = most.unwrap_or(processors.max(2));
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREED.wait_while(taken, |taken| *taken >= most).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Slot
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}

/// What a console printed up to now.
pub struct Console(pub String);

impl Console {
    /// The last lines, for failures.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.0.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

pub struct Running {
    machine: Machine,
    child: Child,
    started: Instant,
    status: Option<ExitStatus>,
    _slot: Slot,
}

impl Running {
    pub(super) fn new(machine: Machine, child: Child, slot: Slot) -> Self {
        Self { machine, child, started: Instant::now(), status: None, _slot: slot }
    }

    pub fn folder(&self) -> &PathBuf {
        &self.machine.folder
    }

    /// Since power-on.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn console(&self) -> Console {
        let bytes = std::fs::read(self.machine.folder.join("console.log")).unwrap_or_default();
        Console(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until the firmware has tried everything and found nothing that it could start.
    pub fn expect_nothing_to_boot(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        while Instant::now() < end && !self.ended()? {
            let said = match self.machine.firmware {
                Firmware::Bios => std::fs::read(self.machine.folder.join("firmware.log")).unwrap_or_default(),
                Firmware::Uefi => std::fs::read(self.machine.folder.join("console.log")).unwrap_or_default(),
            };
            let said = String::from_utf8_lossy(&said).into_owned();
            if ["No bootable device", "UEFI Interactive Shell"].iter().any(|text| said.contains(text)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Failure(format!("the firmware did not give up; the console ends with:\n{}", self.console().tail())))
    }

    /// Waits until the console shows `text`, and gives the time since power-on. It is a failure when the machine
    /// ends first, or when it shows one of `never`.
    pub fn expect(&mut self, text: &str, never: &[&str], within: Duration) -> Result<Duration> {
        let end = Instant::now() + within;
        loop {
            let ended = self.ended()?;
            let console = self.console();
            if console.0.contains(text) {
                return Ok(self.uptime());
            }
            let fail = |what: String| Err(Failure(format!("{what}; the console ends with:\n{}", console.tail())));
            if let Some(bad) = never.iter().find(|bad| console.0.contains(**bad)) {
                return fail(format!("waiting for {text:?} the console said {bad:?}"));
            }
            if ended {
                return fail(format!("the machine ended before {text:?}{}", self.last_words()));
            }
            if Instant::now() >= end {
                return fail(format!("no {text:?} within {} s", within.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the machine powers off (or, where it does not reboot, asks for a reboot).
    pub fn expect_end(&mut self, within: Duration) -> Result<Duration> {
        let end = Instant::now() + within;
        while !self.ended()? {
            if Instant::now() >= end {
                let tail = self.console().tail();
                return Err(Failure(format!(
                    "still running after {} s; the console ends with:\n{tail}",
                    within.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        match self.status {
            Some(status) if !status.success() => Err(Failure(format!("qemu: {status}{}", self.last_words()))),
            _ => Ok(self.uptime()),
        }
    }

    /// The events so far; a line that is still being written is left for the next call.
    pub fn events(&self) -> Result<Vec<Event>> {
        let path = self.machine.folder.join("events.jsonl");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(), // QEMU has not opened it yet
            bytes => bytes.on(path.display())?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).on(format_args!("event {line:?}"))).collect()
    }

    /// What was done to the disk with this serial number, of those that are recorded.
    pub fn writes(&self, serial: &str) -> Result<WriteLog> {
        WriteLog::read(&self.machine.write_log(serial))
    }

    /// The write logs of all recorded disks, by serial number.
    pub fn all_writes(&self) -> Result<Vec<(String, WriteLog)>> {
        let recorded = self.machine.disks.iter().filter(|disk| disk.record);
        recorded.map(|disk| Ok((disk.serial.clone(), self.writes(&disk.serial)?))).collect()
    }

    /// Types `text` on the console.
    pub fn type_in(&self, text: &str) -> Result<()> {
        let path = self.machine.folder.join("console.sock");
        let mut stream = UnixStream::connect(&path).on(path.display())?;
        stream.write_all(text.as_bytes()).on(path.display())
    }

    /// Says `command` to the emulator and gives its answer.
    pub fn monitor(&self, command: &str) -> Result<serde_json::Value> {
        let path = self.machine.folder.join("qmp.sock");
        let mut stream = UnixStream::connect(&path).on(path.display())?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).on(path.display())?;
        let mut lines = BufReader::new(stream.try_clone().on(path.display())?).lines();
        for line in ["qmp_capabilities", command] {
            writeln!(stream, "{{\"execute\":\"{line}\"}}").on(path.display())?;
        }
        let mut answers = 0;
        loop {
            let line = lines.next().ok_or_else(|| Failure(format!("{command}: the emulator hung up")))?.on(command)?;
            let mut value: serde_json::Value = serde_json::from_str(&line).on(command)?;
            if let Some(error) = value.get("error") {
                return Err(Failure(format!("{command}: {error}")));
            }
            if let Some(answer) = value.get_mut("return") {
                answers += 1;
                if answers == 2 {
                    return Ok(answer.take());
                }
            }
        }
    }

    /// Pulls the plug: what the machine had not written yet is lost.
    pub fn cut_power(&mut self) -> Result<()> {
        if !self.ended()? {
            self.child.kill().on("ending qemu")?;
            self.status = Some(self.child.wait().on("ending qemu")?);
        }
        Ok(())
    }

    pub fn ended(&mut self) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().on("qemu")?;
        }
        Ok(self.status.is_some())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.machine.folder.join("qemu.log")).unwrap_or_default();
        if text.trim().is_empty() { String::new() } else { format!(" (qemu said: {})", text.trim()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.cut_power());
    }
}
