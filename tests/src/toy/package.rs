//! A binary package as bytes: `deb(5)`, `deb-control(5)`. In: fields, files, scripts. Out: a `.deb`.

use std::io::Write;

use super::tar::{Node, Tree};
use crate::host::{Result, Subject};

/// How `data.tar` is compressed; the archive holds all three, so that all three are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Xz,
    Zstd,
    Gzip,
}

#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: &'static str,
    /// Further fields of the control file, in order.
    pub fields: Vec<(String, String)>,
    pub tree: Tree,
    /// `postinst`, `triggers`, `conffiles` and the like.
    pub control_files: Vec<(&'static str, String)>,
    pub codec: Codec,
}

impl Package {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            architecture: "amd64",
            fields: Vec::new(),
            tree: Tree::default(),
            control_files: Vec::new(),
            codec: Codec::Xz,
        }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn essential(self) -> Self {
        self.field("Essential", "yes").field("Priority", "required")
    }

    pub fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.tree = self.tree.file(path, mode, content);
        self
    }

    pub fn symlink(mut self, path: &str, to: &str) -> Self {
        self.tree = self.tree.symlink(path, to);
        self
    }

    pub fn script(mut self, name: &'static str, text: &str) -> Self {
        self.control_files.push((name, format!("#!/bin/sh\nset -e\n{text}\n")));
        self
    }

    pub fn control_file(mut self, name: &'static str, text: &str) -> Self {
        self.control_files.push((name, text.to_owned()));
        self
    }

    pub fn codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The control file: the package's own stanza, as it also stands in `Packages`.
    pub fn control(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Nobody <nobody@example.org>\nInstalled-Size: {}\n",
            self.name,
            self.version,
            self.architecture,
            self.tree.bytes().div_ceil(1024),
        );
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push_str(&format!("Description: toy package {}\n", self.name));
        text
    }

    /// Where it lies below the archive's top.
    pub fn filename(&self) -> String {
        let version = self.version.split_once(':').map_or(&self.version[..], |(_, rest)| rest);
        format!("pool/main/{}_{version}_{}.deb", self.name, self.architecture)
    }

    pub fn to_deb(&self) -> Result<Vec<u8>> {
        let mut control = Tree::default().file("control", 0o644, self.control());
        for (name, text) in &self.control_files {
            let mode = if matches!(*name, "preinst" | "postinst" | "prerm" | "postrm") { 0o755 } else { 0o644 };
            control = control.add(name, mode, Node::File(text.clone().into_bytes()));
        }
        let (suffix, data) = match self.codec {
            Codec::Xz => ("xz", xz(&self.tree.to_tar())?),
            Codec::Zstd => ("zst", zstd::encode_all(&self.tree.to_tar()[..], 3).on(&self.name)?),
            Codec::Gzip => ("gz", gzip(&self.tree.to_tar())?),
        };
        let mut deb = b"!<arch>\n".to_vec();
        ar_member(&mut deb, "debian-binary", b"2.0\n");
        ar_member(&mut deb, "control.tar.gz", &gzip(&control.to_tar())?);
        ar_member(&mut deb, &format!("data.tar.{suffix}"), &data);
        Ok(deb)
    }
}

pub fn xz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).on("xz")?;
    encoder.finish().on("xz")
}

pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).on("gzip")?;
    encoder.finish().on("gzip")
}

fn ar_member(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mtime = super::tar::MTIME_SECONDS;
    writeln!(out, "{name:<16}{mtime:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, "100644", content.len())
        .expect("memory takes all");
    out.extend(content);
    if out.len() % 2 == 1 {
        out.push(b'\n');
    }
}
