//! What the toy suite holds.

use super::package::{Codec, Package, gzip};
use super::real::{Unpacked, behind, fetch};
use super::tar::{Tree, to_cpio};
use crate::host::{Failure, Result, Subject};

/// What a config names so that the toy becomes a bootable system.
pub const BASE: &[&str] = &["linux-image-toy", "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common"];

/// Packages that misbehave and still have to install.
pub const MISCHIEF: &[&str] = &["toy-slow", "toy-trigger", "toy-conffile", "toy-divert", "toy-links", "toy-daemon"];

/// A package whose postinst fails.
pub const BROKEN: &str = "toy-broken";

/// What an installed toy says last before it powers off.
pub const UP: &str = "toy: up";

/// What stands before each `NAME VALUE` line of its report.
pub const REPORT: &str = "toy: ";

/// Real packages, and the parts of them that are kept.
const REAL: &[(&str, &[&str])] = &[
    (
        "libc6",
        &[
            "*/ld-linux-x86-64.so.2",
            "*/libc.so.6",
            "*/libm.so.6",
            "*/libdl.so.2",
            "*/libpthread.so.0",
            "*/libresolv.so.2",
            "*/libnss_files.so.2",
        ],
    ),
    ("libc-bin", &["sbin/ldconfig"]),
    ("libmd0", &["*/libmd.so*"]),
    ("libzstd1", &["*/libzstd.so*"]),
    ("liblzma5", &["*/liblzma.so*"]),
    ("zlib1g", &["*/libz.so*"]),
    ("libbz2-1.0", &["*/libbz2.so*"]),
    ("libselinux1", &["*/libselinux.so*"]),
    ("libpcre2-8-0", &["*/libpcre2-8.so*"]),
    ("libacl1", &["*/libacl.so*"]),
    ("libdevmapper1.02.1", &["*/libdevmapper.so*"]),
    ("libudev1", &["*/libudev.so*"]),
    ("libefiboot1", &["*/libefiboot.so*"]),
    ("libefivar1", &["*/libefivar.so*"]),
    ("tar", &["bin/tar"]),
    ("dpkg", &["usr/bin/dpkg*", "sbin/start-stop-daemon", "usr/share/dpkg/*table"]),
    ("grub-common", &["usr/bin/grub-mkimage", "usr/bin/grub-mkrelpath", "usr/bin/grub-editenv", "usr/sbin/grub-probe"]),
    ("grub2-common", &["usr/sbin/grub-install"]),
    ("grub-pc-bin", &["usr/lib/grub/i386-pc/*"]),
    (
        "grub-efi-amd64-bin",
        &[
            "usr/lib/grub/x86_64-efi/kernel.img",
            "usr/lib/grub/x86_64-efi/*.mod",
            "usr/lib/grub/x86_64-efi/*.lst",
            "usr/lib/grub/x86_64-efi/*info.sh",
        ],
    ),
];

/// The smallest system: a shell and its tools, users, a first process.
const SYSTEM: &str = "toy-base";

pub fn all() -> Result<Vec<Package>> {
    let mut suite: Vec<&str> = REAL.iter().map(|(name, _)| *name).collect();
    suite.push(SYSTEM);
    let kernel_name = behind("linux-image-cloud-amd64")?;
    let mut wanted = vec!["busybox-static", &kernel_name];
    wanted.extend(REAL.iter().map(|(name, _)| *name));
    let debs = fetch(&wanted)?;
    let busybox = std::fs::read(Unpacked::new(&debs[0])?.path().join("bin/busybox")).on("busybox")?;

    let mut packages = vec![base(&busybox), kernel(&Unpacked::new(&debs[1])?, busybox)?];
    for ((name, kept), deb) in REAL.iter().zip(&debs[2..]) {
        let keep = |path: &str| kept.iter().any(|pattern| matches(pattern, path));
        let mut package = Unpacked::new(deb)?.trimmed(&suite, keep)?;
        if *name == "dpkg" {
            // Without the directories of its own database no dpkg runs.
            for folder in
                ["var/lib/dpkg/alternatives", "var/lib/dpkg/info", "var/lib/dpkg/parts", "var/lib/dpkg/updates"]
            {
                package.tree = package.tree.folder(folder, 0o755);
            }
            package.tree = package.tree.folder("etc/dpkg/dpkg.cfg.d", 0o755);
        }
        packages.push(package.codec(if name.starts_with("grub") { Codec::Zstd } else { Codec::Xz }));
    }
    packages.extend(mischief());
    // The package manager that a minimal Debian is asked for by name.
    packages.push(Package::new("apt").field("Priority", "required").file("usr/share/doc/apt/toy", 0o644, "no apt\n"));
    Ok(packages)
}

/// `*` stands for any text.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => {
            let Some(rest) = path.strip_prefix(before) else { return false };
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
        }
    }
}

const APPLETS: &[&str] = &[
    "sh",
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "groups",
    "head",
    "hostname",
    "id",
    "install",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mv",
    "nproc",
    "od",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "reboot",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "wc",
    "which",
    "xargs",
    "ip",
    "udhcpc",
];

const INIT: &str = r#"#!/bin/sh
# The toy's first process: says what became of the machine, then powers it off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
[ -b /dev/vda ] || mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
say() { echo "toy: $*"; }
say hostname "$(cat /etc/hostname 2>/dev/null)"
say cmdline "$(cat /proc/cmdline)"
say root "$(awk '$2 == "/" { print $3 }' /proc/mounts | tail -n 1)"
# This mount knows no UUIDs, so the volume id (byte 39 of a FAT16) is compared by hand.
id=$(busybox dd if=/dev/vda2 bs=1 skip=39 count=4 2>/dev/null | busybox od -An -tx1 | awk '{ print toupper($4 $3 "-" $2 $1) }')
mount -o remount,rw / && grep -q "^UUID=$id /boot/efi vfat " /etc/fstab && mount -t vfat /dev/vda2 /boot/efi &&
    say fstab mounted || say fstab failed "$id"
say mounts $(awk '{ print $2 ":" $3 }' /proc/mounts | grep -v -e :proc -e :sysfs -e :devtmpfs | sort -u)
audit=$(/usr/bin/dpkg --audit 2>&1)
say audit "$([ -z "$audit" ] && echo clean || echo "$audit" | tr '\n' ' ')"
say packages "$(/usr/bin/dpkg-query -W -f '${db:Status-Abbrev}\n' | sort | uniq -c | tr -s '\n ' ' ')"
for check in /usr/lib/toy/check.d/*; do
    [ -x "$check" ] || continue
    said=$("$check" 2>&1) && say "${check##*/}" ok || say "${check##*/}" "failed: $said"
done
[ ! -x /etc/toy/report ] || /etc/toy/report
sync
echo "toy: up"
poweroff -f
"#;

fn base(busybox: &[u8]) -> Package {
    let mut package = Package::new(SYSTEM).essential().file("usr/bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        package = package.symlink(&format!("usr/bin/{applet}"), "busybox");
    }
    package = package
        .file("usr/sbin/init", 0o755, INIT)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nsudo:x:27:\nusers:x:100:\nnogroup:x:65534:\n")
        .file("etc/shadow", 0o640, "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n")
        .file("etc/os-release", 0o644, "ID=toy\nPRETTY_NAME=\"A toy\"\nVERSION_CODENAME=toy\n")
        .file("etc/debian_version", 0o644, "12.0\n");
    for (folder, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("proc", 0o555), ("sys", 0o555)] {
        package.tree = package.tree.folder(folder, mode);
    }
    for folder in ["boot", "dev", "etc", "home", "mnt", "run", "var/log", "var/lib", "var/cache", "usr/lib/toy/check.d"]
    {
        package.tree = package.tree.folder(folder, 0o755);
    }
    package.codec(Codec::Gzip)
}

/// Modules that the initramfs of the toy loads, in this order.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "nls_cp437",
    "nls_ascii",
    "fat",
    "vfat",
];

const INITRAMFS_INIT: &str = r#"#!/bin/busybox sh
busybox mkdir -p /proc /sys /dev /root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do busybox insmod "$module"; done
for word in $(busybox cat /proc/cmdline); do
    case "$word" in root=*) root=${word#root=} ;; esac
done
tries=0
while [ "$tries" -lt 100 ]; do
    case "$root" in
        UUID=* | LABEL=*) device=$(busybox findfs "$root" 2>/dev/null) ;;
        *) device=$root ;;
    esac
    [ ! -b "$device" ] || break
    tries=$((tries + 1)); busybox usleep 100000
done
busybox mount -o ro "$device" /root || { echo "toy: no root file system ($root)"; busybox poweroff -f; }
exec busybox switch_root /root /sbin/init
"#;

/// Debian's kernel for virtual machines with an initramfs that is ready made: nothing is generated in the target.
fn kernel(real: &Unpacked, busybox: Vec<u8>) -> Result<Package> {
    let boot = real.path().join("boot");
    let image = Tree::read(&boot, |path| path.starts_with("vmlinuz-"))?;
    let (name, kernel) = image.files().next().ok_or_else(|| Failure::new("the kernel package holds no kernel"))?;
    let release = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = Tree::read(&real.path().join("lib/modules").join(&release), |path| {
        MODULES.iter().any(|module| path.ends_with(&format!("/{module}.ko")))
    })?;

    let mut initramfs = Tree::default().file("bin/busybox", 0o755, busybox).file("init", 0o755, INITRAMFS_INIT);
    for (number, module) in MODULES.iter().enumerate() {
        let file_name = format!("/{module}.ko");
        let found = modules.files().find(|(path, _)| path.ends_with(&file_name));
        let (_, content) = found.ok_or_else(|| Failure(format!("the kernel package holds no {module}")))?;
        initramfs = initramfs.file(&format!("modules/{number}-{module}.ko"), 0o644, content.clone());
    }
    let package = Package::new("linux-image-toy")
        .file(&format!("boot/vmlinuz-{release}"), 0o644, kernel.clone())
        .file(&format!("boot/initrd.img-{release}"), 0o644, gzip(&to_cpio(&initramfs))?)
        .symlink("vmlinuz", &format!("boot/vmlinuz-{release}"))
        .symlink("initrd.img", &format!("boot/initrd.img-{release}"))
        .file(&format!("usr/lib/modules/{release}/modules.builtin"), 0o644, "");
    Ok(package.codec(Codec::Zstd))
}

fn mischief() -> Vec<Package> {
    let long = format!("usr/share/toy/{}/{}", "long-folder-name-".repeat(8), "long-file-name-".repeat(10));
    let toy = |name: &str| Package::new(name).field("Priority", "optional");
    vec![
        toy("toy-slow").script("postinst", "sleep 2; echo done >/var/lib/toy-slow").file(
            "usr/lib/toy/check.d/slow",
            0o755,
            "#!/bin/sh\n[ \"$(cat /var/lib/toy-slow)\" = done ]\n",
        ),
        // Its interest is met by a file of another package.
        toy("toy-trigger")
            .control_file("triggers", "interest-noawait /usr/share/toy\n")
            .script("postinst", "echo \"$1\" >>/var/lib/toy-trigger")
            .file(
                "usr/lib/toy/check.d/trigger",
                0o755,
                "#!/bin/sh\ngrep -q -e configure -e triggered /var/lib/toy-trigger\n",
            ),
        toy("toy-conffile").control_file("conffiles", "/etc/toy.conf\n").file("etc/toy.conf", 0o640, "shipped\n").file(
            "usr/lib/toy/check.d/conffile",
            0o755,
            "#!/bin/sh\ndpkg-query -W -f '${Conffiles}' toy-conffile | grep -q '/etc/toy.conf [0-9a-f]'\n",
        ),
        // Takes a command of another package away before its own comes.
        toy("toy-divert")
            .field("Pre-Depends", "dpkg, toy-base")
            .script(
                "preinst",
                "dpkg-divert --package toy-divert --add --rename --divert /usr/bin/nproc.real /usr/bin/nproc",
            )
            .file("usr/bin/nproc", 0o755, "#!/bin/sh\necho diverted\n")
            .file(
                "usr/lib/toy/check.d/divert",
                0o755,
                "#!/bin/sh\n[ \"$(/usr/bin/nproc)\" = diverted ] && [ -L /usr/bin/nproc.real ]\n",
            ),
        links(&long),
        // A service that a postinst starts must not run in the installer, and what runs anyway must not live on.
        toy("toy-daemon")
            .script(
                "postinst",
                "invoke-rc.d toy-daemon start >/dev/null 2>&1 || true\nsetsid sleep 3600 </dev/null >/dev/null 2>&1 &",
            )
            .file("etc/init.d/toy-daemon", 0o755, "#!/bin/sh\ntouch /var/lib/toy-daemon-started\n")
            .file("usr/lib/toy/check.d/daemon", 0o755, "#!/bin/sh\n[ ! -e /var/lib/toy-daemon-started ]\n"),
        toy("toy-broken").script("postinst", "echo 'toy-broken: this never works' >&2; exit 7"),
    ]
}

/// Hard links, a set-uid program, a file of one byte among eight million zeros, names longer than tar's fields.
fn links(long: &str) -> Package {
    let mut sparse = vec![0; 8 << 20];
    sparse.push(b'!');
    let mut package = Package::new("toy-links").field("Priority", "optional").codec(Codec::Zstd);
    package.tree = package
        .tree
        .file("usr/share/toy/first", 0o644, "one file, two names\n")
        .add("usr/share/toy/second", 0o644, super::tar::Node::Hardlink("usr/share/toy/first".to_owned()))
        .file("usr/bin/toy-setuid", 0o4755, "#!/bin/sh\ntrue\n")
        .file("usr/share/toy/sparse", 0o644, sparse)
        .file(long, 0o600, "far down\n")
        .symlink("usr/share/toy/absolute", "/usr/share/toy/first")
        .file(
            "usr/lib/toy/check.d/links",
            0o755,
            format!(
                "#!/bin/sh\ncd /usr/share/toy && [ \"$(stat -c %i first)\" = \"$(stat -c %i second)\" ] && \
                 [ \"$(stat -c %a /usr/bin/toy-setuid)\" = 4755 ] && [ \"$(stat -c %s sparse)\" = 8388609 ] && \
                 [ \"$(tail -c 1 sparse)\" = '!' ] && [ \"$(cat '/{long}')\" = 'far down' ] && [ \"$(cat absolute)\" = \"$(cat first)\" ]\n"
            ),
        );
    package
}
