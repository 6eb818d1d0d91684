//! What only PID 1 has to do: take every dead child, answer signals, outlive the work.
//!
//! The work runs in a process of its own. So PID 1 may reap whatever dies without stealing an exit status from
//! `std::process::Child`, and an abort, a stack overflow or the OOM killer in the work is an answer, not a dead machine.
//! In: a function. Out: [`Ended`]. Invariant: PID 1 never waits for anything else than its signals and a deadline.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::console::Console;

/// How long the work may take to stop by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(20);

/// What a signal asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Reboot,
    PowerOff,
    Halt,
}

/// Ctrl-Alt-Del arrives as SIGINT; the others are those of busybox and sysvinit, SIGPWR that of a power supply.
const REQUESTS: &[(Signal, Request)] = &[
    (Signal::SIGINT, Request::Reboot),
    (Signal::SIGTERM, Request::Reboot),
    (Signal::SIGHUP, Request::Reboot),
    (Signal::SIGUSR1, Request::Halt),
    (Signal::SIGUSR2, Request::PowerOff),
    (Signal::SIGPWR, Request::PowerOff),
];

/// How work came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    Returned(T),
    Panicked(String),
    /// Without a word: `killed by SIGKILL`, `exited with status 1`.
    Died(String),
    Stopped(Request),
}

/// Something that happened to PID 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Occurrence {
    Exited(Pid, WaitStatus),
    Asked(Request),
    TimedOut,
}

/// Set in the working process once it is asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// Whether PID 1 has asked this process to come to an end.
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

pub struct Reaper {
    signals: SignalFd,
}

impl Reaper {
    /// Takes over the signals of this process, which must have one thread, and Ctrl-Alt-Del.
    pub fn start() -> io::Result<Self> {
        let mut set: SigSet = REQUESTS.iter().map(|(signal, _)| *signal).collect();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // Fails in a container, where there is no such key.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
        Ok(Self { signals })
    }

    /// The next thing that happens, or `TimedOut` at `end`. Every dead child is reported, orphans included.
    pub fn next(&mut self, end: Option<Instant>) -> Occurrence {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) => {
                    return Occurrence::Exited(pid, status);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => {}
                Ok(_) => continue,
            }
            if let Ok(Some(signal)) = self.signals.read_signal() {
                match REQUESTS.iter().find(|(known, _)| *known as u32 == signal.ssi_signo) {
                    Some((_, request)) => return Occurrence::Asked(*request),
                    None => continue, // SIGCHLD: look again
                }
            }
            let timeout = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Occurrence::TimedOut,
                // Rounded up, so that the last millisecond is not spent spinning.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            // An interrupted wait looks again like any other.
            let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// Runs `work` in a process of its own until it ends or somebody asks the machine to stop.
    pub fn supervise<T: Serialize + DeserializeOwned>(
        &mut self,
        console: &Console,
        work: impl FnOnce() -> T,
    ) -> io::Result<Ended<T>> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: PID 1 has one thread here, so the child may do whatever it likes.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(reader);
                worker(console, writer, work)
            }
            ForkResult::Parent { child } => {
                drop(writer);
                let (status, stopped) = self.attend(console, child);
                Ok(match stopped {
                    Some(request) => Ended::Stopped(request),
                    None => answer(reader, status),
                })
            }
        }
    }

    /// Waits for the end of `child`, which is asked and later forced to stop when somebody wants the machine to.
    fn attend(&mut self, console: &Console, child: Pid) -> (WaitStatus, Option<Request>) {
        let mut stopped = None;
        let mut end = None;
        loop {
            match self.next(end) {
                Occurrence::Exited(pid, status) if pid == child => return (status, stopped),
                Occurrence::Exited(..) => {}
                Occurrence::Asked(request) if stopped.is_none() => {
                    console.line(&format!("asked to {}: stopping the work", request.verb()));
                    stopped = Some(request);
                    end = Some(Instant::now() + GRACE);
                    let _ = kill(child, Signal::SIGTERM);
                }
                // Asked twice, or it takes too long.
                Occurrence::Asked(_) | Occurrence::TimedOut => {
                    console.warn("the work does not stop: it is killed");
                    end = None;
                    let _ = kill(child, Signal::SIGKILL);
                }
            }
        }
    }
}

impl Request {
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOff => "power off",
            Self::Halt => "halt",
        }
    }
}

/// What the child writes before it ends.
#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Returned(T),
    Panicked(String),
}

fn worker<T: Serialize>(console: &Console, writer: OwnedFd, work: impl FnOnce() -> T) -> ! {
    let stop = SigAction::new(SigHandler::Handler(note_stop), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only stores to an atomic.
    let _ = unsafe { sigaction(Signal::SIGTERM, &stop) };
    let _ = SigSet::all().thread_unblock();
    let _ = setsid();
    let answer = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(value) => Answer::Returned(value),
        Err(payload) => Answer::Panicked(panic_text(&*payload)),
    };
    let written = serde_json::to_vec(&answer).map(|bytes| std::fs::File::from(writer).write_all(&bytes));
    console.drain(Duration::from_secs(2));
    let status = if matches!(written, Ok(Ok(()))) { 0 } else { 1 };
    // Without the destructors of PID 1's copy of everything.
    unsafe { libc::_exit(status) }
}

extern "C" fn note_stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// What a panic said, where it was a text.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

fn answer<T: DeserializeOwned>(reader: OwnedFd, status: WaitStatus) -> Ended<T> {
    // The writer is gone, but a grandchild between fork and exec may still hold a copy: never wait for the end.
    let _ = rustix::io::ioctl_fionbio(&reader, true);
    let mut bytes = Vec::new();
    let _ = std::fs::File::from(reader).read_to_end(&mut bytes);
    match serde_json::from_slice(&bytes) {
        Ok(Answer::Returned(value)) => Ended::Returned(value),
        Ok(Answer::Panicked(text)) => Ended::Panicked(text),
        Err(_) => Ended::Died(match status {
            WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
            WaitStatus::Exited(_, status) => format!("exited with status {status}"),
            other => format!("{other:?}"),
        }),
    }
}

#[cfg(test)]
mod tests;
