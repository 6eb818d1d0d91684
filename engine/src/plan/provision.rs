//! From an empty, mounted file system to a system that is what the config says: packages, then files, users, commands.

use camino::{Utf8Path, Utf8PathBuf};

use super::cmd::Stdin;
use super::{Cmd, Effect, Plan, StepPhase};
use crate::block::Target;
use crate::block::mount::{fstab_line, swap_line};
use crate::debian::{APT_KEYS, APT_SOURCES};
use crate::spec::{CommandSpec, Content, FileSpec, Spec, UserSpec};
use crate::units::Mode;

pub fn plan(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    bootstrap(spec, root, plan);
    identity(spec, root, plan);
    users(spec, root, plan);
    files(spec, root, plan);
    initramfs(spec, root, plan);
    in_target(spec, root, plan);
    unique(spec, root, plan);
}

fn bootstrap(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let Some(packages) = &spec.packages else { return };
    let unpack = Effect::Unpack { root: root.to_owned(), packages: packages.clone() };
    let title = format!("fetch and unpack {} packages", packages.packages.len());
    plan.add(StepPhase::Bootstrap, "unpack", title, vec![unpack]);
    // The packages' scripts look at these.
    let mut effects = vec![file(root, "/etc/fstab", fstab(spec))];
    if let Some(hostname) = &spec.system.hostname {
        effects.push(file(root, "/etc/hostname", format!("{hostname}\n")));
        effects.push(file(root, "/etc/hosts", hosts(hostname)));
    }
    if let Some(timezone) = &spec.system.timezone {
        effects.push(file(root, "/etc/timezone", format!("{timezone}\n")));
        let to = format!("/usr/share/zoneinfo/{timezone}");
        effects.push(Effect::Symlink { root: root.to_owned(), path: "/etc/localtime".into(), to });
    }
    let apt = [(APT_KEYS, &packages.apt_keys), (APT_SOURCES, &spec.system.apt_sources)];
    for (path, content) in apt.into_iter().filter_map(|(path, content)| Some((Utf8Path::new(path), content.as_ref()?)))
    {
        let folder = path.parent().expect("a file lies in a folder").to_owned();
        effects.push(Effect::MakeDirectory { root: root.to_owned(), path: folder, mode: Mode(0o755) });
        effects.push(file(root, path.as_str(), content.clone()));
    }
    if packages.get("initramfs-tools-core").is_some() {
        effects.push(file(root, INITRAMFS_SWITCH, "update_initramfs=no\n".to_owned()));
    }
    plan.add(StepPhase::Bootstrap, "identity", "write what the packages' scripts look at", effects);
    let configure =
        Effect::Configure { root: root.to_owned(), packages: packages.clone(), debconf: spec.system.debconf.clone() };
    let title = format!("configure {} packages", packages.packages.len());
    plan.add(StepPhase::Bootstrap, "configure", title, vec![configure]);
}

/// Keeps kernel packages and triggers from making the same initramfs twice (update-initramfs(8)).
const INITRAMFS_SWITCH: &str = "/etc/initramfs-tools/update-initramfs.conf";
/// The first one is soon replaced by updates; packing it hard would cost slow machines a minute.
const INITRAMFS_FAST: &str = "/etc/initramfs-tools/conf.d/castiron-first";
const INITRAMFS_SWITCH_DEFAULT: &str = "\
# Written by castiron; see update-initramfs.conf(5).
update_initramfs=yes
backup_initramfs=no
";

/// Once, when everything that goes into it is there.
fn initramfs(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    if spec.packages.as_ref().is_none_or(|packages| packages.get("initramfs-tools-core").is_none()) {
        return;
    }
    let effects = vec![
        file(root, INITRAMFS_SWITCH, INITRAMFS_SWITCH_DEFAULT.to_owned()),
        file(root, INITRAMFS_FAST, "COMPRESSLEVEL=1\n".to_owned()),
        Effect::Exec(Cmd::target(root, "update-initramfs").args(["-c", "-k", "all"])),
        Effect::RemoveTargetFile { root: root.to_owned(), path: INITRAMFS_FAST.into() },
    ];
    plan.add(StepPhase::Provision, "initramfs", "make the initramfs", effects);
}

fn identity(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let mut effects = Vec::new();
    if let Some(locale) = &spec.system.locale {
        effects.push(file(root, "/etc/default/locale", format!("LANG={locale}\n")));
        if spec.packages.as_ref().is_some_and(|packages| packages.get("locales").is_some()) {
            let charset = locale.split_once('.').map_or("UTF-8", |(_, charset)| charset);
            effects.push(file(root, "/etc/locale.gen", format!("{locale} {charset}\n")));
            effects.push(Effect::Exec(Cmd::target(root, "locale-gen")));
        }
    }
    plan.add(StepPhase::Provision, "locale", "set the locale", effects);
}

fn users(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    for user in &spec.system.users {
        let mut effects = Vec::new();
        if user.name != "root" {
            effects.push(Effect::Exec(useradd(root, user)));
        } else if let Some(shell) = &user.shell {
            effects.push(Effect::Exec(Cmd::target(root, "usermod").opt("--shell", shell).arg("root")));
        }
        if let Some(secret) = user.hashed_passwd.as_ref().filter(|_| !user.lock_passwd) {
            let stdin = Stdin::Secret { prefix: format!("{}:", user.name), secret: secret.clone() };
            effects.push(Effect::Exec(Cmd::target(root, "chpasswd").arg("-e").stdin(stdin)));
        }
        effects.extend(ssh_keys(root, user));
        if !user.sudo.is_empty() {
            let lines: String = user.sudo.iter().map(|rule| format!("{} {rule}\n", user.name)).collect();
            let path = Utf8PathBuf::from(format!("/etc/sudoers.d/90-{}", user.name));
            effects.push(Effect::MakeDirectory {
                root: root.to_owned(),
                path: "/etc/sudoers.d".into(),
                mode: Mode(0o750),
            });
            effects.push(write(root, path, Mode(0o440), "root", Content::Text(lines)));
        }
        plan.add(StepPhase::Provision, format!("user-{}", user.name), format!("add user {}", user.name), effects);
    }
}

fn useradd(root: &Utf8Path, user: &UserSpec) -> Cmd {
    let mut cmd = Cmd::target(root, "useradd").arg(if user.system { "--system" } else { "--create-home" });
    let options = [
        ("--uid", user.uid.map(|uid| uid.to_string())),
        ("--comment", user.gecos.clone()),
        ("--home-dir", user.home.as_ref().map(ToString::to_string)),
        ("--shell", Some(user.shell.clone().unwrap_or_else(|| "/bin/sh".to_owned()))),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            cmd = cmd.opt(option, value);
        }
    }
    if !user.groups.is_empty() {
        cmd = cmd.opt("--groups", user.groups.join(","));
    }
    cmd.arg(&user.name)
}

fn ssh_keys(root: &Utf8Path, user: &UserSpec) -> Vec<Effect> {
    if user.ssh_authorized_keys.is_empty() {
        return Vec::new();
    }
    let folder = home(user).join(".ssh");
    let keys: String = user.ssh_authorized_keys.iter().map(|key| format!("{}\n", key.trim())).collect();
    vec![write(root, folder.join("authorized_keys"), Mode(0o600), &user.name, Content::Text(keys))]
}

fn home(user: &UserSpec) -> Utf8PathBuf {
    match (&user.home, user.name.as_str()) {
        (Some(home), _) => home.clone(),
        (None, "root") => "/root".into(),
        (None, name) => Utf8PathBuf::from("/home").join(name),
    }
}

fn files(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let effects =
        spec.system.files.iter().map(|file| Effect::WriteFile { root: root.to_owned(), file: file.clone() }).collect();
    plan.add(StepPhase::Provision, "files", format!("write {} files", spec.system.files.len()), effects);
}

fn in_target(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let effects = spec
        .commands
        .in_target
        .iter()
        .map(|command| match command {
            CommandSpec::Shell(script) => Cmd::target(root, "sh").arg("-c").arg(script),
            CommandSpec::Exec(argv) => {
                let mut words = argv.iter();
                let program = words.next().cloned().unwrap_or_default();
                Cmd::target(root, program).args(words.map(String::as_str))
            }
        })
        .map(Effect::Exec)
        .collect();
    plan.add(StepPhase::Provision, "in-target", "run the in-target commands", effects);
}

const HOST_KEYS: &[&str] = &["rsa", "ecdsa", "ed25519"];
/// sshd checks its keys before it starts, so they are made before that.
const MAKE_HOST_KEYS: &str = "\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
";

/// An image is copied to many machines: what must be each machine's own is left for its first boot
/// (machine-id(5), "first boot semantics"). An installed machine keeps what its packages made.
fn unique(spec: &Spec, root: &Utf8Path, plan: &mut Plan) {
    let image = spec.graph.disks().any(|(_, disk)| disk.target == Target::ImageFile);
    let Some(packages) = spec.packages.as_ref().filter(|_| image) else { return };
    let mut effects = vec![file(root, "/etc/machine-id", String::new())];
    if packages.get("openssh-server").is_some() {
        let keys =
            HOST_KEYS.iter().flat_map(|kind| ["", ".pub"].map(|end| format!("/etc/ssh/ssh_host_{kind}_key{end}")));
        effects.extend(keys.map(|path| Effect::RemoveTargetFile { root: root.to_owned(), path: path.into() }));
        effects.push(file(root, "/etc/systemd/system/ssh.service.d/host-keys.conf", MAKE_HOST_KEYS.to_owned()));
    }
    plan.add(StepPhase::Provision, "unique", "leave to each machine what must be its own", effects);
}

fn fstab(spec: &Spec) -> String {
    let mut text = "# Written by castiron; see fstab(5).\n".to_owned();
    for mount in spec.graph.mounts() {
        if let Some(filesystem) = spec.graph.filesystem(&mount.base) {
            text.push_str(&fstab_line(mount, filesystem));
        }
    }
    text.extend(spec.graph.swaps().map(swap_line));
    text
}

/// Debian policy 5.2 of the reference manual: the name resolves without a network.
fn hosts(hostname: &str) -> String {
    let short = hostname.split('.').next().unwrap_or(hostname);
    let names = if short == hostname { hostname.to_owned() } else { format!("{hostname} {short}") };
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

/// A text file of root's that everyone may read.
pub fn file(root: &Utf8Path, path: &str, text: String) -> Effect {
    write(root, path.into(), Mode(0o644), "root", Content::Text(text))
}

/// Folders above the file that do not exist yet belong to the same user, and are private where the file is.
fn write(root: &Utf8Path, path: Utf8PathBuf, mode: Mode, user: &str, content: Content) -> Effect {
    let file = FileSpec { path, mode, user: user.to_owned(), group: user.to_owned(), content, append: false };
    Effect::WriteFile { root: root.to_owned(), file }
}
