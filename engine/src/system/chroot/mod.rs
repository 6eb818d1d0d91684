//! Programs of the target, run in the target.
//!
//! In: a root directory, a command, what it may see. Out: its output line by line, and how it ended.
//! Invariants: the program lives in private mount, PID, UTS and IPC namespaces, so nothing it mounts
//! or starts outlives it; if the caller dies, so does everything in there; nothing is left in the tree.
//!
//! Everything that allocates happens before the fork, because the caller may have threads; what
//! happens after it is in [`child`].

#![allow(unsafe_code, reason = "clone, mount and exec without the standard library, which is not safe after a fork")]

mod child;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::pipe::PipeFlags;
use thiserror::Error;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many of the last lines an error carries.
const TAIL_LINES: usize = 20;
/// A line longer than this is cut, so that a program that never ends its line costs no memory.
const LINE_MAX: u64 = 16 << 10;

/// What the program sees as `/dev` and `/sys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// A new `/dev` with null, zero, full, random, urandom, tty, ptmx, pts and shm; `/sys` and
    /// `/proc/sys` read-only; no rights to load modules, set the clock or reboot.
    #[default]
    Minimal,
    /// This machine's own `/dev` and `/sys`, for boot loaders and tools that write to disks.
    Host,
}

/// A file or directory of this system shown in the target, with what is mounted below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: Utf8PathBuf,
    /// An absolute path in the target that exists there; links are followed inside the target.
    pub at: Utf8PathBuf,
}

/// How a program in the target is run. Start from [`InTarget::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct InTarget<'a> {
    pub root: &'a Utf8Path,
    /// Added to (and stronger than) `PATH`, `HOME`, `LC_ALL=C.UTF-8`, `TERM=dumb` and debconf's silence.
    pub env: Vec<(String, String)>,
    /// Bytes on standard input; none means an empty one.
    pub stdin: Option<&'a [u8]>,
    pub binds: Vec<Bind>,
    pub devices: Devices,
    /// Shows this system's name servers in the target while the program runs.
    pub resolv_conf: bool,
    /// `start-stop-daemon` does nothing while the program runs.
    pub block_daemons: bool,
    /// Calls that wait for disks (fsync, sync and their kin) do nothing in there: for work that is
    /// done anew after a crash.
    pub suppress_sync: bool,
    /// The directory the program starts in.
    pub cwd: Utf8PathBuf,
}

impl<'a> InTarget<'a> {
    pub fn new(root: &'a Utf8Path) -> Self {
        Self {
            root,
            env: Vec::new(),
            stdin: None,
            binds: Vec::new(),
            devices: Devices::default(),
            resolv_conf: false,
            block_daemons: false,
            suppress_sync: false,
            cwd: Utf8PathBuf::from("/"),
        }
    }

    /// Runs `argv` and hands each line of its output (both streams) to `on_line`.
    pub fn run(&self, argv: &[impl AsRef<str>], on_line: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
        let argv: Vec<String> = argv.iter().map(|word| word.as_ref().to_owned()).collect();
        let fail = |cause| CommandError { argv: argv.clone(), root: self.root.to_owned(), cause, tail: Vec::new() };
        let setup = |step: &'static str| move |source: io::Error| Cause::SetUp { step, source };
        let prepared = self.prepare(&argv).map_err(|source| fail(setup("prepare")(source)))?;
        let resolv_conf = match self.resolv_conf {
            true => Some(ResolvConf::show(self.root).map_err(|source| fail(setup("/etc/resolv.conf")(source)))?),
            false => None,
        };
        let (outcome, tail) = run_prepared(&prepared, on_line).map_err(|source| fail(setup("fork")(source)))?;
        drop(resolv_conf);
        let cause = match outcome {
            child::Report::Ended(status) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => return Ok(()),
            child::Report::Ended(status) if libc::WIFEXITED(status) => Cause::Status(libc::WEXITSTATUS(status)),
            child::Report::Ended(status) => Cause::Signal(libc::WTERMSIG(status)),
            child::Report::Failed { step, errno } => Cause::SetUp { step, source: io::Error::from_raw_os_error(errno) },
            child::Report::None => Cause::Signal(libc::SIGKILL),
        };
        Err(CommandError { argv, root: self.root.to_owned(), cause, tail })
    }

    fn prepare(&self, argv: &[String]) -> io::Result<child::Prepared> {
        let program = argv.first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty command"))?;
        let mut env: Vec<(String, String)> = [
            ("PATH", SEARCH_PATH),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("LANGUAGE", "C"),
            ("TERM", "dumb"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        for (name, value) in &self.env {
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), value.clone()));
        }
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone()).unwrap_or_default();
        let candidates: Vec<String> = match program.contains('/') {
            true => vec![program.clone()],
            false => path.split(':').map(|dir| format!("{dir}/{program}")).collect(),
        };
        let mut binds: Vec<(CString, CString)> = Vec::new();
        if self.devices == Devices::Host {
            binds.push((c"/dev".to_owned(), c"/dev".to_owned()));
            binds.push((c"/sys".to_owned(), c"/sys".to_owned()));
        }
        for bind in &self.binds {
            binds.push((c_string(bind.source.as_str())?, c_string(bind.at.as_str())?));
        }
        if self.resolv_conf {
            binds.push((c"/etc/resolv.conf".to_owned(), c"/etc/resolv.conf".to_owned()));
        }
        let stdin = rustix::fs::memfd_create(c"stdin", MemfdFlags::CLOEXEC)?;
        let mut stdin = File::from(stdin);
        stdin.write_all(self.stdin.unwrap_or_default())?;
        rustix::fs::seek(&stdin, rustix::fs::SeekFrom::Start(0))?;
        Ok(child::Prepared {
            root: c_string(self.root.as_str())?,
            cwd: c_string(self.cwd.as_str())?,
            candidates: c_strings(candidates)?,
            argv: c_strings(argv.iter().cloned())?,
            envp: c_strings(env.iter().map(|(name, value)| format!("{name}={value}")))?,
            binds,
            minimal_devices: self.devices == Devices::Minimal,
            block_daemons: self.block_daemons,
            suppress_sync: self.suppress_sync,
            stdin: stdin.into(),
        })
    }
}

/// Runs a program of the target with the usual surroundings; see [`InTarget`] for more choice.
pub fn run_in_target(
    root: &Utf8Path,
    argv: &[impl AsRef<str>],
    env: &[(String, String)],
    stdin: Option<&[u8]>,
    binds: &[Bind],
    on_line: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    InTarget { env: env.to_vec(), stdin, binds: binds.to_vec(), ..InTarget::new(root) }.run(argv, on_line)
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("zero byte in {text:?}")))
}

fn c_strings(texts: impl IntoIterator<Item = String>) -> io::Result<Vec<CString>> {
    texts.into_iter().map(|text| c_string(&text)).collect()
}

/// A program of the target that could not be run or did not succeed.
#[derive(Debug, Error)]
#[error("{} in {root} {cause}{}", argv.join(" "), last_words(tail))]
pub struct CommandError {
    pub argv: Vec<String>,
    pub root: Utf8PathBuf,
    #[source]
    pub cause: Cause,
    /// The last lines it printed.
    pub tail: Vec<String>,
}

#[derive(Debug, Error)]
pub enum Cause {
    #[error("ended with status {0}")]
    Status(i32),
    #[error("was ended by signal {0}")]
    Signal(i32),
    #[error("could not be started ({step}: {source})")]
    SetUp { step: &'static str, source: io::Error },
}

fn last_words(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n  | {line}")).collect()
}

fn run_prepared(prepared: &child::Prepared, on_line: &mut dyn FnMut(&str)) -> io::Result<(child::Report, Vec<String>)> {
    let (output, output_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (report, report_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (go, go_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let pid = child::start(
        prepared,
        &child::Ends {
            output: output_writer.as_fd().as_raw_fd(),
            report: report_writer.as_fd().as_raw_fd(),
            go: go.as_fd().as_raw_fd(),
            go_writer: go_writer.as_fd().as_raw_fd(),
        },
    )?;
    drop((output_writer, report_writer, go));
    // The child waits for this byte: if we die before, it sees the pipe end instead and leaves.
    let started = rustix::io::write(&go_writer, b"g");
    let tail = read_lines(output, on_line);
    let report = child::read_report(File::from(report));
    child::reap(pid);
    started?;
    Ok((report, tail?))
}

fn read_lines(output: OwnedFd, on_line: &mut dyn FnMut(&str)) -> io::Result<Vec<String>> {
    let mut reader = BufReader::new(File::from(output));
    let mut tail = std::collections::VecDeque::with_capacity(TAIL_LINES);
    let mut raw = Vec::new();
    loop {
        raw.clear();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut raw)? == 0 {
            return Ok(tail.into());
        }
        // Progress meters rewrite their line: only what would be seen at its end counts.
        let shown = raw.trim_ascii_end().rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(shown);
        on_line(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line.into_owned());
    }
}

/// Makes sure that there is a file to mount the name servers over, and takes it away again.
struct ResolvConf {
    made: Option<Utf8PathBuf>,
}

impl ResolvConf {
    fn show(root: &Utf8Path) -> io::Result<Self> {
        let top = rustix::fs::open(root.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open =
            |flags| rustix::fs::openat2(&top, "etc/resolv.conf", flags | OFlags::CLOEXEC, Mode::from(0o644), inside);
        match rustix::fs::openat2(&top, "etc/resolv.conf", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
            Ok(_) => return Ok(Self { made: None }),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let link = root.join("etc/resolv.conf");
        if let Ok(target) = fs::read_link(&link) {
            // A link to what a service will make at run time; its directories are usually absent.
            let inner = Utf8Path::new("/etc").join(target.to_string_lossy().as_ref());
            let parent = inner.parent().unwrap_or(Utf8Path::new("/"));
            let mut dir = Utf8PathBuf::from(".");
            for part in parent
                .components()
                .filter(|part| matches!(part, camino::Utf8Component::Normal(_) | camino::Utf8Component::ParentDir))
            {
                dir.push(part);
                match rustix::fs::openat2(&top, dir.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
                    Ok(_) => {}
                    Err(_) => rustix::fs::mkdirat(&top, dir.as_str(), Mode::from(0o755))?,
                }
            }
        }
        let file = open(OFlags::CREATE | OFlags::WRONLY | OFlags::NOCTTY)?;
        let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        Ok(Self { made: real.and_then(|path| Utf8PathBuf::from_path_buf(path).ok()) })
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        if let Some(path) = &self.made
            && fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Keeps `invoke-rc.d` from starting services in a target for as long as it lives
/// (`/usr/sbin/policy-rc.d` that says 101, "forbidden by policy"), unless the target has its own policy.
#[derive(Debug)]
pub struct ServicesBlocked {
    policy: Option<Utf8PathBuf>,
}

const POLICY: &[u8] = b"#!/bin/sh\n# No service starts while the system is being made.\nexit 101\n";

impl ServicesBlocked {
    pub fn in_target(root: &Utf8Path) -> io::Result<Self> {
        let path = root.join("usr/sbin/policy-rc.d");
        // An earlier run that was killed may have left ours.
        if fs::read(&path).is_ok_and(|found| found == POLICY) {
            return Ok(Self { policy: Some(path) });
        }
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path) {
            Ok(mut file) => {
                file.write_all(POLICY)?;
                Ok(Self { policy: Some(path) })
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { policy: None }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ServicesBlocked {
    fn drop(&mut self) {
        if let Some(path) = &self.policy {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
