//! Files of the target, confined to it: every path is resolved inside the root (`openat2`, RESOLVE_IN_ROOT), so a
//! link of the target never leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode as FsMode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::spec::{Content, FileSpec, Secrets};
use crate::system::{Context, EffectError};
use crate::units::Mode;

/// The root of a target, held open.
pub struct Tree {
    root: OwnedFd,
    path: Utf8PathBuf,
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

impl Tree {
    pub fn open(path: &Utf8Path) -> Result<Self, EffectError> {
        let root = rustix::fs::open(path.as_std_path(), FOLDER | OFlags::PATH, FsMode::empty())
            .context(format!("cannot open {path}"))?;
        Ok(Self { root, path: path.to_owned() })
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        rustix::fs::openat2(&self.root, relative, flags | OFlags::CLOEXEC, FsMode::empty(), INSIDE)
    }

    /// Opens a folder, making it and those above it where they are missing.
    fn folder(&self, path: &Utf8Path, mode: Mode, owner: (u32, u32)) -> Result<OwnedFd, EffectError> {
        match self.resolve(path.as_std_path(), FOLDER) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(EffectError::caused(format!("cannot open {path} in the target"), error)),
        }
        let parent = path.parent().ok_or_else(|| EffectError::new(format!("{path} has no folder above it")))?;
        let name = path.file_name().ok_or_else(|| EffectError::new(format!("{path} does not name a folder")))?;
        let parent = self.folder(parent, mode, owner)?;
        let what = || format!("cannot make {path} in the target");
        rustix::fs::mkdirat(&parent, name, FsMode::from_raw_mode(mode.0)).context(what())?;
        let made = rustix::fs::openat(&parent, name, FOLDER | OFlags::NOFOLLOW, FsMode::empty()).context(what())?;
        rustix::fs::fchown(&made, uid(owner.0), gid(owner.1)).context(what())?;
        rustix::fs::fchmod(&made, FsMode::from_raw_mode(mode.0)).context(what())?;
        Ok(made)
    }

    pub fn make_folder(&self, path: &Utf8Path, mode: Mode) -> Result<(), EffectError> {
        self.folder(path, mode, (0, 0)).map(drop)
    }

    pub fn read(&self, path: &Utf8Path) -> Result<Vec<u8>, EffectError> {
        let what = || format!("cannot read {path} in the target");
        let file = self.resolve(path.as_std_path(), OFlags::RDONLY).context(what())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).context(what())?;
        Ok(bytes)
    }

    pub fn write(&self, file: &FileSpec, secrets: &Secrets) -> Result<(), EffectError> {
        let path = &file.path;
        let what = || format!("cannot write {path} in the target");
        let owner = self.owner(file)?;
        // A private file's new folders are private too: `.ssh` for `authorized_keys`.
        let folder_mode = if file.mode.0 & 0o077 == 0 { Mode(0o700) } else { Mode(0o755) };
        let parent = path.parent().unwrap_or(Utf8Path::new("/"));
        let name = path.file_name().ok_or_else(|| EffectError::new(format!("{path} does not name a file")))?;
        let folder = self.folder(parent, folder_mode, owner)?;
        let mut content = bytes(&file.content, secrets)?;
        if file.append {
            let mut all = self.read(path).unwrap_or_default();
            all.append(&mut content);
            content = all;
        }
        unlink(&folder, name).context(what())?;
        // The final mode from the start: no moment in which others could read it.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            rustix::fs::openat(&folder, name, flags, FsMode::from_raw_mode(file.mode.0 & 0o700)).context(what())?;
        rustix::fs::fchown(&made, uid(owner.0), gid(owner.1)).context(what())?;
        rustix::fs::fchmod(&made, FsMode::from_raw_mode(file.mode.0)).context(what())?;
        File::from(made).write_all(&content).context(what())
    }

    pub fn remove_file(&self, path: &Utf8Path) -> Result<(), EffectError> {
        let Some(name) = path.file_name() else { return Ok(()) };
        match self.resolve(path.parent().unwrap_or(Utf8Path::new("/")).as_std_path(), FOLDER) {
            Ok(folder) => unlink(&folder, name).context(format!("cannot remove {path} in the target")),
            Err(_) => Ok(()),
        }
    }

    pub fn symlink(&self, path: &Utf8Path, to: &str) -> Result<(), EffectError> {
        let what = || format!("cannot link {path} in the target");
        let name = path.file_name().ok_or_else(|| EffectError::new(format!("{path} does not name a file")))?;
        let folder = self.folder(path.parent().unwrap_or(Utf8Path::new("/")), Mode(0o755), (0, 0))?;
        unlink(&folder, name).context(what())?;
        rustix::fs::symlinkat(to, &folder, name).context(what())
    }

    /// Plain files only, which is what GRUB's module folders hold.
    pub fn copy_folder(&self, from: &Utf8Path, to: &Utf8Path) -> Result<(), EffectError> {
        let target = self.folder(to, Mode(0o755), (0, 0))?;
        for (name, kind) in self.list(from)? {
            if kind != FileType::RegularFile {
                continue;
            }
            let what = || format!("cannot copy {from}/{name} to {to}");
            let mut source = File::from(self.resolve(from.join(&name).as_std_path(), OFlags::RDONLY).context(what())?);
            unlink(&target, &name).context(what())?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&target, &*name, flags, FsMode::from_raw_mode(0o644)).context(what())?;
            std::io::copy(&mut source, &mut File::from(made)).context(what())?;
        }
        Ok(())
    }

    /// Names in order, without `.` and `..`.
    pub fn list(&self, path: &Utf8Path) -> Result<Vec<(String, FileType)>, EffectError> {
        let what = || format!("cannot list {path} in the target");
        let folder = self.resolve(path.as_std_path(), FOLDER | OFlags::RDONLY).context(what())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder).context(what())? {
            let entry = entry.context(what())?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let name =
                name.to_str().ok_or_else(|| EffectError::new(format!("{path} holds a name that is not UTF-8")))?;
            if name != "." && name != ".." {
                let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).context(what())?;
                names.push((name.to_owned(), FileType::from_raw_mode(stat.st_mode)));
            }
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    pub fn open_file(&self, path: &Utf8Path) -> Result<File, EffectError> {
        let file = self.resolve(path.as_std_path(), OFlags::RDONLY);
        file.map(File::from).context(format!("cannot open {path} in the target"))
    }

    /// Empties a folder that holds only folders and plain files; never crosses into another file system.
    pub fn empty_folder(&self, path: &Utf8Path) -> Result<(), EffectError> {
        let folder = self
            .resolve(path.as_std_path(), FOLDER | OFlags::RDONLY)
            .context(format!("cannot open {path} in the target"))?;
        let device = rustix::fs::fstat(&folder).context(format!("cannot look at {path}"))?.st_dev;
        empty(&folder, device).context(format!("cannot empty {path} in the target"))
    }

    pub fn sync(&self) -> Result<(), EffectError> {
        let folder = rustix::fs::open(self.path.as_std_path(), FOLDER | OFlags::RDONLY, FsMode::empty())
            .context(format!("cannot open {}", self.path))?;
        rustix::fs::syncfs(&folder).context(format!("cannot write out {}", self.path))
    }

    /// The target's own answer, never this system's.
    fn owner(&self, file: &FileSpec) -> Result<(u32, u32), EffectError> {
        let look_up = |table: &str, name: &str| -> Result<u32, EffectError> {
            if name == "root" {
                return Ok(0);
            }
            if let Ok(number) = name.parse() {
                return Ok(number);
            }
            let text = self.read(Utf8Path::new(table))?;
            find_id(&String::from_utf8_lossy(&text), name).ok_or_else(|| {
                EffectError::new(format!("cannot write {}: `{name}` is not in {table} of the target", file.path))
                    .with_hint("name a user or group that a package or `users:` makes")
            })
        };
        Ok((look_up("/etc/passwd", &file.user)?, look_up("/etc/group", &file.group)?))
    }
}

/// The third field of the line that begins with `name` (passwd(5), group(5)).
fn find_id(table: &str, name: &str) -> Option<u32> {
    let line = table.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn bytes(content: &Content, secrets: &Secrets) -> Result<Vec<u8>, EffectError> {
    match content {
        Content::Text(text) => Ok(text.clone().into_bytes()),
        Content::Base64(text) => {
            base64::engine::general_purpose::STANDARD.decode(text).context("the content is not base64")
        }
        Content::Secret(name) => {
            let secret =
                secrets.get(name).ok_or_else(|| EffectError::new(format!("the secret `{}` is unknown", name.0)))?;
            Ok(secret.expose().as_bytes().to_vec())
        }
    }
}

fn unlink(folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn empty(folder: &OwnedFd, device: u64) -> Result<(), Errno> {
    let entries: Vec<_> = Dir::read_from(folder)?.collect::<Result<_, _>>()?;
    for entry in entries {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
            continue;
        }
        if stat.st_dev != device {
            return Err(Errno::XDEV);
        }
        let inner = rustix::fs::openat(folder.as_fd(), name, FOLDER | OFlags::NOFOLLOW, FsMode::empty())?;
        empty(&inner, device)?;
        rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn uid(number: u32) -> Option<Uid> {
    Some(Uid::from_raw(number))
}

fn gid(number: u32) -> Option<Gid> {
    Some(Gid::from_raw(number))
}

/// A plain file of this system, outside every target.
pub fn remove_own_file(path: &Utf8Path) -> Result<(), EffectError> {
    match rustix::fs::unlinkat(CWD, path.as_std_path(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(EffectError::caused(format!("cannot remove {path}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SecretRef;
    use crate::units::Secret;

    fn spec(path: &str, mode: u32, content: Content) -> FileSpec {
        FileSpec { path: path.into(), mode: Mode(mode), user: "0".into(), group: "0".into(), content, append: false }
    }

    #[test]
    fn links_of_the_target_stay_in_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("etc")).unwrap();
        let tree = Tree::open(root).unwrap();
        let refused = tree.write(&spec("/etc/shadow", 0o600, Content::Text("x".into())), &Secrets::new());
        assert!(refused.is_err(), "a dangling link inside the root is not a folder");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_private_file_makes_private_folders_and_secrets_reach_only_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(Utf8Path::from_path(dir.path()).unwrap()).unwrap();
        let secrets = Secrets::from([(SecretRef("k".into()), Secret::new("hunter2"))]);
        tree.write(&spec("/home/.ssh/key", 0o600, Content::Secret(SecretRef("k".into()))), &secrets).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("home/.ssh"), mode("home/.ssh/key")), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(dir.path().join("home/.ssh/key")).unwrap(), "hunter2");
        tree.empty_folder(Utf8Path::new("/home")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("home")).unwrap().count(), 0);
    }

    #[test]
    fn ids_come_from_the_targets_tables() {
        assert_eq!(find_id("root:x:0:0::/root:/bin/sh\nops:x:1000:1001:::\n", "ops"), Some(1000));
        assert_eq!(find_id("root:x:0:0::/root:/bin/sh\n", "op"), None);
    }
}
