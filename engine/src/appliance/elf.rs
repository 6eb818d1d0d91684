//! What the appliance build asks an ELF file: its sections, and what it needs at run time.
//!
//! In: the bytes of a file. Out: borrowed parts of them. System V ABI, chapters 4 and 5 (little-endian, 32 and 64 bit).
//! Invariant: no offset of the file is trusted; a file that points outside itself is an error.

use thiserror::Error;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    #[error("not an ELF file")]
    NotElf,
    #[error("a big-endian ELF file, which no supported machine uses")]
    BigEndian,
    #[error("damaged ELF file: {0} lies outside of it")]
    OutOfRange(&'static str),
}

/// What the dynamic linker will look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The program that loads this one (`PT_INTERP`).
    pub interpreter: Option<String>,
    /// Library names (`DT_NEEDED`).
    pub libraries: Vec<String>,
    /// Folders to search first (`DT_RUNPATH`, else `DT_RPATH`), `$ORIGIN` not yet replaced.
    pub search: Vec<String>,
}

/// An ELF file, header checked.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
}

struct Header {
    kind: u32,
    offset: u64,
    size: u64,
    address: u64,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

impl<'a> Elf<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        match bytes.get(..6) {
            Some([0x7f, b'E', b'L', b'F', class @ (1 | 2), 1]) => Ok(Self { bytes, wide: *class == 2 }),
            Some([0x7f, b'E', b'L', b'F', _, 2]) => Err(ElfError::BigEndian),
            _ => Err(ElfError::NotElf),
        }
    }

    /// The content of the section called `name`, or `None` if there is no such section.
    pub fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ElfError> {
        let what = "the section table";
        let (table, entry_size, count, names_index) = match self.wide {
            true => (
                self.word(0x28, 8, what)?,
                self.word(0x3a, 2, what)?,
                self.word(0x3c, 2, what)?,
                self.word(0x3e, 2, what)?,
            ),
            false => (
                self.word(0x20, 4, what)?,
                self.word(0x2e, 2, what)?,
                self.word(0x30, 2, what)?,
                self.word(0x32, 2, what)?,
            ),
        };
        let section = |index: u64| -> Result<(u64, &'a [u8]), ElfError> {
            let at = index
                .checked_mul(entry_size)
                .and_then(|skip| table.checked_add(skip))
                .ok_or(ElfError::OutOfRange(what))?;
            let (offset, size) = match self.wide {
                true => (self.word(at.saturating_add(0x18), 8, what)?, self.word(at.saturating_add(0x20), 8, what)?),
                false => (self.word(at.saturating_add(0x10), 4, what)?, self.word(at.saturating_add(0x14), 4, what)?),
            };
            const NOBITS: u64 = 8;
            let empty = self.word(at.saturating_add(4), 4, what)? == NOBITS;
            Ok((self.word(at, 4, what)?, if empty { &[] } else { self.slice(offset, size, "a section")? }))
        };
        if count == 0 {
            return Ok(None);
        }
        let (_, names) = section(names_index)?;
        for index in 0..count {
            let (name_at, content) = section(index)?;
            if text_at(names, name_at) == Some(name) {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// What the file needs to run; a static program needs nothing.
    pub fn needs(&self) -> Result<Needs, ElfError> {
        let headers = self.program_headers()?;
        let mut needs = Needs::default();
        if let Some(header) = headers.iter().find(|header| header.kind == PT_INTERP) {
            needs.interpreter =
                text_at(self.slice(header.offset, header.size, "the interpreter")?, 0).map(str::to_owned);
        }
        let Some(dynamic) = headers.iter().find(|header| header.kind == PT_DYNAMIC) else { return Ok(needs) };
        let entries = self.slice(dynamic.offset, dynamic.size, "the dynamic section")?;
        let width = if self.wide { 8 } else { 4 };
        let entries: Vec<(u64, u64)> = entries
            .chunks_exact(2 * width)
            .map(|entry| (little_endian(&entry[..width]), little_endian(&entry[width..])))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(needs) };
        let strings = headers
            .iter()
            .filter(|header| {
                header.kind == PT_LOAD
                    && header.address <= *strings
                    && *strings < header.address.saturating_add(header.size)
            })
            .find_map(|header| self.bytes.get((header.offset + (strings - header.address)) as usize..))
            .ok_or(ElfError::OutOfRange("the string table"))?;
        let texts = |wanted: u64| {
            entries.iter().filter(move |(tag, _)| *tag == wanted).filter_map(|(_, at)| text_at(strings, *at))
        };
        needs.libraries = texts(DT_NEEDED).map(str::to_owned).collect();
        let search = texts(DT_RUNPATH).next().or_else(|| texts(DT_RPATH).next()).unwrap_or_default();
        needs.search = search.split(':').filter(|folder| !folder.is_empty()).map(str::to_owned).collect();
        Ok(needs)
    }

    fn program_headers(&self) -> Result<Vec<Header>, ElfError> {
        let what = "the program headers";
        let (table, entry_size, count) = match self.wide {
            true => (self.word(0x20, 8, what)?, self.word(0x36, 2, what)?, self.word(0x38, 2, what)?),
            false => (self.word(0x1c, 4, what)?, self.word(0x2a, 2, what)?, self.word(0x2c, 2, what)?),
        };
        let read = |index: u64| {
            let at = table.saturating_add(index * entry_size);
            let kind = self.word(at, 4, what)? as u32;
            let (offset, address, size) = if self.wide { (0x08, 0x10, 0x20) } else { (0x04, 0x08, 0x10) };
            let width = if self.wide { 8 } else { 4 };
            let field = |skip: u64| self.word(at.saturating_add(skip), width, what);
            Ok(Header { kind, offset: field(offset)?, size: field(size)?, address: field(address)? })
        };
        (0..count).map(read).collect()
    }

    fn slice(&self, offset: u64, size: u64, what: &'static str) -> Result<&'a [u8], ElfError> {
        let end = offset.checked_add(size).ok_or(ElfError::OutOfRange(what))?;
        self.bytes.get(offset as usize..end as usize).ok_or(ElfError::OutOfRange(what))
    }

    fn word(&self, offset: u64, width: u64, what: &'static str) -> Result<u64, ElfError> {
        self.slice(offset, width, what).map(little_endian)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The text that starts at `offset` and ends before the next zero byte.
fn text_at(bytes: &[u8], offset: u64) -> Option<&str> {
    let bytes = bytes.get(usize::try_from(offset).ok()?..)?;
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_program_can_be_read() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        assert!(!elf.section(".text").unwrap().unwrap().is_empty());
        assert_eq!(elf.section(".no-such-section").unwrap(), None);
        assert_eq!(elf.needs().unwrap().interpreter, None, "the tests are linked statically");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let head = &bytes[..4096];
        assert_eq!(Elf::parse(head).unwrap().section(".text"), Err(ElfError::OutOfRange("the section table")));
        assert_eq!(Elf::parse(b"#!/bin/sh\n").unwrap_err(), ElfError::NotElf);
        for length in 0..64 {
            if let Ok(elf) = Elf::parse(&bytes[..length]) {
                assert!(elf.section(".text").is_err() && elf.needs().is_err(), "{length} bytes");
            }
        }
    }
}
