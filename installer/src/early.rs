//! The first moments of PID 1: standard descriptors, the early tree, the process's own limits.
//!
//! Everything here is a table and is best effort: what fails is returned as text, because there may be nobody to tell
//! yet, and a missing mount or console must not keep the machine from being useful.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

/// One mount of the early tree; `only_if` names a path that must exist.
pub struct EarlyMount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
    only_if: Option<&'static str>,
}

const fn entry(kind: &'static str, target: &'static str, flags: MountFlags, data: &'static str) -> EarlyMount {
    EarlyMount { kind, target, flags, data, only_if: None }
}

const NO_SUID: MountFlags = MountFlags::NOSUID;
const NO_DEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_EXEC: MountFlags = NO_DEV.union(MountFlags::NOEXEC);

pub const MOUNTS: &[EarlyMount] = &[
    entry("proc", "/proc", NO_EXEC, ""),
    entry("sysfs", "/sys", NO_EXEC, ""),
    entry("devtmpfs", "/dev", NO_SUID, "mode=0755"),
    entry("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), "gid=5,mode=0620,ptmxmode=0666"),
    entry("tmpfs", "/dev/shm", NO_DEV, "mode=1777"),
    entry("tmpfs", "/run", NO_DEV, "mode=0755"),
    entry("tmpfs", "/tmp", NO_DEV, "mode=1777"),
];

/// Mounts whose file systems are modules. The kernel makes the mount point where UEFI firmware keeps variables.
pub const MODULE_MOUNTS: &[EarlyMount] = &[EarlyMount {
    only_if: Some("/sys/firmware/efi/efivars"),
    ..entry("efivarfs", "/sys/firmware/efi/efivars", NO_EXEC, "")
}];

/// Links that udev would make; shells and scripts expect them.
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Kernel settings of the appliance.
const SETTINGS: &[(&str, &str)] = &[
    // Our own messages are few; the kernel's default would drop them under load.
    ("/proc/sys/kernel/printk_devkmsg", "on\n"),
];

/// The environment that programs of the appliance start with.
const ENVIRONMENT: &[(&str, &str)] =
    &[("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("TERM", "linux"), ("LANG", "C.UTF-8")];

pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Whether PID 1 is that of the whole machine and not of a container: only then is the clock ours, which no namespace
/// holds. The first PID namespace has this inode on every kernel (PROC_PID_INIT_INO in its proc_ns.h).
pub fn is_whole_machine() -> bool {
    const FIRST: u64 = 0xEFFF_FFFC;
    rustix::fs::stat("/proc/self/ns/pid").is_ok_and(|found| found.st_ino == FIRST)
}

/// Time since the kernel started, suspended time included.
pub fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or_default())
}

/// Mounts what is missing. A target that is busy is mounted already.
pub fn mount_all(mounts: &[EarlyMount]) -> Vec<String> {
    let mut failures = Vec::new();
    for early in mounts.iter().filter(|early| early.only_if.is_none_or(|path| Path::new(path).exists())) {
        let EarlyMount { kind, target, flags, data, .. } = early;
        let data = CString::new(*data).unwrap_or_default();
        let _ = fs::create_dir_all(target); // where this matters, the mount below fails and is reported
        match mount(*kind, *target, *kind, *flags, Some(data.as_c_str())) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(cause) => failures.push(format!("cannot mount {kind} on {target}: {cause}")),
        }
    }
    failures
}

/// Links, settings, limits and environment, after the mounts.
pub fn settle_in() -> Vec<String> {
    let mut failures = Vec::new();
    for (link, target) in LINKS {
        match std::os::unix::fs::symlink(target, link) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                failures.push(format!("cannot link {link} to {target}: {cause}"));
            }
            _ => {}
        }
    }
    for (file, value) in SETTINGS {
        if let Err(cause) = fs::write(file, value) {
            failures.push(format!("cannot set {file}: {cause}"));
        }
    }
    for (name, value) in ENVIRONMENT {
        // SAFETY: called before the process starts its first thread.
        unsafe { std::env::set_var(name, value) };
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // A core file would hold secrets.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(cause) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        failures.push(format!("cannot switch core dumps off: {cause}"));
    }
    failures
}

/// Points the standard descriptors at `/dev/console`, so that programs we start find a terminal there. Without a
/// console they stay as [`keep_descriptors`] left them.
pub fn open_stdio() -> Result<(), String> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let console = rustix::fs::open("/dev/console", flags, rustix::fs::Mode::empty())
        .map_err(|cause| format!("cannot open /dev/console: {cause}"))?;
    // Opened without waiting for a carrier; programs expect ordinary reads afterwards.
    let _ = rustix::fs::fcntl_setfl(&console, rustix::fs::OFlags::RDWR);
    for descriptor in 0..3 {
        // SAFETY: both numbers are open descriptors (`keep_descriptors` saw to 0, 1 and 2).
        unsafe { libc::dup2(console.as_raw_fd(), descriptor) };
    }
    Ok(())
}

/// Runs before `main`. Rust's runtime aborts where one of the first three descriptors is closed and `/dev/null` cannot
/// be opened, and a kernel without a console starts PID 1 in just that state.
#[used]
#[unsafe(link_section = ".init_array")]
static KEEP_DESCRIPTORS: extern "C" fn() = keep_descriptors;

extern "C" fn keep_descriptors() {
    for descriptor in 0..3 {
        // SAFETY: plain system calls on numbers and constant strings. Descriptors are handed out lowest first, so an
        // open in this loop takes the very number that was found closed.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) == -1 && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == -1 {
                libc::syscall(libc::SYS_memfd_create, c"none".as_ptr(), 0);
            }
        }
    }
}
