//! Programs with everything the dynamic linker will look for (ld.so(8)).
//!
//! In: an overlay and paths in it. Out: every file and link needed to run them.
//! Invariant: a library that is not in the overlay is an error here, not a surprise on the machine.

use std::collections::BTreeSet;

use thiserror::Error;

use super::elf::{Elf, ElfError};
use super::overlay::{Overlay, OverlayError, canonical};

#[derive(Debug, Error)]
pub enum LibraryError {
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error("cannot read {path}")]
    Elf {
        path: String,
        #[source]
        cause: ElfError,
    },
    #[error("{path} needs {library}, which none of the packages has")]
    Missing { path: String, library: String },
}

/// The folders that ld.so searches without being told.
const DEFAULT_SEARCH: &[&str] = &["/usr/lib/MULTIARCH", "/usr/lib", "/usr/lib64"];

/// The paths of `programs`, their interpreters and their libraries, links included. `multiarch` is Debian's folder
/// name for the architecture, such as `x86_64-linux-gnu`.
pub fn closure(overlay: &Overlay, programs: &[&str], multiarch: &str) -> Result<BTreeSet<String>, LibraryError> {
    let mut wanted: Vec<String> = programs.iter().map(|path| canonical(path)).collect();
    let mut taken = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        let found = overlay.get(&path)?;
        taken.extend(found.links.into_iter().map(|(link, _)| link));
        if !taken.insert(found.path.clone()) {
            continue;
        }
        let bytes = found.item.read()?;
        wanted.extend(match Elf::parse(&bytes) {
            Ok(elf) => needed(overlay, &elf, &found.path, multiarch)?,
            Err(_) => script_interpreter(&bytes).into_iter().collect(),
        });
    }
    Ok(taken)
}

fn needed(overlay: &Overlay, elf: &Elf, path: &str, multiarch: &str) -> Result<Vec<String>, LibraryError> {
    let needs = elf.needs().map_err(|cause| LibraryError::Elf { path: path.to_owned(), cause })?;
    let origin = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let own = needs.search.iter().map(|folder| folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin));
    let default = DEFAULT_SEARCH.iter().map(|folder| folder.replace("MULTIARCH", multiarch));
    let folders: Vec<String> = own.chain(default).collect();
    let mut paths: Vec<String> = needs.interpreter.iter().map(|path| canonical(path)).collect();
    for library in needs.libraries {
        let places = folders.iter().map(|folder| canonical(&format!("{folder}/{library}")));
        let mut present = None;
        for place in places {
            if overlay.find(&place)?.is_some() {
                present = Some(place);
                break;
            }
        }
        paths.push(present.ok_or_else(|| LibraryError::Missing { path: path.to_owned(), library })?);
    }
    Ok(paths)
}

/// The program of a `#!` line, see execve(2).
fn script_interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.split_whitespace().next().map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::overlay::Package;

    /// A little-endian 64-bit ELF file with a program header for its dynamic section.
    fn program(libraries: &[&str], runpath: &str) -> Vec<u8> {
        let mut strings = vec![0];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let mut dynamic: Vec<(u64, u64)> = libraries.iter().map(|library| (1, add(library))).collect();
        dynamic.push((29, add(runpath)));
        const HEADERS: usize = 64 + 2 * 56;
        let strings_at = HEADERS + (dynamic.len() + 2) * 16;
        dynamic.extend([(5, strings_at as u64), (0, 0)]);
        let total = strings_at + strings.len();
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1];
        file.resize(HEADERS, 0);
        file[0x20] = 64;
        file[0x36] = 56;
        file[0x38] = 2;
        let mut header = |index: usize, kind: u8, offset: usize, size: usize| {
            let at = 64 + index * 56;
            file[at] = kind;
            for (field, value) in [(0x08, offset), (0x10, offset), (0x20, size)] {
                file[at + field..at + field + 8].copy_from_slice(&(value as u64).to_le_bytes());
            }
        };
        header(0, 1, 0, total);
        header(1, 2, HEADERS, dynamic.len() * 16);
        for (tag, value) in dynamic {
            file.extend_from_slice(&tag.to_le_bytes());
            file.extend_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(&strings);
        file
    }

    fn overlay(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Overlay) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let package = Package { name: "p".into(), version: "1".into(), architecture: "amd64".into(), sha256: None };
        let overlay = Overlay::read([(package, root.path().to_owned())]).unwrap();
        (root, overlay)
    }

    #[test]
    fn a_program_brings_its_libraries_wherever_they_lie() {
        let (_root, overlay) = overlay(&[
            ("sbin/mke2fs", program(&["libext2fs.so.2", "libown.so"], "$ORIGIN/../lib/own")),
            ("lib/x86_64-linux-gnu/libext2fs.so.2", program(&["libc.so.6"], "")),
            ("usr/lib/own/libown.so", program(&["libc.so.6"], "")),
            ("usr/lib/libc.so.6", program(&[], "")),
            ("usr/bin/helper", b"#! /sbin/mke2fs -x\n".to_vec()),
        ]);
        let files: Vec<_> = closure(&overlay, &["/usr/bin/helper"], "x86_64-linux-gnu").unwrap().into_iter().collect();
        assert_eq!(
            files,
            [
                "usr/bin/helper",
                "usr/lib/libc.so.6",
                "usr/lib/own/libown.so",
                "usr/lib/x86_64-linux-gnu/libext2fs.so.2",
                "usr/sbin/mke2fs"
            ]
        );
    }

    #[test]
    fn a_missing_library_is_named() {
        let (_root, overlay) = overlay(&[("sbin/mke2fs", program(&["libext2fs.so.2"], ""))]);
        let error = closure(&overlay, &["/sbin/mke2fs"], "x86_64-linux-gnu").unwrap_err();
        assert_eq!(error.to_string(), "usr/sbin/mke2fs needs libext2fs.so.2, which none of the packages has");
    }
}
