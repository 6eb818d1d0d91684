//! These need a PID 1 with one thread, so each test starts itself again and makes one there, in namespaces of its own.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::log::Log;

const INSIDE: &str = "CASTIRON_TEST_INSIDE";

/// Runs `test` as PID 1 of a namespace by starting this program again for the test called `name`.
fn as_init(name: &str, test: fn(&mut Reaper, &Console)) {
    if std::env::var_os(INSIDE).is_some() {
        return in_new_namespace(|| {
            assert_eq!(std::process::id(), 1);
            test(&mut Reaper::start().unwrap(), &Console::standard_error(Log::default()));
        });
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "unshare", "--user", "--map-root-user", "--kill-child", "--fork"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", &format!("reaper::tests::{name}"), "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    println!("{text}");
}

/// A forked process has one thread; its first child after the call to `unshare` is the new PID 1.
fn in_new_namespace(test: impl FnOnce()) {
    let status = |test: &mut dyn FnMut()| -> i32 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        i32::from(result.is_err())
    };
    // SAFETY: the harness's other thread only waits for this one, so no lock is held across the fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
        ForkResult::Child => {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            // SAFETY: one thread.
            let code = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let mut test = Some(test);
                    status(&mut || test.take().unwrap()())
                }
                ForkResult::Parent { child } => i32::from(waitpid(child, None) != Ok(WaitStatus::Exited(child, 0))),
            };
            // SAFETY: without the destructors of the harness.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Makes `count` processes whose parent is gone at once; each lives until it has nothing more to do.
fn make_orphans(count: usize) {
    // SAFETY: the test harness has one thread here; the children only fork and exit.
    unsafe {
        let parent = libc::fork();
        assert!(parent >= 0);
        if parent == 0 {
            for _ in 0..count {
                while match libc::fork() {
                    0 => libc::_exit(7),
                    pid => pid < 0,
                } {
                    libc::sched_yield();
                }
            }
            libc::_exit(0);
        }
        // Not waited for: all of them fall to PID 1.
    }
}

fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a valid place for the answer.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[test]
fn ten_thousand_orphans_are_reaped_and_no_status_is_stolen() {
    const ORPHANS: usize = 10_000;
    as_init("ten_thousand_orphans_are_reaped_and_no_status_is_stolen", |reaper, console| {
        let (before, started) = (cpu_time(), Instant::now());
        let ended = reaper.supervise(console, || {
            make_orphans(ORPHANS);
            let mut good = 0;
            for status in 0..50 {
                let mut child = Command::new("sh").arg("-c").arg(format!("exit {status}")).spawn().unwrap();
                good += usize::from(child.wait().unwrap().code() == Some(status));
            }
            good
        });
        assert_eq!(ended.unwrap(), Ended::Returned(50), "every status reached the one who waited for it");
        // Whoever is left now dies or is dead: PID 1 takes them all.
        let mut left = 0;
        loop {
            match reaper.next(Some(Instant::now() + Duration::from_millis(200))) {
                Occurrence::Exited(..) => left += 1,
                // SAFETY: signal 0 only asks whether there is anybody.
                _ if unsafe { libc::kill(-1, 0) } != 0 => break,
                _ => assert!(started.elapsed() < Duration::from_secs(60), "there are still processes"),
            }
        }
        assert!(cpu_time() - before < Duration::from_secs(1), "{:?} of CPU", cpu_time() - before);
        println!("{left} reaped after the work, {:?} of CPU in {:?}", cpu_time() - before, started.elapsed());
        assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(nix::errno::Errno::ECHILD));
    });
}

#[test]
fn the_work_may_end_in_any_way() {
    as_init("the_work_may_end_in_any_way", |reaper, console| {
        let mut ended = |work: fn() -> u32| reaper.supervise(console, work).unwrap();
        assert_eq!(ended(|| 42), Ended::Returned(42));
        assert_eq!(ended(|| panic!("iron {}", "broke")), Ended::Panicked("iron broke".to_owned()));
        assert_eq!(ended(|| std::process::abort()), Ended::Died("killed by SIGABRT".to_owned()));
        assert_eq!(ended(|| std::process::exit(3)), Ended::Died("exited with status 3".to_owned()));
        let kill_self = || -> u32 {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
            0
        };
        assert_eq!(ended(kill_self), Ended::Died("killed by SIGKILL".to_owned()));
        let panic_in_thread = || -> u32 { std::thread::spawn(|| -> u32 { panic!("thread") }).join().unwrap_or(7) };
        assert_eq!(ended(panic_in_thread), Ended::Returned(7));
        fn endless(depth: u64) -> u64 {
            let frame = std::hint::black_box([depth; 4096]);
            if frame[0] == u64::MAX { 0 } else { frame[1] + endless(depth + 1) }
        }
        assert!(matches!(ended(|| endless(0) as u32), Ended::Died(how) if how.contains("SIG")));
        // Still a working PID 1 after all that.
        assert_eq!(ended(|| 43), Ended::Returned(43));
    });
}

#[test]
fn a_request_stops_the_work_and_a_second_one_kills_it() {
    as_init("a_request_stops_the_work_and_a_second_one_kills_it", |reaper, console| {
        let ask = |signal| kill(Pid::from_raw(1), signal).unwrap();
        let obedient = || {
            kill(Pid::from_raw(1), Signal::SIGUSR2).unwrap();
            while !stop_requested() {
                std::thread::sleep(Duration::from_millis(5));
            }
            1
        };
        assert_eq!(reaper.supervise(console, obedient).unwrap(), Ended::Stopped(Request::PowerOff));
        let stubborn = || -> u32 {
            ask(Signal::SIGINT);
            std::thread::sleep(Duration::from_millis(300));
            ask(Signal::SIGTERM);
            std::thread::sleep(Duration::from_secs(600));
            1
        };
        let started = Instant::now();
        assert_eq!(reaper.supervise(console, stubborn).unwrap(), Ended::Stopped(Request::Reboot));
        assert!(started.elapsed() < GRACE, "the second request did not hurry it");
    });
}

#[test]
fn programs_of_the_work_start_with_ordinary_signals() {
    as_init("programs_of_the_work_start_with_ordinary_signals", |reaper, console| {
        let blocked = || {
            let output = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(
            reaper.supervise(console, blocked).unwrap(),
            Ended::Returned("SigBlk:\t0000000000000000\n".to_owned())
        );
    });
}
