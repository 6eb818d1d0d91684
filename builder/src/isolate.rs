//! Namespaces for a whole build: when its first process ends, the kernel ends and unmounts everything in them.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::commands::Report;

/// What the signal handler of the waiting parent was called with.
static STOP: AtomicI32 = AtomicI32::new(0);
/// Whom it ends.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Only what signal-safety(7) allows.
extern "C" fn end_child(signal: libc::c_int) {
    STOP.store(signal, Ordering::SeqCst);
    // SAFETY: the child is waited for by nobody but the parent that this interrupts, so its number is still its own.
    unsafe { libc::kill(CHILD.load(Ordering::SeqCst), libc::SIGKILL) };
}

/// Runs `work` as PID 1 of new mount and PID namespaces and returns the status it ends with. An interrupt ends it at
/// once. Must be called before any thread is started.
pub fn run(work: impl FnOnce() -> u8) -> Result<u8, Report> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // The child sees this pipe close when the parent is gone before it could ask to be told.
    let (alive, ours) = nix::unistd::pipe()?;
    // SAFETY: no thread has been started, so the child may go on as this program.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if parent_is_gone(&alive) {
                std::process::exit(1);
            }
            // The mounts are the child's alone, so that they end with it and the parent can remove their directories.
            // Nothing that is mounted from here on is seen outside, nothing outside is changed from here.
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            std::process::exit(work().into())
        }
        ForkResult::Parent { child } => {
            drop(alive);
            let status = wait(child);
            drop(ours);
            status
        }
    }
}

fn parent_is_gone(alive: &std::os::fd::OwnedFd) -> bool {
    let mut poll = [libc::pollfd { fd: alive.as_raw_fd(), events: 0, revents: 0 }];
    // SAFETY: one valid pollfd, no waiting.
    let ready = unsafe { libc::poll(poll.as_mut_ptr(), 1, 0) };
    ready > 0 && poll[0].revents & libc::POLLHUP != 0
}

fn wait(child: Pid) -> Result<u8, Report> {
    CHILD.store(child.as_raw(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(end_child), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler is signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    let ended = loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            ended => break ended?,
        }
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: no handler is set; the number of the child that is gone must not be used again.
        unsafe { sigaction(signal, &SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty())) }?;
    }
    let asked = STOP.load(Ordering::SeqCst);
    match ended {
        WaitStatus::Exited(_, status) => Ok(u8::try_from(status).unwrap_or(1)),
        _ if asked != 0 => Err(Report::failure("interrupted; nothing was left behind").with_status(128 + asked as u8)),
        WaitStatus::Signaled(_, signal, _) => Err(Report::failure(format!("error: the build was ended by {signal}"))),
        other => Err(Report::failure(format!("error: the build ended with {other:?}"))),
    }
}
