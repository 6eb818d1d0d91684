//! Needs root. The target is this machine's own root file system, which no test here writes to.

use super::*;

fn output(in_target: &InTarget<'_>, script: &str) -> Result<Vec<String>, CommandError> {
    let mut lines = Vec::new();
    in_target.run(&["sh", "-c", script], &mut |line| lines.push(line.to_owned()))?;
    Ok(lines)
}

/// A target that is this machine's programs and an empty rest.
fn target() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["dev", "proc", "sys", "etc", "usr", "tmp"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), dir.path().join(name)).unwrap();
    }
    dir
}

fn in_target(path: &std::path::Path) -> InTarget<'_> {
    let usr = Bind { source: "/usr".into(), at: "/usr".into() };
    InTarget { binds: vec![usr], ..InTarget::new(Utf8Path::from_path(path).unwrap()) }
}

#[test]
fn a_program_sees_its_own_world() {
    let dir = target();
    let chroot = InTarget { stdin: Some(b"cast\niron"), ..in_target(dir.path()) };
    let script = "cat; echo; echo $$; hostname; ls /dev; ls / ; echo x >/dev/null && echo null; \
                  (echo 1 >/proc/sys/kernel/printk) 2>/dev/null || echo read-only; trap | wc -l; printf 'a\\rb\\n'; \
                  [ / -ef /proc/1/root ] || ls -A /proc/1/root | wc -l";
    let lines = output(&chroot, script).unwrap().join(" ");
    assert_eq!(
        lines,
        "cast iron 2 localhost fd full null ptmx pts random shm stderr stdin stdout tty urandom zero \
         bin dev etc lib lib64 proc sbin sys tmp usr null read-only 0 b 0"
    );
    assert_eq!(fs::read_dir(dir.path().join("dev")).unwrap().count(), 0, "the tree stays as it was");
}

#[test]
fn an_ending_is_told() {
    let dir = target();
    let error = output(&in_target(dir.path()), "echo so it goes; exit 7").unwrap_err();
    assert!(matches!(error.cause, Cause::Status(7)) && error.tail == ["so it goes"], "{error}");
    assert!(matches!(output(&in_target(dir.path()), "kill -9 $$").unwrap_err().cause, Cause::Signal(9)));
    let missing = in_target(dir.path()).run(&["no-such-program"], &mut |_| ()).unwrap_err();
    assert!(matches!(missing.cause, Cause::SetUp { step: "exec", .. }), "{missing}");
    let nowhere = InTarget::new(Utf8Path::new("/no/such/root")).run(&["true"], &mut |_| ()).unwrap_err();
    assert!(matches!(nowhere.cause, Cause::SetUp { step: "root", .. }), "{nowhere}");
}

#[test]
fn what_it_leaves_running_ends_with_it() {
    let dir = target();
    let started = std::time::Instant::now();
    output(&in_target(dir.path()), "sleep 1000 & setsid sleep 1000 & echo left").unwrap();
    assert!(started.elapsed().as_secs() < 100);
}

#[test]
fn name_servers_are_shown_and_taken_away() {
    if !std::path::Path::new("/etc/resolv.conf").exists() {
        return;
    }
    let host = fs::read_to_string("/etc/resolv.conf").unwrap();
    let dir = target();
    let chroot = InTarget { resolv_conf: true, ..in_target(dir.path()) };
    assert_eq!(output(&chroot, "cat /etc/resolv.conf").unwrap().join("\n").trim(), host.trim());
    assert!(!dir.path().join("etc/resolv.conf").exists());
    std::os::unix::fs::symlink("../run/resolve/stub.conf", dir.path().join("etc/resolv.conf")).unwrap();
    assert_eq!(output(&chroot, "cat /etc/resolv.conf").unwrap().join("\n").trim(), host.trim());
    assert!(!dir.path().join("run/resolve/stub.conf").exists());
}

#[test]
fn services_are_blocked_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(dir.path()).unwrap();
    let policy = root.join("usr/sbin/policy-rc.d");
    drop(ServicesBlocked::in_target(root).unwrap());
    assert!(!policy.exists());
    std::mem::forget(ServicesBlocked::in_target(root).unwrap());
    assert!(policy.exists());
    drop(ServicesBlocked::in_target(root).unwrap());
    assert!(!policy.exists(), "what a killed run left is taken away by the next");
    fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
    drop(ServicesBlocked::in_target(root).unwrap());
    assert!(policy.exists(), "the target's own policy stays");
}
