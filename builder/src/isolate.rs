//! Namespaces for a whole build: when its first process ends, the kernel ends and unmounts everything in them.

use std::os::fd::AsRawFd;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::commands::Report;

/// Set by the signal handler of the waiting parent.
static STOP: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn note_signal(signal: libc::c_int) {
    STOP.store(signal, std::sync::atomic::Ordering::SeqCst);
}

/// Runs `work` as PID 1 of new mount and PID namespaces and returns the status it ends with. An interrupt ends it at
/// once. Must be called before any thread is started.
pub fn run(work: impl FnOnce() -> u8) -> Result<u8, Report> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    // Nothing that is mounted from here on is seen outside, nothing outside is changed from here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
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
    let action = SigAction::new(SigHandler::Handler(note_signal), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores one number and does nothing else.
        unsafe { sigaction(signal, &action) }?;
    }
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(u8::try_from(status).unwrap_or(1)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let asked = STOP.load(std::sync::atomic::Ordering::SeqCst);
                let text = if asked != 0 {
                    "interrupted; nothing was left behind".to_owned()
                } else {
                    format!("error: the build was ended by {signal}")
                };
                return Err(Report::failure(text).with_status(if asked != 0 { 128 + asked as u8 } else { 1 }));
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => {
                if STOP.load(std::sync::atomic::Ordering::SeqCst) != 0 {
                    kill(child, Signal::SIGKILL)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
