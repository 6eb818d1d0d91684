//! What happens between fork and exec. Only system calls: no allocation, no locks, no panics.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

/// Everything the child needs, made before the fork.
pub(super) struct Prepared {
    pub root: CString,
    pub cwd: CString,
    /// The places to look for the program, in order.
    pub candidates: Vec<CString>,
    pub argv: Vec<CString>,
    pub envp: Vec<CString>,
    pub binds: Vec<(CString, CString)>,
    pub minimal_devices: bool,
    pub block_daemons: bool,
    pub suppress_sync: bool,
    pub stdin: OwnedFd,
}

pub(super) struct Ends {
    pub output: RawFd,
    pub report: RawFd,
    pub go: RawFd,
    pub go_writer: RawFd,
}

/// What the child said at its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Report {
    /// The program's wait status.
    Ended(c_int),
    Failed {
        step: &'static str,
        errno: i32,
    },
    /// It was killed before it could say anything.
    None,
}

/// The steps that can fail, in the order of their numbers in the report.
const STEPS: &[&str] = &[
    "private mounts",
    "bind source",
    "root",
    "/dev",
    "/proc",
    "/sys",
    "bind",
    "daemons",
    "fork",
    "streams",
    "directory",
    "exec",
    "filter",
];
const ENDED: i32 = -1;

const NODES: &[(&CStr, u32, u32)] = &[
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

const LINKS: &[(&CStr, &CStr)] = &[
    (c"pts/ptmx", c"/dev/ptmx"),
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

const SILENT_DAEMON: &[u8] = b"#!/bin/sh\nexit 0\n";

/// Rights that reach past any namespace: loading modules, ports, the clock, rebooting.
const CAPABILITIES_DROPPED: &[c_ulong] = &[16, 17, 22, 25];

/// Starts the first process of the new namespaces.
pub(super) fn start(prepared: &Prepared, ends: &Ends) -> io::Result<libc::pid_t> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([null()]).collect()
    };
    let (argv, envp) = (pointers(&prepared.argv), pointers(&prepared.envp));
    let mut sources = vec![-1; prepared.binds.len()];
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork; the child only calls functions of this file, which
    // keep to system calls, and never returns.
    match unsafe { libc::syscall(libc::SYS_clone, flags as c_ulong, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe { first(prepared, ends, &argv, &envp, &mut sources) },
        pid => Ok(pid as libc::pid_t),
    }
}

/// Waits for the first process. That it is gone already (another reaper was faster) is fine.
pub(super) fn reap(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: plain system call on a child of ours.
    while unsafe { libc::waitpid(pid, &mut status, 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

pub(super) fn read_report(mut report: File) -> Report {
    let mut raw = [0; 8];
    if report.read_exact(&mut raw).is_err() {
        return Report::None;
    }
    let [a, b, c, d, e, f, g, h] = raw;
    let (kind, value) = (i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
    match usize::try_from(kind).ok().and_then(|step| STEPS.get(step)) {
        Some(step) => Report::Failed { step, errno: value },
        None => Report::Ended(value),
    }
}

unsafe fn say(report: RawFd, kind: i32, value: i32) {
    let message = [kind.to_ne_bytes(), value.to_ne_bytes()];
    unsafe { libc::write(report, message.as_ptr().cast(), 8) };
}

unsafe fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

unsafe fn fail(report: RawFd, step: usize) -> ! {
    unsafe {
        say(report, step as i32, errno());
        libc::_exit(127)
    }
}

unsafe fn mount(source: &CStr, at: &CStr, kind: &CStr, flags: c_ulong, data: Option<&CStr>) -> bool {
    unsafe {
        libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            data.map_or(null(), |data| data.as_ptr().cast()),
        ) == 0
    }
}

/// Process 1 of the new namespaces: builds the view, starts the program, reaps until it ends.
unsafe fn first(
    prepared: &Prepared,
    ends: &Ends,
    argv: &[*const c_char],
    envp: &[*const c_char],
    sources: &mut [RawFd],
) -> ! {
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        libc::close(ends.go_writer);
        let mut byte = 0u8;
        if libc::read(ends.go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(127);
        }
        reset_signals();
        if let Err(step) = build_view(prepared, sources) {
            fail(ends.report, step);
        }
        libc::sethostname(c"localhost".as_ptr(), 9);
        let root = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        if root < 0 {
            fail(ends.report, 2);
        }
        stand_aside(prepared);
        // The bare system call: glibc's fork would take locks that a thread of the caller may hold.
        let program = libc::syscall(libc::SYS_clone, libc::SIGCHLD as c_ulong, 0, 0, 0, 0) as libc::pid_t;
        match program {
            -1 => fail(ends.report, 8),
            0 if libc::fchdir(root) != 0 || libc::chroot(c".".as_ptr()) != 0 => fail(ends.report, 2),
            0 => become_program(prepared, ends, argv, envp),
            _ => {
                libc::close(root);
                reap_until(program, ends)
            }
        }
    }
}

/// Process 1 takes an empty directory for its root. So `ischroot` and `systemctl`, which compare `/` with `/proc/1/root`,
/// see that the target is not what was booted, and scripts leave out what only a running system needs: to restart an
/// init that is not there (libc6, with a pause of a second), to ask services for their state.
unsafe fn stand_aside(prepared: &Prepared) {
    unsafe {
        // Without it everything works as well, only slower.
        if prepared.minimal_devices {
            libc::chroot(c"/dev/shm".as_ptr());
        }
    }
}

unsafe fn reset_signals() {
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, null_mut());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

unsafe fn reap_until(program: libc::pid_t, ends: &Ends) -> ! {
    unsafe {
        libc::close(ends.output);
        let mut status = 0;
        loop {
            let pid = libc::waitpid(-1, &mut status, 0);
            if pid == program {
                say(ends.report, ENDED, status);
                libc::_exit(0);
            }
            if pid == -1 && errno() != libc::EINTR {
                libc::_exit(126);
            }
        }
    }
}

/// The mounts of the target; the number of the step that failed, if one does.
unsafe fn build_view(prepared: &Prepared, sources: &mut [RawFd]) -> Result<(), usize> {
    let check = |fine: bool, step: usize| if fine { Ok(()) } else { Err(step) };
    unsafe {
        check(mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, None), 0)?;
        // Sources are taken while they can still be seen, and put in place when links resolve in the target.
        for ((source, _), place) in prepared.binds.iter().zip(sources.iter_mut()) {
            const OPEN_TREE_CLONE: c_int = 1;
            const AT_RECURSIVE: c_int = 0x8000;
            let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC;
            *place = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) as RawFd;
            check(*place >= 0, 1)?;
        }
        check(mount(&prepared.root, &prepared.root, c"", libc::MS_BIND | libc::MS_REC, None), 2)?;
        // As switch_root does it: works from an initramfs too, where pivot_root does not.
        check(libc::chdir(prepared.root.as_ptr()) == 0, 2)?;
        check(mount(c".", c"/", c"", libc::MS_MOVE, None), 2)?;
        check(libc::chroot(c".".as_ptr()) == 0 && libc::chdir(c"/".as_ptr()) == 0, 2)?;
        if prepared.minimal_devices {
            check(make_devices(), 3)?;
        }
        libc::mkdir(c"/proc".as_ptr(), 0o555);
        let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        check(mount(c"proc", c"/proc", c"proc", plain, None), 4)?;
        if prepared.minimal_devices {
            check(mount(c"/proc/sys", c"/proc/sys", c"", libc::MS_BIND, None), 4)?;
            check(
                mount(c"none", c"/proc/sys", c"", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | plain, None),
                4,
            )?;
            libc::mkdir(c"/sys".as_ptr(), 0o555);
            check(mount(c"sysfs", c"/sys", c"sysfs", plain | libc::MS_RDONLY, None), 5)?;
        }
        for ((_, at), source) in prepared.binds.iter().zip(sources.iter()) {
            const MOVE_MOUNT_F_EMPTY_PATH: c_int = 4;
            const MOVE_MOUNT_T_SYMLINKS: c_int = 0x10;
            let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
            let moved = libc::syscall(libc::SYS_move_mount, *source, c"".as_ptr(), libc::AT_FDCWD, at.as_ptr(), flags);
            check(moved == 0, 6)?;
            libc::close(*source);
        }
        if prepared.block_daemons {
            check(silence_daemons(), 7)?;
        }
        Ok(())
    }
}

unsafe fn make_devices() -> bool {
    unsafe {
        libc::umask(0);
        libc::mkdir(c"/dev".as_ptr(), 0o755);
        let mut fine =
            mount(c"dev", c"/dev", c"tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, Some(c"mode=0755,size=64k"));
        for (path, major, minor) in NODES {
            fine = fine && libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(*major, *minor)) == 0;
        }
        for (target, path) in LINKS {
            fine = fine && libc::symlink(target.as_ptr(), path.as_ptr()) == 0;
        }
        fine = fine && libc::mkdir(c"/dev/pts".as_ptr(), 0o755) == 0 && libc::mkdir(c"/dev/shm".as_ptr(), 0o1777) == 0;
        let plain = libc::MS_NOSUID | libc::MS_NOEXEC;
        // Neither is worth failing for: a kernel may be built without them, and few scripts look.
        mount(c"devpts", c"/dev/pts", c"devpts", plain, Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"));
        mount(c"shm", c"/dev/shm", c"tmpfs", plain | libc::MS_NODEV, Some(c"mode=1777"));
        fine
    }
}

/// Mounts a program that does nothing over `start-stop-daemon`, if there is one.
unsafe fn silence_daemons() -> bool {
    unsafe {
        let (stub, place) = (c"/dev/.start-stop-daemon", c"/sbin/start-stop-daemon");
        if libc::access(place.as_ptr(), libc::F_OK) != 0 {
            return true;
        }
        let file = libc::open(stub.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC, 0o755);
        let written = file >= 0
            && libc::write(file, SILENT_DAEMON.as_ptr().cast(), SILENT_DAEMON.len()) == SILENT_DAEMON.len() as isize;
        libc::close(file);
        written && mount(stub, place, c"", libc::MS_BIND, None) && libc::unlink(stub.as_ptr()) == 0
    }
}

unsafe fn become_program(prepared: &Prepared, ends: &Ends, argv: &[*const c_char], envp: &[*const c_char]) -> ! {
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        // Some programs close every possible descriptor one by one; a million of them take a while.
        let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 4096 };
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        let streams = libc::dup2(prepared.stdin.as_raw_fd(), 0) == 0
            && libc::dup2(ends.output, 1) == 1
            && libc::dup2(ends.output, 2) == 2;
        if !streams {
            fail(ends.report, 9);
        }
        if libc::chdir(prepared.cwd.as_ptr()) != 0 {
            fail(ends.report, 10);
        }
        if prepared.minimal_devices {
            for capability in CAPABILITIES_DROPPED {
                libc::prctl(libc::PR_CAPBSET_DROP, *capability);
            }
        }
        if prepared.suppress_sync && !skip_syncs() {
            fail(ends.report, 12);
        }
        let mut worst = libc::ENOENT;
        for candidate in &prepared.candidates {
            libc::execve(candidate.as_ptr(), argv.as_ptr(), envp.as_ptr());
            if errno() != libc::ENOENT && errno() != libc::ENOTDIR {
                worst = errno();
            }
        }
        *libc::__errno_location() = worst;
        fail(ends.report, 11)
    }
}

/// The architecture that system call numbers are checked against (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Makes the calls that wait for disks succeed without doing anything, from here on and in all children
/// (seccomp(2)); calls of another architecture's numbering pass.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe fn skip_syncs() -> bool {
    const CALLS: [libc::c_long; 5] =
        [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range];
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // seccomp_data: the call's number at 0, the architecture at 4.
    let mut filter = [step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW); 5 + CALLS.len()];
    filter[0] = step(LOAD, 0, 0, 4);
    filter[1] = step(EQUAL, 0, CALLS.len() as u8 + 1, AUDIT_ARCH);
    filter[2] = step(LOAD, 0, 0, 0);
    let mut at = 0;
    while at < CALLS.len() {
        filter[3 + at] = step(EQUAL, (CALLS.len() - at) as u8, 0, CALLS[at] as u32);
        at += 1;
    }
    filter[4 + CALLS.len()] = step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as c_ulong, &raw const program) == 0 }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn skip_syncs() -> bool {
    true
}
