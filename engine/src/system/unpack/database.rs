//! dpkg's database as dpkg would have left it after `dpkg --unpack` (deb-postinst(5), dpkg(1)).
//!
//! In: what was unpacked. Out: `/var/lib/dpkg` with `status`, `info/*` and `triggers/*`.
//! Invariant: conffiles already have their final names, and `status` carries their digests, so dpkg
//! takes them as configured and asks nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use super::Unpacked;
use super::tree::Writer;

pub(super) const INFO: &str = "var/lib/dpkg/info";

/// Writes everything but the packages' own info files, which [`write_info`] does.
pub(super) fn write(
    writer: &mut Writer<'_>,
    packages: &[Unpacked],
    architecture: &str,
    foreign: &[String],
) -> io::Result<()> {
    let status: String = packages.iter().filter(|package| !package.postponed).map(status_entry).collect();
    let mut put = |path: &str, content: &str| {
        writer.write(format!("var/lib/dpkg/{path}").as_bytes(), 0o644, None, content.as_bytes())
    };
    put("status", &status)?;
    put("available", "")?;
    put("info/format", "1\n")?;
    if !foreign.is_empty() {
        let all: String = [architecture]
            .into_iter()
            .chain(foreign.iter().map(String::as_str))
            .map(|name| format!("{name}\n"))
            .collect();
        put("arch", &all)?;
    }
    for (path, content) in triggers(packages) {
        put(&path, &content)?;
    }
    Ok(())
}

/// `info/PACKAGE.*`: the control member's files and the list of what was unpacked.
pub(super) fn write_info(writer: &mut Writer<'_>, package: &Unpacked) -> io::Result<()> {
    let base = format!("{INFO}/{}", package.info_name);
    let mut list = Vec::with_capacity(package.paths.iter().map(|path| path.len() + 2).sum());
    for path in &package.paths {
        list.push(b'/');
        list.extend_from_slice(if path.is_empty() { b"." } else { path });
        list.push(b'\n');
    }
    writer.write(format!("{base}.list").as_bytes(), 0o644, None, &list)?;
    for file in package.control.files.iter().filter(|file| file.name != "control") {
        let script = matches!(file.name.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
        let mode = if script { 0o755 } else { 0o644 };
        writer.write(format!("{base}.{}", file.name).as_bytes(), mode, Some(file.mtime), &file.content)?;
    }
    if let Some(sums) = &package.computed_sums {
        writer.write(format!("{base}.md5sums").as_bytes(), 0o644, None, sums.as_bytes())?;
    }
    Ok(())
}

/// The control file with its state and the digests of its conffiles.
fn status_entry(package: &Unpacked) -> String {
    let control = package.control.text("control").unwrap_or_default();
    let mut entry = String::with_capacity(control.len() + 200);
    let mut lines = control.lines().filter(|line| !line.is_empty());
    entry.push_str(lines.next().unwrap_or_default());
    entry.push_str("\nStatus: install ok unpacked\n");
    for line in lines {
        entry.push_str(line);
        entry.push('\n');
    }
    if !package.conffiles.is_empty() {
        entry.push_str("Conffiles:\n");
        for (path, digest) in &package.conffiles {
            writeln!(entry, " {path} {digest}").expect("writing to a string cannot fail");
        }
    }
    entry.push('\n');
    entry
}

/// Interests by trigger: paths share the file `File`, names have one each (deb-triggers(5)).
fn triggers(packages: &[Unpacked]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for package in packages.iter().filter(|package| !package.postponed) {
        let Some(text) = package.control.text("triggers") else { continue };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
            let suffix = match directive {
                "interest" | "interest-await" => "",
                "interest-noawait" => "/noawait",
                _ => continue,
            };
            let (file, line) = match trigger.starts_with('/') {
                true => ("triggers/File".to_owned(), format!("{trigger} {}{suffix}\n", package.info_name)),
                false if trigger.contains('/') => continue,
                false => (format!("triggers/{trigger}"), format!("{}{suffix}\n", package.info_name)),
            };
            files.entry(file).or_insert_with(String::new).push_str(&line);
        }
    }
    files
}
