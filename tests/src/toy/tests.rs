use std::process::Command;
use std::time::Duration;

use super::*;
use crate::host::run;
use crate::qemu::{Boot, Disk, KERNEL_ARGUMENTS, Machine, Network};

/// dpkg-deb, apt and gpgv on this host read what we write.
#[test]
fn the_archive_is_one_that_debian_tools_accept() {
    let folder = tempfile::tempdir().unwrap();
    let archive = shared().unwrap();
    let top = &archive.folder;

    let mut total = 0;
    let mut count = 0;
    for entry in std::fs::read_dir(top.join("pool/main")).unwrap() {
        let path = entry.unwrap().path();
        let contents = run(Command::new("dpkg-deb").arg("-c").arg(&path)).unwrap();
        assert!(!contents.stdout.is_empty(), "{}", path.display());
        run(Command::new("dpkg-deb").arg("-f").arg(&path)).unwrap();
        total += path.metadata().unwrap().len();
        count += 1;
    }
    assert!(total < 60 << 20, "the toy archive grew to {total} bytes in {count} packages");

    let keyring = folder.path().join("toy.gpg");
    std::fs::write(&keyring, archive.key.keyring().unwrap()).unwrap();
    let dists = archive.dists();
    let gpgv = |files: &[&str]| {
        let files = files.iter().map(|file| dists.join(file));
        run(Command::new("gpgv").arg("--keyring").arg(&keyring).args(files))
    };
    gpgv(&["InRelease"]).unwrap();
    gpgv(&["Release.gpg", "Release"]).unwrap();

    // apt resolves the whole suite and finds every dependency in it.
    let state = folder.path().join("apt");
    for below in ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d"] {
        std::fs::create_dir_all(state.join(below)).unwrap();
    }
    std::fs::write(state.join("status"), "").unwrap();
    let source = format!("deb [signed-by={}] file://{} {SUITE} main\n", keyring.display(), top.display());
    std::fs::write(state.join("etc/sources.list"), source).unwrap();
    let apt = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        for (name, below) in [("State", ""), ("Cache", "cache"), ("State::lists", "lists"), ("State::status", "status")]
        {
            command.args(["-o", &format!("Dir::{name}={}", state.join(below).display())]);
        }
        command.args(["-o", &format!("Dir::Etc={}", state.join("etc").display()), "-o", "APT::Sandbox::User=root"]);
        run(command.args(arguments))
    };
    apt("apt-get", &["update"]).unwrap();
    let mut wanted = vec!["-s", "-o", "APT::Architecture=amd64", "install"];
    wanted.extend(BASE.iter().chain(MISCHIEF));
    let planned = apt("apt-get", &wanted).unwrap();
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    for package in ["Inst linux-image-toy", "Inst grub-common", "Inst libdevmapper1.02.1", "Inst toy-links"] {
        assert!(planned.contains(package), "{package} is not in\n{planned}");
    }
}

/// With the host's dpkg in place of an installer, every package installs, scripts and all, and the checks pass.
#[test]
fn dpkg_of_this_host_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let top = &shared().unwrap().folder;
    let root = folder.path().join("root");
    for below in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        std::fs::create_dir_all(root.join(below)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let debs: Vec<_> = std::fs::read_dir(top.join("pool/main")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let install = |debs: Vec<std::path::PathBuf>| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--force-not-root"]);
        dpkg.args(["--force-depends", "--log=/dev/null", "-i"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        run(dpkg.args(debs))
    };
    let is_mischief = |path: &std::path::Path| MISCHIEF.iter().any(|name| path.to_string_lossy().contains(name));
    let broken = |path: &std::path::Path| path.to_string_lossy().contains(BROKEN);
    install(debs.iter().filter(|path| !is_mischief(path) && !broken(path)).cloned().collect()).unwrap();

    // The root's own dpkg and shell run: the trimmed packages hold all the libraries that they need.
    // One of the packages leaves a process behind; it ends with its namespace.
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "chroot"]).arg(&root);
        run(command.args(arguments))
    };
    for program in [
        &["/usr/bin/dpkg", "--version"][..],
        &["/bin/tar", "--version"],
        &["/usr/bin/grub-mkimage", "--version"],
        &["/usr/sbin/grub-install", "--version"],
        &["/usr/sbin/grub-probe", "--version"],
        &["/bin/sh", "-c", "/usr/bin/dpkg --audit"],
    ] {
        inside(program).unwrap();
    }
    // From here on it installs the rest itself.
    std::fs::create_dir(root.join("debs")).unwrap();
    for deb in debs.iter().filter(|path| is_mischief(path)) {
        std::fs::copy(deb, root.join("debs").join(deb.file_name().unwrap())).unwrap();
    }
    inside(&["/bin/sh", "-c", "dpkg -i /debs/*.deb"]).unwrap();
    for check in ["slow", "trigger", "conffile", "divert", "links", "daemon"] {
        inside(&[&format!("/usr/lib/toy/check.d/{check}")]).unwrap();
    }
    assert!(inside(&["/bin/sh", "-c", "/usr/bin/dpkg --audit"]).unwrap().stdout.is_empty());

    boots(&root, folder.path());
    let deb = debs.iter().find(|path| broken(path)).unwrap();
    std::fs::copy(deb, root.join("debs/broken.deb")).unwrap();
    let failure = inside(&["/usr/bin/dpkg", "-i", "/debs/broken.deb"]).unwrap_err();
    assert!(failure.0.contains("this never works"), "{failure}");
}

/// What dpkg made is a system that starts, by its own kernel and initramfs.
fn boots(root: &Path, folder: &Path) {
    let disk = folder.join("toy.raw");
    let mut mkfs = Command::new("mkfs.ext4");
    run(mkfs.args(["-q", "-L", "toy", "-d"]).arg(root).arg(&disk).arg("192M")).unwrap();
    let file = |prefix: &str| {
        let entries = std::fs::read_dir(root.join("boot")).unwrap();
        entries.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().contains(prefix)).unwrap()
    };
    let boot = Boot::Kernel {
        kernel: file("vmlinuz-"),
        initramfs: file("initrd.img-"),
        arguments: format!("{KERNEL_ARGUMENTS} root=LABEL=toy"),
    };
    let mut machine = Machine::new(&folder.join("machine"), boot);
    machine.network = Network::None;
    machine.memory_mib = 256;
    machine.disks = vec![Disk::raw(&disk, "TOY")];
    let mut running = machine.start().unwrap();
    running.expect(UP, &["Kernel panic", "no root file system"], Duration::from_secs(120)).unwrap();
    running.expect_end(Duration::from_secs(30)).unwrap();
    let report = report(&running.console().0);
    assert_eq!(report.get("root").map(String::as_str), Some("ext4"), "{report:?}");
    for name in ["slow", "trigger", "conffile", "divert", "links", "daemon"] {
        assert_eq!(report.get(name).map(String::as_str), Some("ok"), "{report:?}");
    }
    assert_eq!(report.get("audit").map(String::as_str), Some("clean"), "{report:?}");
}
