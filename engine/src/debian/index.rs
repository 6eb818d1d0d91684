//! A `Packages` index, read as a stream into as little memory as a resolve needs.
//!
//! In: the decompressed text in pieces of any size. Out: one record per package, its texts in a
//! single buffer. Descriptions, tags and the like, two thirds of the text, are dropped on the way.

use super::Priority;
use crate::units::{Bytes, Digest};

/// A text inside [`Index::text`].
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    length: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultiArch {
    #[default]
    No,
    Same,
    Foreign,
    Allowed,
}

#[derive(Clone, Debug, Default)]
struct Record {
    texts: [Span; TEXTS.len()],
    sha256: Option<Digest>,
    size: u64,
    installed_kib: u64,
    priority: Priority,
    essential: bool,
    multi_arch: MultiArch,
}

/// The fields kept as text, in the order of `Record::texts`.
const TEXTS: [&str; 12] = [
    "Package",
    "Version",
    "Architecture",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Conflicts",
    "Breaks",
    "Provides",
    "Filename",
    "Source",
    "Section",
];

/// All packages of one index.
#[derive(Clone, Debug, Default)]
pub struct Index {
    text: Vec<u8>,
    records: Vec<Record>,
}

impl Index {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.records.iter().map(|record| Package { index: self, record })
    }

    /// Reads a whole text at once.
    pub fn parse(text: &[u8]) -> Self {
        let mut builder = Builder::default();
        builder.push(text);
        builder.finish()
    }
}

/// One package of an index. Texts that are absent are empty.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    index: &'a Index,
    record: &'a Record,
}

impl<'a> Package<'a> {
    fn text(&self, field: usize) -> &'a str {
        let Span { start, length } = self.record.texts[field];
        let bytes = &self.index.text[start as usize..][..length as usize];
        // Only ASCII fields are kept, so anything else is damage and matches nothing.
        std::str::from_utf8(bytes).unwrap_or_default()
    }
    pub fn name(&self) -> &'a str {
        self.text(0)
    }
    pub fn version(&self) -> &'a str {
        self.text(1)
    }
    pub fn architecture(&self) -> &'a str {
        self.text(2)
    }
    pub fn pre_depends(&self) -> &'a str {
        self.text(3)
    }
    pub fn depends(&self) -> &'a str {
        self.text(4)
    }
    pub fn recommends(&self) -> &'a str {
        self.text(5)
    }
    pub fn conflicts(&self) -> &'a str {
        self.text(6)
    }
    pub fn breaks(&self) -> &'a str {
        self.text(7)
    }
    pub fn provides(&self) -> &'a str {
        self.text(8)
    }
    pub fn filename(&self) -> &'a str {
        self.text(9)
    }
    /// The source package's name.
    pub fn source(&self) -> &'a str {
        match self.text(10) {
            "" => self.name(),
            source => source.split_once(' ').map_or(source, |(name, _)| name),
        }
    }
    pub fn section(&self) -> &'a str {
        self.text(11)
    }
    pub fn sha256(&self) -> Option<Digest> {
        self.record.sha256
    }
    pub fn size(&self) -> Bytes {
        Bytes(self.record.size)
    }
    pub fn installed_size(&self) -> Bytes {
        Bytes(self.record.installed_kib.saturating_mul(1024))
    }
    pub fn priority(&self) -> Priority {
        self.record.priority
    }
    pub fn essential(&self) -> bool {
        self.record.essential
    }
    pub fn multi_arch(&self) -> MultiArch {
        self.record.multi_arch
    }
}

/// Takes the text piece by piece.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
    record: Record,
    /// The text field that a line starting with a blank continues.
    open: Option<usize>,
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Builder {
    pub fn push(&mut self, mut piece: &[u8]) {
        if !self.partial.is_empty() {
            let Some(end) = memchr::memchr(b'\n', piece) else {
                self.partial.extend_from_slice(piece);
                return;
            };
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&piece[..end]);
            self.line(&line);
            piece = &piece[end + 1..];
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            self.line(&piece[start..end]);
            start = end + 1;
        }
        self.partial.extend_from_slice(&piece[start..]);
    }

    pub fn finish(mut self) -> Index {
        let last = std::mem::take(&mut self.partial);
        self.line(&last);
        self.line(b"");
        self.index.text.shrink_to_fit();
        self.index
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.first() {
            None => self.end_record(),
            Some(b' ' | b'\t') => {
                if let Some(field) = self.open {
                    self.index.text.extend_from_slice(line);
                    self.record.texts[field].length += line.len() as u32;
                }
            }
            // The first letter alone dismisses most of the text.
            Some(b'P' | b'V' | b'A' | b'D' | b'R' | b'C' | b'B' | b'F' | b'S' | b'I' | b'E' | b'M') => self.field(line),
            Some(_) => self.open = None,
        }
    }

    fn end_record(&mut self) {
        self.open = None;
        let record = std::mem::take(&mut self.record);
        // The buffer is addressed with 32 bits; what lies beyond (an absurd index) is not seen.
        if record.texts[0].length > 0 && u32::try_from(self.index.text.len()).is_ok() {
            self.index.records.push(record);
        }
    }

    fn field(&mut self, line: &[u8]) {
        self.open = None;
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        match name {
            b"SHA256" => self.record.sha256 = std::str::from_utf8(value).ok().and_then(Digest::from_hex),
            b"Size" => self.record.size = number(),
            b"Installed-Size" => self.record.installed_kib = number(),
            b"Priority" => self.record.priority = std::str::from_utf8(value).map(Priority::parse).unwrap_or_default(),
            b"Essential" => self.record.essential = value == b"yes",
            b"Multi-Arch" => {
                self.record.multi_arch = match value {
                    b"same" => MultiArch::Same,
                    b"foreign" => MultiArch::Foreign,
                    b"allowed" => MultiArch::Allowed,
                    _ => MultiArch::No,
                }
            }
            _ => {
                let Some(field) = TEXTS.iter().position(|text| text.as_bytes() == name) else { return };
                let start = self.index.text.len() as u32;
                self.index.text.extend_from_slice(value);
                self.record.texts[field] = Span { start, length: value.len() as u32 };
                self.open = Some(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: libx1\nSource: x (1.0)\nVersion: 1.0-1\nEssential: yes\nInstalled-Size: 12\nArchitecture: amd64\n\
        Multi-Arch: same\nDepends: libc6 (>= 2.3),\n z\nDescription: nothing\n of note\nTag: a,\n b\nPriority: required\nSection: libs\n\
        Filename: pool/x.deb\nSize: 7\nSHA256: 6ea03cbbc7a7bfcee601c9fb08d4e026fd522ede5350561f06867ad9c0a0fa6b\n\nPackage: y\nVersion: 2\n";

    #[test]
    fn an_index_is_the_same_in_any_pieces() {
        for piece in [1, 2, 7, 1000] {
            let mut builder = Builder::default();
            TEXT.as_bytes().chunks(piece).for_each(|chunk| builder.push(chunk));
            let index = builder.finish();
            let packages: Vec<_> = index.packages().collect();
            let x = packages[0];
            assert_eq!((x.name(), x.version(), x.architecture(), x.source()), ("libx1", "1.0-1", "amd64", "x"));
            assert_eq!((x.depends(), x.section(), x.filename()), ("libc6 (>= 2.3), z", "libs", "pool/x.deb"));
            assert_eq!((x.size(), x.installed_size(), x.priority()), (Bytes(7), Bytes::kib(12), Priority::Required));
            assert!(x.essential() && x.sha256().is_some() && x.multi_arch() == MultiArch::Same);
            assert_eq!((packages.len(), packages[1].name(), packages[1].source()), (2, "y", "y"));
        }
    }
}
