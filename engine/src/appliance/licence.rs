//! Licences of packages, as far as they can be read by a machine.
//!
//! In: the text of `/usr/share/doc/PACKAGE/copyright`. Out: short names, sorted. Debian policy 12.5;
//! "Machine-readable debian/copyright file" 1.0 (DEP-5).

use std::collections::BTreeSet;

/// The licences that a copyright file names: those of its paragraphs if it is machine-readable, else those of
/// `/usr/share/common-licenses` that it refers to. Empty if nothing can be told.
pub fn licences(copyright: &str) -> Vec<String> {
    let machine_readable = copyright.lines().take_while(|line| !line.trim().is_empty()).any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("format:") || line.starts_with("format-specification:")
    });
    let names: BTreeSet<String> = if machine_readable { of_paragraphs(copyright) } else { of_references(copyright) };
    names.into_iter().collect()
}

fn of_paragraphs(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.get(..8).filter(|key| key.eq_ignore_ascii_case("license:")).map(|_| line[8..].trim()));
    lines.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn of_references(text: &str) -> BTreeSet<String> {
    const FOLDER: &str = "/usr/share/common-licenses/";
    text.match_indices(FOLDER)
        .map(|(at, _)| &text[at + FOLDER.len()..])
        .map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || "-.+".contains(c))).next().unwrap_or_default())
        .map(|name| name.trim_end_matches('.').to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_read_from_both_forms() {
        let dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n\n\
                    Files: x\nlicense: BSD-3-clause\n some text\n\nLicense: GPL-2+\n text\n";
        assert_eq!(licences(dep5), ["BSD-3-clause", "GPL-2+"]);
        let old = "See /usr/share/common-licenses/GPL-2.\nAlso `/usr/share/common-licenses/LGPL-2.1'\n";
        assert_eq!(licences(old), ["GPL-2", "LGPL-2.1"]);
        assert!(licences("All rights reserved.").is_empty());
    }
}
