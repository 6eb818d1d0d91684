//! The end: the only place that reboots, powers off, halts, starts another kernel, opens a shell or waits.
//!
//! In: [`Outcome`] and what the command line says about endings. Out: nothing, it does not return.
//! Invariant: nothing here can leave PID 1 dead; whatever fails falls through to the next less friendly way.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, EventSink as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;
use serde::{Deserialize, Serialize};

use crate::attempts::{ATTEMPTS_MAX, Attempts};
use crate::cmdline::{Boot, Ending};
use crate::console::{Console, PortSink};
use crate::reaper::{Ended, Occurrence, Reaper, Request};
use crate::watchdog;

/// What came of it all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything that was asked for is done.
    Done {
        wish: Wish,
        kexec: Option<Kexec>,
    },
    /// Something could not be done; the reason has been reported in full, this is its first line.
    Failed {
        reason: String,
        wish: Wish,
    },
    Panicked {
        message: String,
    },
    /// The working process ended without an answer.
    Died {
        how: String,
    },
    Stopped {
        request: Request,
    },
}

/// What the config says about the ending; the command line is asked first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub ending: Option<Ending>,
    pub reboot_after: Option<Duration>,
}

/// A system to start without going through the firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kexec {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub command_line: String,
}

/// What is done about an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub ending: Ending,
    /// A reboot comes after this time, unless a person is at a console.
    pub reboot_after: Option<Duration>,
}

/// How long a failure stays readable before a reboot that nobody gave a time for.
const FAILURE_SHOWN: Duration = Duration::from_secs(30);
const SHELLS: &[(&str, &[&str])] =
    &[("/bin/bash", &[]), ("/bin/sh", &[]), ("/bin/busybox", &["sh"]), ("/usr/bin/busybox", &["sh"])];

impl Outcome {
    #[cfg(test)]
    pub fn done() -> Self {
        Self::Done { wish: Wish::default(), kexec: None }
    }

    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), wish: Wish::default() }
    }

    /// Why it is not a success; `None` when it is one.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Done { .. } => None,
            Self::Failed { reason, .. } => Some(reason.clone()),
            Self::Panicked { message } => Some(format!("the installer panicked: {message}")),
            Self::Died { how } => Some(format!("the installer ended without an answer: {how}")),
            Self::Stopped { request } => Some(format!("somebody asked the machine to {}", request.verb())),
        }
    }

    /// The command line first, then the config, then: reboot after a success, a shell after a failure.
    pub fn policy(&self, boot: &Boot) -> Policy {
        match self {
            Self::Done { wish, .. } => {
                Policy { ending: boot.on_success.or(wish.ending).unwrap_or(Ending::Reboot), reboot_after: None }
            }
            Self::Failed { wish, .. } => failure_policy(boot, wish),
            Self::Panicked { .. } | Self::Died { .. } => failure_policy(boot, &Wish::default()),
            Self::Stopped { request } => {
                let ending = match request {
                    Request::Reboot => Ending::Reboot,
                    Request::PowerOff => Ending::PowerOff,
                    Request::Halt => Ending::Halt,
                };
                Policy { ending, reboot_after: None }
            }
        }
    }
}

fn failure_policy(boot: &Boot, wish: &Wish) -> Policy {
    let ending = boot.on_error.or(wish.ending).unwrap_or(Ending::Shell);
    let given = boot.reboot_after.or(wish.reboot_after);
    let reboot_after = match ending {
        Ending::Reboot => Some(given.unwrap_or(FAILURE_SHOWN)),
        Ending::Shell | Ending::Wait => given,
        Ending::PowerOff | Ending::Halt | Ending::Kexec => None,
    };
    Policy { ending, reboot_after }
}

impl From<io::Result<Ended<Outcome>>> for Outcome {
    fn from(ended: io::Result<Ended<Self>>) -> Self {
        match ended {
            Ok(Ended::Returned(outcome)) => outcome,
            Ok(Ended::Panicked(message)) => Self::Panicked { message },
            Ok(Ended::Died(how)) => Self::Died { how },
            Ok(Ended::Stopped(request)) => Self::Stopped { request },
            Err(cause) => Self::Died { how: format!("it could not be started: {cause}") },
        }
    }
}

/// Acts on the outcome. Called by PID 1 with everything else already at its end.
pub fn act(reaper: &mut Reaper, console: &Console, boot: &Boot, outcome: &Outcome) -> ! {
    watchdog::disarm();
    let policy = bounded(console, outcome, outcome.policy(boot));
    match outcome.failure() {
        None => console.line("finished"),
        Some(reason) => console.warn(&format!("NOT INSTALLED: {reason}")),
    }
    if matches!(outcome, Outcome::Panicked { .. } | Outcome::Died { .. }) {
        // Nobody could say so any more in its own process.
        let reason = outcome.failure().unwrap_or_default();
        PortSink(console.clone()).emit(&Event::finish("install", reason, EventResult::Fail));
    }
    let kexec = match outcome {
        Outcome::Done { kexec, .. } => kexec.as_ref(),
        _ => None,
    };
    let command = match attended(reaper, console, &policy) {
        Ending::Reboot | Ending::Shell | Ending::Wait => RebootCommand::Restart,
        Ending::PowerOff => RebootCommand::PowerOff,
        Ending::Halt => RebootCommand::Halt,
        Ending::Kexec => match kexec.map(load_kernel) {
            Some(Ok(())) => RebootCommand::Kexec,
            Some(Err(cause)) => {
                console.warn(&format!("cannot start the new kernel directly, rebooting instead: {cause}"));
                RebootCommand::Restart
            }
            None => {
                console.warn("there is no kernel to start directly, rebooting instead");
                RebootCommand::Restart
            }
        },
    };
    end_machine(reaper, console, command)
}

/// A machine that fails, reboots and fails again comes to rest after some attempts.
fn bounded(console: &Console, outcome: &Outcome, policy: Policy) -> Policy {
    let attempts = Attempts::new(Path::new("/sys/firmware/efi/efivars"));
    match outcome {
        Outcome::Done { .. } => attempts.clear(),
        Outcome::Stopped { .. } => {}
        Outcome::Failed { .. } | Outcome::Panicked { .. } | Outcome::Died { .. } if policy.reboot_after.is_some() => {
            let count = attempts.add();
            console.line(&format!("attempt {count} of {ATTEMPTS_MAX} failed"));
            if count >= ATTEMPTS_MAX {
                attempts.clear();
                let ending = if policy.ending == Ending::Reboot { Ending::Wait } else { policy.ending };
                return Policy { ending, reboot_after: None };
            }
        }
        Outcome::Failed { .. } | Outcome::Panicked { .. } | Outcome::Died { .. } => {}
    }
    policy
}

/// The part of an ending that people can take part in: countdown, shell, waiting. Out: what to do then.
fn attended(reaper: &mut Reaper, console: &Console, policy: &Policy) -> Ending {
    if let Some(time) = policy.reboot_after {
        let after = if policy.ending == Ending::Reboot { "reboot" } else { "reboot unless somebody is there" };
        console.line(&format!("{after} in {} s; press Enter on a console for a shell", time.as_secs()));
        match reaper.supervise(console, || somebody_there(console, time)) {
            Ok(Ended::Returned(false)) => return Ending::Reboot,
            Ok(Ended::Returned(true)) => return shell_or_wait(reaper, console),
            Ok(Ended::Stopped(request)) => return request.into(),
            // No way to ask: the time passes all the same.
            Ok(Ended::Panicked(_) | Ended::Died(_)) | Err(_) => {
                return wait(reaper, Some(Instant::now() + time)).map_or(Ending::Reboot, Ending::from);
            }
        }
    }
    match policy.ending {
        Ending::Shell => shell_or_wait(reaper, console),
        Ending::Wait => {
            console.line("waiting; Ctrl-Alt-Del or the power button ends it");
            wait(reaper, None).map_or(Ending::Reboot, Ending::from)
        }
        ending => ending,
    }
}

impl From<Request> for Ending {
    fn from(request: Request) -> Self {
        match request {
            Request::Reboot => Self::Reboot,
            Request::PowerOff => Self::PowerOff,
            Request::Halt => Self::Halt,
        }
    }
}

fn shell_or_wait(reaper: &mut Reaper, console: &Console) -> Ending {
    if find_shell().is_none() || console.terminals().is_empty() {
        console.line("no shell or no console here: waiting; Ctrl-Alt-Del or the power button ends it");
        return wait(reaper, None).map_or(Ending::Reboot, Ending::from);
    }
    console.line("a shell follows; `exit` reboots");
    match reaper.supervise(console, || shell(console)) {
        Ok(Ended::Stopped(request)) => request.into(),
        Ok(Ended::Returned(true)) => Ending::Reboot,
        Ok(Ended::Returned(false) | Ended::Panicked(_) | Ended::Died(_)) | Err(_) => {
            console.warn("no shell could be opened: waiting; Ctrl-Alt-Del or the power button ends it");
            wait(reaper, None).map_or(Ending::Reboot, Ending::from)
        }
    }
}

/// Waits for a request, or for `end`.
fn wait(reaper: &mut Reaper, end: Option<Instant>) -> Option<Request> {
    loop {
        match reaper.next(end) {
            Occurrence::Asked(request) => return Some(request),
            Occurrence::TimedOut => return None,
            Occurrence::Exited(..) => {}
        }
    }
}

/// Whether somebody pressed Enter on a console within `time`.
fn somebody_there(console: &Console, time: Duration) -> bool {
    let mut terminals = console.keyboards();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let typed = |terminal: &mut File| io::Read::read(terminal, &mut [0; 64]).is_ok_and(|count| count > 0);
        if terminals.iter_mut().any(typed) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}

fn find_shell() -> Option<&'static (&'static str, &'static [&'static str])> {
    SHELLS.iter().find(|(path, _)| Path::new(path).exists())
}

/// Opens a shell on every console until one of them is left by `exit`; one that is killed or hung up is opened again.
/// False when there was none to open.
pub fn shell(console: &Console) -> bool {
    let mut shells: Vec<(PathBuf, Child)> = Vec::new();
    for terminal in console.terminals() {
        match open_shell(&terminal) {
            Ok(child) => shells.push((terminal, child)),
            Err(cause) => console.warn(&format!("cannot open a shell on {}: {cause}", terminal.display())),
        }
    }
    let mut left = shells.is_empty();
    while !left && !crate::reaper::stop_requested() {
        std::thread::sleep(Duration::from_millis(100));
        for (terminal, child) in &mut shells {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) if status.signal().is_some() => match open_shell(terminal) {
                    Ok(again) => *child = again,
                    Err(_) => left = true,
                },
                Ok(Some(_)) | Err(_) => left = true,
            }
        }
    }
    for (_, child) in &mut shells {
        if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
            // Its session hangs up; a shell that ignores that is killed.
            let _ = kill(Pid::from_raw(-pid), Signal::SIGHUP);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    !shells.is_empty()
}

/// A shell with `terminal` as its controlling terminal.
#[allow(clippy::disallowed_methods, reason = "a shell for people is an ending of PID 1, not an effect of a plan")]
fn open_shell(terminal: &Path) -> io::Result<Child> {
    let (program, arguments) = find_shell().ok_or_else(|| io::Error::other("there is none in this system"))?;
    // Without waiting for a carrier; the shell itself gets ordinary reads.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(terminal)?;
    rustix::io::ioctl_fionbio(&device, false)?;
    let mut command = std::process::Command::new(program);
    command.args(*arguments).env("PS1", "castiron# ").current_dir("/");
    command.stdin(device.try_clone()?).stdout(device.try_clone()?).stderr(device);
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 1);
            Ok(())
        });
    }
    command.spawn()
}

/// Loads a kernel for `RebootCommand::Kexec` (kexec_file_load(2)).
fn load_kernel(kexec: &Kexec) -> io::Result<()> {
    let kernel = File::open(&kexec.kernel)?;
    let initrd = File::open(&kexec.initrd)?;
    let line = CString::new(kexec.command_line.as_str())?;
    let length = line.as_bytes_with_nul().len();
    // SAFETY: two open descriptors and a text of the stated length, NUL included.
    let result = unsafe {
        libc::syscall(libc::SYS_kexec_file_load, kernel.as_raw_fd(), initrd.as_raw_fd(), length, line.as_ptr(), 0usize)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn end_machine(reaper: &mut Reaper, console: &Console, command: RebootCommand) -> ! {
    end_processes(reaper);
    flush_disks(console);
    for target in unmount_all() {
        console.warn(&format!("{target} is still mounted"));
    }
    let word = match command {
        RebootCommand::Restart => "reboot",
        RebootCommand::PowerOff => "power off",
        RebootCommand::Halt => "halt",
        RebootCommand::Kexec => "starting the new kernel",
        _ => "end",
    };
    console.line(word);
    console.drain(Duration::from_secs(1));
    if let Err(cause) = rustix::system::reboot(command) {
        console.warn(&format!("cannot {word}: {cause}"));
        let _ = rustix::system::reboot(RebootCommand::Restart);
    }
    loop {
        wait(reaper, None);
    }
}

/// The last way out for PID 1 itself: no state is trusted any more.
pub fn last_resort() -> ! {
    std::thread::sleep(FAILURE_SHOWN);
    let _ = rustix::system::reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Asks every process to end, then insists.
fn end_processes(reaper: &mut Reaper) {
    for (signal, patience) in [(Signal::SIGTERM, Duration::from_secs(2)), (Signal::SIGKILL, Duration::from_secs(2))] {
        let end = Instant::now() + patience;
        let _ = kill(Pid::from_raw(-1), signal);
        while others_alive() && Instant::now() < end {
            reaper.next(Some((Instant::now() + Duration::from_millis(50)).min(end)));
        }
    }
}

/// Whether there is any process but this one and the kernel's threads.
fn others_alive() -> bool {
    const KERNEL_THREADS_PARENT: &str = "2";
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().into_string().ok()?.parse::<u32>().ok()).filter(|pid| *pid > 2).any(
        |pid| {
            // The name, in parentheses, may hold blanks: state and parent follow the last one.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            parent.is_some_and(|parent| parent != KERNEL_THREADS_PARENT)
        },
    )
}

/// Writes back what is not yet on the disks; a disk that died must not hold the reboot up for ever.
fn flush_disks(console: &Console) {
    let thread = std::thread::Builder::new().spawn(rustix::fs::sync);
    let Ok(thread) = thread else { return rustix::fs::sync() };
    let end = Instant::now() + Duration::from_secs(60);
    while !thread.is_finished() {
        if Instant::now() >= end {
            return console.warn("a disk does not take its data: going on without it");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Unmounts everything but the early tree, last mounted first. Out: what would not go.
fn unmount_all() -> Vec<String> {
    for _ in 0..3 {
        let targets = mounted();
        if targets.is_empty() {
            return targets;
        }
        for target in &targets {
            let _ = rustix::mount::unmount(target.as_str(), UnmountFlags::NOFOLLOW);
        }
    }
    let left = mounted();
    for target in &left {
        let _ = rustix::mount::mount_remount(target.as_str(), MountFlags::RDONLY, "");
        let _ = rustix::mount::unmount(target.as_str(), UnmountFlags::DETACH);
    }
    left
}

fn mounted() -> Vec<String> {
    mount_points(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Targets of `mountinfo` (proc(5)) that are ours to unmount, last mounted first.
fn mount_points(mountinfo: &str) -> Vec<String> {
    const KEPT: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp"];
    let is_kept = |target: &str| {
        target == "/"
            || KEPT.contains(&target)
            || ["/proc/", "/sys/", "/dev/"].iter().any(|tree| target.starts_with(tree))
    };
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut targets: Vec<String> = targets.filter(|target| !is_kept(target)).collect();
    targets.reverse();
    targets
}

/// `\040` and its like in the fields of `mountinfo`.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
