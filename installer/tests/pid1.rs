//! The program as PID 1 of namespaces of its own: an empty root, no devices, no rights outside.
//!
//! `reboot(2)` in a PID namespace ends its PID 1 by a signal: SIGHUP for a reboot, SIGINT for power off and halt.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_castiron-init");
const REBOOTED: i32 = libc::SIGHUP;
const POWERED_OFF: i32 = libc::SIGINT;

/// An empty root file system with nothing but the program.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(PROGRAM, root.path().join("init")).unwrap();
    root
}

/// `descriptors` is a redirection in the shell's words.
fn command(root: &Path, command_line: &str, descriptors: &str) -> Command {
    let mut command = Command::new("sh");
    let unshare = "exec unshare --user --map-root-user --pid --mount --net --ipc --uts --fork --kill-child";
    command.arg("-c").arg(format!("{unshare} --root=\"$1\" /init {descriptors}")).arg("sh").arg(root);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("CASTIRON_CMDLINE", command_line).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

struct Machine {
    child: Child,
    _root: tempfile::TempDir,
}

impl Machine {
    fn start(command_line: &str) -> Self {
        let root = root();
        let child = command(root.path(), command_line, "").spawn().unwrap();
        Self { child, _root: root }
    }

    /// The host's number of the PID 1 in there.
    fn init(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(pid) = text.split_whitespace().next() {
                return pid.parse().unwrap();
            }
            assert!(Instant::now() < end, "unshare started nothing");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads what it prints until `text` has come.
    fn expect(&mut self, text: &str) -> String {
        let output = self.child.stderr.as_mut().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = output.read(&mut byte).unwrap();
            assert_eq!(count, 1, "it ended before it said {text:?}:\n{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    fn end(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap(), text)
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: a process this test started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn it_is_static() {
    let output = Command::new("ldd").arg(PROGRAM).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("statically linked") || text.contains("not a dynamic executable"), "{text}");
}

#[test]
fn a_misread_command_line_installs_nothing_and_ends_by_policy() {
    for (ending, expected) in [("poweroff", POWERED_OFF), ("halt", POWERED_OFF), ("kexec", REBOOTED)] {
        let line = format!("castiron.mode=isntall castiron.trsut=any castiron.on_error={ending}");
        let (status, text) = Machine::start(&line).end();
        assert_eq!(status.signal(), Some(expected), "{text}");
        for part in [
            "== initial system set-up\n",
            "== command line\n",
            "error: `castiron.mode` cannot be `isntall`",
            "did you mean `castiron.trust`?",
            "== modules\n",
            "NOT INSTALLED: the kernel command line has mistakes\n",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("== network"), "{text}");
    }
}

#[test]
fn a_mode_of_another_version_installs_nothing() {
    for mode in ["wipe", "ramdisk"] {
        let (status, text) = Machine::start(&format!("castiron.mode={mode} castiron.on_error=poweroff")).end();
        assert_eq!(status.signal(), Some(POWERED_OFF), "{text}");
        assert!(text.contains("NOT INSTALLED: this castiron.mode= is not in this version"), "{text}");
        assert!(!text.contains("== network"), "{text}");
    }
}

#[test]
fn without_a_shell_it_waits_until_it_is_asked_to_end() {
    for (request, expected) in [
        (libc::SIGINT, REBOOTED),
        (libc::SIGTERM, REBOOTED),
        (libc::SIGHUP, REBOOTED),
        (libc::SIGUSR1, POWERED_OFF),
        (libc::SIGUSR2, POWERED_OFF),
        (libc::SIGPWR, POWERED_OFF),
    ] {
        let mut machine = Machine::start("castiron.mode=isntall");
        machine.expect("no shell or no console here: waiting");
        signal(machine.init(), request);
        let (status, text) = machine.end();
        assert_eq!(status.signal(), Some(expected), "signal {request}: {text}");
    }
}

#[test]
fn a_countdown_ends_in_a_reboot() {
    let mut machine = Machine::start("castiron.mode=isntall castiron.on_error=reboot castiron.reboot_after=1s");
    machine.expect("reboot in 1 s");
    let started = Instant::now();
    let (status, text) = machine.end();
    assert_eq!(status.signal(), Some(REBOOTED), "{text}");
    assert!(started.elapsed() >= Duration::from_millis(900), "it did not wait");
}

#[test]
fn it_starts_without_any_descriptor_or_device() {
    let root = root();
    let line = "castiron.mode=isntall castiron.on_error=poweroff";
    let status = command(root.path(), line, "<&- >&- 2>&-").status().unwrap();
    assert_eq!(status.signal(), Some(POWERED_OFF));
}

#[test]
fn a_reader_that_never_reads_does_not_hold_it_up() {
    let root = root();
    let blacklist = "x".repeat(100_000); // printed with the command line: more than a pipe takes
    let line = format!("castiron.mode=isntall castiron.on_error=poweroff modprobe.blacklist={blacklist}");
    let mut child = command(root.path(), &line, "").spawn().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(POWERED_OFF));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with('['), "{text}");
}

#[test]
fn as_an_ordinary_program_it_touches_nothing_and_returns_a_status() {
    let mut command = Command::new(PROGRAM);
    let output = command.env("CASTIRON_CMDLINE", "castiron.mode=isntall").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("as PID 1: Shell"), "{text}");
}
