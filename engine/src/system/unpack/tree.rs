//! Files laid down below a root that nothing can lead out of.
//!
//! In: tar entries. Out: files, directories, links and nodes with owners, modes and times.
//! Invariants: every directory is opened by `openat2` with the root as its root, so links, `..` and
//! absolute paths stay inside, whatever a package holds; only names without a slash are then created
//! in it, and nothing is followed or overwritten there.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use camino::Utf8Path;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::archive::{Data, damaged};
use super::tar::{Entry, Kind};

/// Open directories kept per writer.
const OPEN_DIRECTORIES_MAX: usize = 256;
/// Directories that are links into `/usr` where it is merged.
const MERGED: &[&[u8]] = &[b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"libo32"];

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A target directory.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    merged_usr: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laid {
    Down,
    /// Something else has the name; the new one lies beside it under [`aside`].
    Aside,
}

impl Tree {
    pub fn open(root: &Utf8Path, merged_usr: bool) -> io::Result<Self> {
        let root = rustix::fs::open(root.as_str(), DIRECTORY, Mode::empty())?;
        Ok(Self { root, merged_usr })
    }

    pub fn writer(&self) -> Writer<'_> {
        Writer { tree: self, directories: HashMap::new() }
    }

    /// A file with no name, on the target's file system; for what is too large for memory.
    pub fn spool(&self) -> io::Result<std::fs::File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.root, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => Ok(file.into()),
            // Not every file system can: then a name for a moment.
            Err(_) => {
                let name = format!(".castiron-spool-{}-{:?}", std::process::id(), std::thread::current().id());
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&self.root, &name, flags, Mode::from_raw_mode(0o600))?;
                rustix::fs::unlinkat(&self.root, &name, AtFlags::empty())?;
                Ok(file.into())
            }
        }
    }

    fn open_inside(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), INSIDE)
    }
}

/// One thread's way into a tree.
pub struct Writer<'t> {
    tree: &'t Tree,
    directories: HashMap<Vec<u8>, OwnedFd>,
}

/// `./usr/bin/` as `usr/bin`; the root itself is empty. Paths with `..` are refused.
pub fn normal_path(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." || part.contains(&0) || part.contains(&b'\n') {
            return Err(damaged(&format!("the path {:?}", String::from_utf8_lossy(path))));
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(part);
    }
    Ok(normal)
}

/// Where a file waits when its place is taken already.
pub fn aside(name: &[u8], owner: usize) -> Vec<u8> {
    [name, format!(".castiron-{owner}").as_bytes()].concat()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    memchr::memrchr(b'/', path).map_or((&[], path), |at| (&path[..at], &path[at + 1..]))
}

impl Writer<'_> {
    /// Creates one entry. `path` is normal; `owner` names the package in case the place is taken;
    /// `each` sees the body of a file as it is written.
    pub fn lay(
        &mut self,
        entry: &Entry,
        path: &[u8],
        data: &mut Data<'_>,
        owner: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Laid> {
        let (parent, name) = split(path);
        match entry.kind {
            Kind::Directory => self.directory(path, entry).map(|()| Laid::Down),
            Kind::File => {
                let directory = self.open(parent)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
                let (file, laid) = match rustix::fs::openat(directory, name, flags, mode) {
                    Err(Errno::EXIST) => (rustix::fs::openat(directory, aside(name, owner), flags, mode)?, Laid::Aside),
                    other => (other?, Laid::Down),
                };
                data.body(&mut |bytes| {
                    each(bytes);
                    write_all(file.as_fd(), bytes)
                })?;
                finish_file(file.as_fd(), entry)?;
                Ok(laid)
            }
            Kind::Symlink => self.place(parent, name, owner, |directory, name| {
                rustix::fs::symlinkat(entry.link.as_slice(), directory, name)?;
                own_and_date(directory, name, entry)
            }),
            Kind::HardLink => {
                let target = normal_path(&entry.link)?;
                let (target_parent, target_name) = split(&target);
                let from = self.tree.open_inside(target_parent)?;
                self.place(parent, name, owner, |directory, name| {
                    rustix::fs::linkat(&from, target_name, directory, name, AtFlags::empty())
                })
            }
            Kind::Fifo | Kind::Character | Kind::Block => self.place(parent, name, owner, |directory, name| {
                let kind = match entry.kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Character => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(entry.mode as RawMode), device)?;
                rustix::fs::chmodat(directory, name, Mode::from_raw_mode(entry.mode as RawMode), AtFlags::empty())?;
                own_and_date(directory, name, entry)
            }),
        }
    }

    fn place(
        &mut self,
        parent: &[u8],
        name: &[u8],
        owner: usize,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<(), Errno>,
    ) -> io::Result<Laid> {
        let directory = self.open(parent)?;
        match make(directory, name) {
            Err(Errno::EXIST) => {
                make(directory, &aside(name, owner))?;
                Ok(Laid::Aside)
            }
            other => Ok(other.map(|()| Laid::Down)?),
        }
    }

    /// Creates a directory if it is not there; a link to one will do. Owner, mode and time come last,
    /// from [`Writer::finish_directory`], because several packages share directories.
    fn directory(&mut self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if path.is_empty() || self.directories.contains_key(path) || self.merged(path)? {
            return Ok(());
        }
        let (parent, name) = split(path);
        let directory = self.open(parent)?;
        match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode((entry.mode & 0o777 | 0o700) as RawMode)) {
            Ok(()) => Ok(()),
            // What a link leads to may still come; anything but a directory is in the way.
            Err(Errno::EXIST) => match self.tree.open_inside(path) {
                Ok(_) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Owner, mode and time of a directory, once everything is in it.
    pub fn finish_directory(&mut self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let (parent, name) = split(path);
        if self.tree.merged_usr && MERGED.contains(&path) {
            return Ok(());
        }
        let (directory, name) =
            if path.is_empty() { (self.tree.root.as_fd(), &b"."[..]) } else { (self.open(parent)?, name) };
        let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Ok(());
        }
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if found.st_mode & 0o7777 != entry.mode {
            rustix::fs::chmodat(directory, name, Mode::from_raw_mode(entry.mode as RawMode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(directory, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Writes a file of our own, over what may be there.
    pub fn write(&mut self, path: &[u8], mode: u32, mtime: Option<i64>, content: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let directory = self.open(parent)?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode as RawMode))?;
        write_all(file.as_fd(), content)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as RawMode))?;
        if let Some(mtime) = mtime {
            rustix::fs::futimens(&file, &times(mtime))?;
        }
        Ok(())
    }

    /// Makes the directories above a path.
    pub fn make_room(&mut self, path: &[u8]) -> io::Result<()> {
        self.open(split(path).0).map(drop)
    }

    /// Settles a clash: the file that waits aside takes the place, or goes.
    pub fn settle(&mut self, path: &[u8], owner: usize, replace: bool) -> io::Result<()> {
        let (parent, name) = split(path);
        let waiting = aside(name, owner);
        let directory = self.open(parent)?;
        if replace {
            match rustix::fs::renameat(directory, &waiting, directory, name) {
                // A directory stays where a link would take its place (Debian policy 6.6).
                Err(Errno::ISDIR) => {}
                other => return Ok(other?),
            }
        }
        Ok(rustix::fs::unlinkat(directory, waiting, AtFlags::empty())?)
    }

    /// A directory of the tree, with its missing parents made.
    fn open(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        if !self.directories.contains_key(path) {
            if self.directories.len() >= OPEN_DIRECTORIES_MAX {
                self.directories.clear();
            }
            let opened = match self.tree.open_inside(path) {
                Err(Errno::NOENT) => {
                    self.make_parents(path)?;
                    self.tree.open_inside(path)?
                }
                other => other?,
            };
            self.directories.insert(path.to_vec(), opened);
        }
        Ok(self.directories[path].as_fd())
    }

    fn make_parents(&mut self, path: &[u8]) -> io::Result<()> {
        let ends = memchr::memchr_iter(b'/', path).chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            if self.merged(part)? {
                continue;
            }
            let (parent, name) = split(part);
            let directory = self.tree.open_inside(parent)?;
            match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lays the link of a merged `/usr` down before anything goes into the directory.
    fn merged(&mut self, path: &[u8]) -> io::Result<bool> {
        if !self.tree.merged_usr || !MERGED.contains(&path) {
            return Ok(false);
        }
        let root = &self.tree.root;
        for (made, directory) in [(b"usr".to_vec(), true), ([b"usr/", path].concat(), true), (path.to_vec(), false)] {
            let result = match directory {
                true => rustix::fs::mkdirat(root, made.as_slice(), Mode::from_raw_mode(0o755)),
                false => rustix::fs::symlinkat([b"usr/", path].concat().as_slice(), root, path),
            };
            match result {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What `openat` could not set: owner, special bits (after the owner, which clears them), attributes, time.
fn finish_file(file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    let owned = entry.uid != 0 || entry.gid != 0;
    if owned {
        rustix::fs::fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    }
    // The umask took what it takes from everyone else's files: group's and others' write.
    if owned || entry.mode & !0o755 != 0 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode as RawMode))?;
    }
    for (name, value) in &entry.xattrs {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(file, &times(entry.mtime))?;
    Ok(())
}

fn own_and_date(directory: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    if entry.uid != 0 || entry.gid != 0 {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::utimensat(directory, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}
