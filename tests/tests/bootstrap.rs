//! `castiron bootstrap` on this host, with the toy archive: what comes out, what is refused, what is left behind.

#![allow(clippy::disallowed_methods, reason = "the program under test is started as a user starts it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use castiron_tests::host::{Failure, program, run};
use castiron_tests::http::{Fault, Rule, Server};
use castiron_tests::leaks::Snapshot;
use castiron_tests::toy::{self, ArchiveKey, BASE, BROKEN, MISCHIEF};

struct Case {
    folder: tempfile::TempDir,
    server: Server,
    keyring: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = toy::shared().unwrap();
        let server = Server::start().unwrap();
        server.folder("/toy", &archive.folder);
        let keyring = folder.path().join("toy.gpg");
        std::fs::write(&keyring, archive.key.keyring().unwrap()).unwrap();
        Self { folder, server, keyring }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn command(&self, packages: &[&str]) -> Command {
        let mut command = Command::new(program("castiron").unwrap());
        command.args(["bootstrap", "--suite", toy::SUITE, "--mirror", &format!("{}/toy", self.server.url())]);
        command.arg("--keyring").arg(&self.keyring).args(["--include", &packages.join(",")]).arg(self.root());
        command
    }

    /// It must fail and name each of `names`; the target holds no system that looks complete.
    fn fails(&self, packages: &[&str], names: &[&str]) {
        let Err(Failure(said)) = run(&mut self.command(packages)) else {
            panic!("it ended well, and should have named {names:?}");
        };
        for name in names {
            assert!(said.contains(name), "{name:?} is not named:\n{said}");
        }
        assert!(said.contains("rule: ") || said.contains("error: "), "{said}");
    }
}

fn inside(root: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "chroot"]).arg(root).args(arguments);
    run(&mut command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn packages_that_misbehave_are_installed_and_nothing_is_left_behind() {
    let case = Case::new();
    let before = Snapshot::take(case.folder.path()).unwrap();
    let packages: Vec<&str> = BASE.iter().chain(MISCHIEF).copied().collect();
    run(&mut case.command(&packages)).unwrap();
    let after = Snapshot::take(case.folder.path()).unwrap();
    assert_eq!(before.leaked(&after), Vec::<String>::new());
    for check in ["slow", "trigger", "conffile", "divert", "links", "daemon"] {
        inside(&case.root(), &[&format!("/usr/lib/toy/check.d/{check}")]).unwrap();
    }
    assert_eq!(inside(&case.root(), &["/usr/bin/dpkg", "--audit"]).unwrap(), "");
    let states = inside(&case.root(), &["/usr/bin/dpkg-query", "-W", "-f", "${db:Status-Abbrev}\n"]).unwrap();
    assert!(states.lines().count() > 25 && states.lines().all(|line| line.trim() == "ii"), "{states}");
}

#[test]
fn a_package_whose_script_fails_is_named() {
    Case::new().fails(&[BROKEN], &[BROKEN]);
}

#[test]
fn what_is_not_what_was_signed_is_refused() {
    let damages =
        [("/InRelease", 200, "InRelease"), ("/binary-amd64/", 100, "Packages"), ("toy-links", 300, "toy-links")];
    for (path, offset, name) in damages {
        let case = Case::new();
        case.server.fault(Rule::always(path, Fault::FlipBit(offset)));
        case.fails(&["toy-links"], &[name]);
    }
}

#[test]
fn an_archive_signed_by_another_key_is_refused() {
    let case = Case::new();
    std::fs::write(&case.keyring, ArchiveKey::new().unwrap().keyring().unwrap()).unwrap();
    case.fails(&[], &["InRelease"]);
    assert!(!case.root().join("var/lib/dpkg").exists());
}

#[test]
fn an_expired_archive_is_refused() {
    let case = Case::new();
    let copy = case.folder.path().join("old");
    let archive = toy::shared().unwrap();
    run(Command::new("cp").arg("-a").arg(&archive.folder).arg(&copy)).unwrap();
    let old = archive.copied_to(&copy);
    let month = Duration::from_secs(30 * 24 * 3600);
    old.sign(SystemTime::now() - month / 2, month / 4).unwrap();
    let server = Server::start().unwrap();
    server.folder("/toy", &copy);
    let case = Case { server, ..case };
    let mut command = case.command(&[]);
    let Err(Failure(said)) = run(&mut command) else { panic!("an expired archive was accepted") };
    assert!(said.contains("Valid-Until") || said.contains("expired"), "{said}");
}

/// Still valid, and older than what the same cache saw: refused by name, and taken by who says so.
#[test]
fn a_replayed_archive_is_refused_unless_it_is_wanted() {
    let case = Case::new();
    let copy = case.folder.path().join("copy");
    let archive = toy::shared().unwrap();
    run(Command::new("cp").arg("-a").arg(&archive.folder).arg(&copy)).unwrap();
    let copied = archive.copied_to(&copy);
    let server = Server::start().unwrap();
    server.folder("/toy", &copy);
    let case = Case { server, ..case };
    let cache = case.folder.path().join("cache");
    let bootstrap = |more: &[&str]| {
        let _ = std::fs::remove_dir_all(case.root());
        run(case.command(&["toy-links"]).arg("--cache").arg(&cache).args(more))
    };
    let (now, week) = (SystemTime::now(), Duration::from_secs(7 * 24 * 3600));
    copied.sign(now, week).unwrap();
    bootstrap(&[]).unwrap();
    copied.sign(now - week / 7, week).unwrap();
    let Err(Failure(said)) = bootstrap(&[]) else { panic!("a replayed archive was accepted") };
    for words in ["replayed: dated", "InRelease", "rule: archive.replayed", "--allow-older"] {
        assert!(said.contains(words), "{words:?} is not said:\n{said}");
    }
    assert!(!case.root().exists(), "nothing is written for it");
    bootstrap(&["--allow-older"]).unwrap();
}

#[test]
fn a_missing_package_and_a_missing_suite_are_named_with_their_addresses() {
    let case = Case::new();
    case.server.fault(Rule::always("toy-slow", Fault::Status(404)));
    case.fails(&["toy-slow"], &["toy-slow", "404"]);
    let case = Case::new();
    case.server.fault(Rule::always("/dists/", Fault::Status(404)));
    case.fails(&[], &["/toy/dists/toy/", "404"]);
}

#[test]
fn short_troubles_of_the_network_do_not_matter() {
    let case = Case::new();
    case.server.fault(Rule::once("libc6", Fault::Truncate(100_000)));
    case.server.fault(Rule::once("toy-links", Fault::Status(503)));
    case.server.fault(Rule::once("dpkg_", Fault::Stall { bytes: 1000, pause: Duration::from_secs(2) }));
    run(&mut case.command(&["toy-links"])).unwrap();
    inside(&case.root(), &["/usr/lib/toy/check.d/links"]).unwrap();
}

/// Killed at any moment, it takes its mounts and its processes with it.
#[test]
fn a_kill_leaves_no_mount_and_no_process() {
    for milliseconds in [150, 600, 1500, 2500] {
        let case = Case::new();
        let before = Snapshot::take(case.folder.path()).unwrap();
        let mut command = case.command(MISCHIEF);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel ends the namespace's processes a moment later.
        let end = Instant::now() + Duration::from_secs(5);
        let mut leaked = before.leaked(&Snapshot::take(case.folder.path()).unwrap());
        while !leaked.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            leaked = before.leaked(&Snapshot::take(case.folder.path()).unwrap());
        }
        assert_eq!(leaked, Vec::<String>::new(), "after a kill at {milliseconds} ms");
    }
}
