//! Tar as dpkg-deb writes it: ustar headers, GNU long names. Out: bytes; the same tree always gives the same bytes.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::host::{Result, Subject};

/// All times in the toy archive: a fixed moment in 2026.
pub const MTIME_SECONDS: u64 = 1_767_225_600;

const BLOCK: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder,
    File(Vec<u8>),
    Symlink(String),
    /// To another member, by its path from the top.
    Hardlink(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: Node,
    pub mode: u32,
    pub user: u32,
    pub group: u32,
}

/// Paths from the top, without a slash in front.
#[derive(Clone, Debug, Default)]
pub struct Tree(pub BTreeMap<String, Member>);

impl Tree {
    pub fn add(mut self, path: &str, mode: u32, node: Node) -> Self {
        self.insert(path, Member { node, mode, user: 0, group: 0 });
        self
    }

    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.add(path, mode, Node::File(content.into()))
    }

    pub fn symlink(self, path: &str, to: &str) -> Self {
        self.add(path, 0o777, Node::Symlink(to.to_owned()))
    }

    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.add(path, mode, Node::Folder)
    }

    /// The folders above come with it.
    pub fn insert(&mut self, path: &str, member: Member) {
        let mut above = String::new();
        for part in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            above = if above.is_empty() { part.to_owned() } else { format!("{above}/{part}") };
            let folder = Member { node: Node::Folder, mode: 0o755, user: 0, group: 0 };
            self.0.entry(above.clone()).or_insert(folder);
        }
        self.0.insert(path.to_owned(), member);
    }

    /// What lies below `top` and `keep` wants, with modes and owners; owners that this host made up become root.
    pub fn read(top: &Path, keep: impl Fn(&str) -> bool) -> Result<Self> {
        let mut tree = Self::default();
        let mut seen: BTreeMap<u64, String> = BTreeMap::new();
        tree.read_below(top, "", &keep, &mut seen)?;
        Ok(tree)
    }

    fn read_below(
        &mut self,
        top: &Path,
        below: &str,
        keep: &impl Fn(&str) -> bool,
        seen: &mut BTreeMap<u64, String>,
    ) -> Result<()> {
        let folder = top.join(below);
        let entries = std::fs::read_dir(&folder).on(folder.display())?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        for name in names {
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let full = top.join(&path);
            let meta = full.symlink_metadata().on(full.display())?;
            if meta.is_dir() {
                self.read_below(top, &path, keep, seen)?;
                continue;
            }
            if !keep(&path) {
                continue;
            }
            let node = match (meta.is_symlink(), seen.get(&meta.ino())) {
                (true, _) => {
                    Node::Symlink(std::fs::read_link(&full).on(full.display())?.to_string_lossy().into_owned())
                }
                (false, Some(first)) if meta.nlink() > 1 => Node::Hardlink(first.clone()),
                (false, _) => Node::File(std::fs::read(&full).on(full.display())?),
            };
            seen.entry(meta.ino()).or_insert_with(|| path.clone());
            self.insert(&path, Member { node, mode: meta.mode() & 0o7777, user: meta.uid(), group: meta.gid() });
        }
        Ok(())
    }

    /// The whole archive, every path with `./` in front.
    pub fn to_tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let top = Member { node: Node::Folder, mode: 0o755, user: 0, group: 0 };
        header(&mut out, "./", &top);
        for (path, member) in &self.0 {
            let slash = if member.node == Node::Folder { "/" } else { "" };
            header(&mut out, &format!("./{path}{slash}"), member);
            if let Node::File(content) = &member.node {
                out.extend(content);
                pad(&mut out);
            }
        }
        out.resize(out.len() + 2 * BLOCK, 0);
        out
    }

    pub fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter().filter_map(|(path, member)| match &member.node {
            Node::File(content) => Some((path, content)),
            Node::Folder | Node::Symlink(_) | Node::Hardlink(_) => None,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, content)| content.len() as u64).sum()
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn header(out: &mut Vec<u8>, path: &str, member: &Member) {
    let (kind, link, size) = match &member.node {
        Node::Folder => (b'5', String::new(), 0),
        Node::File(content) => (b'0', String::new(), content.len()),
        Node::Symlink(to) => (b'2', to.clone(), 0),
        Node::Hardlink(to) => (b'1', format!("./{to}"), 0),
    };
    for (kind, text) in [(b'K', &link[..]), (b'L', path)] {
        if text.len() > 100 {
            block(out, "././@LongLink", kind, "", text.len() + 1, &Member { mode: 0, ..member.clone() });
            out.extend(text.as_bytes());
            out.push(0);
            pad(out);
        }
    }
    block(out, path, kind, &link, size, member);
}

fn block(out: &mut Vec<u8>, path: &str, kind: u8, link: &str, size: usize, member: &Member) {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = length.min(bytes.len());
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, path.as_bytes());
    put(100, 8, format!("{:07o}", member.mode).as_bytes());
    put(108, 8, format!("{:07o}", member.user).as_bytes());
    put(116, 8, format!("{:07o}", member.group).as_bytes());
    put(124, 12, format!("{size:011o}").as_bytes());
    put(136, 12, format!("{MTIME_SECONDS:011o}").as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link.as_bytes());
    put(257, 8, b"ustar  \0");
    put(265, 32, b"root");
    put(297, 32, b"root");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(block);
}

/// `newc` cpio, as the kernel unpacks it. Hard links are not needed there.
pub fn to_cpio(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let trailer = ("TRAILER!!!".to_owned(), Member { node: Node::Folder, mode: 0, user: 0, group: 0 });
    let members = tree.0.iter().chain(std::iter::once((&trailer.0, &trailer.1)));
    let mut inode = 0;
    for (path, member) in members {
        inode += 1;
        let (kind, content) = match &member.node {
            Node::Folder => (0o040_000, &[][..]),
            Node::File(content) => (0o100_000, &content[..]),
            Node::Symlink(to) => (0o120_000, to.as_bytes()),
            Node::Hardlink(_) => continue,
        };
        let mode = if path == "TRAILER!!!" { 0 } else { kind | member.mode };
        let name = path.len() + 1;
        let numbers = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name as u32, 0];
        out.extend(b"070701");
        for number in numbers {
            write!(out, "{number:08x}").expect("memory takes all");
        }
        out.extend(path.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
