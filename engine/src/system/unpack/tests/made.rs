//! Packages made here, byte by byte, and the ground they are unpacked on.

use std::fs;
use std::io::Write;

use super::super::*;
use crate::debian::{Origin, Priority};
use crate::fetch::FetchOptions;
use crate::units::Digest;

/// Where fields begin in a tar header (POSIX.1-2001, pax, ustar interchange format).
pub(super) const UID: usize = 108;
pub(super) const GID: usize = 116;
pub(super) const SIZE: usize = 124;
pub(super) const MTIME: usize = 136;
pub(super) const PREFIX: usize = 345;

/// A tar header as POSIX has it, then the body.
pub(super) fn member(path: &str, kind: u8, mode: u32, link: &str, body: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &path[..path.len().min(100)]);
    put(100, &format!("{mode:07o}"));
    put(UID, "0000000");
    put(GID, "0000000");
    put(SIZE, &format!("{:011o}", body.len()));
    put(MTIME, &format!("{:011o}", 1_000_000_000));
    put(157, link);
    put(257, "ustar\x0000");
    put(329, "0000001");
    put(337, "0000003");
    header[156] = kind;
    let padding = vec![0; body.len().next_multiple_of(512) - body.len()];
    signed([&header[..], body, &padding].concat())
}

/// The member with the checksum that its header asks for.
pub(super) fn signed(mut member: Vec<u8>) -> Vec<u8> {
    member[148..156].fill(b' ');
    let sum: u32 = member[..512].iter().map(|byte| u32::from(*byte)).sum();
    member[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    member
}

/// The same member with other bytes in its header.
pub(super) fn with(mut member: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    member[at..at + bytes.len()].copy_from_slice(bytes);
    signed(member)
}

pub(super) fn link(path: &str, to: &str) -> Vec<u8> {
    member(path, b'2', 0o777, to, b"")
}

pub(super) fn file(path: &str, body: &str) -> Vec<u8> {
    member(path, b'0', 0o644, "", body.as_bytes())
}

pub(super) fn directory(path: &str) -> Vec<u8> {
    member(path, b'5', 0o755, "", b"")
}

pub(super) fn pax(records: &str) -> Vec<u8> {
    member("pax", b'x', 0o644, "", records.as_bytes())
}

/// `LENGTH KEY=VALUE`, where the length counts itself.
pub(super) fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
    format!("{length}{rest}")
}

pub(super) fn pack(packing: &str, bytes: &[u8]) -> Vec<u8> {
    match packing {
        "" => bytes.to_vec(),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        ".bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        other => panic!("nothing packs as {other}"),
    }
}

pub(super) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", content.len()).bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) fields: &'static str,
    pub(super) control: Vec<(&'static str, &'static str)>,
    pub(super) data: Vec<Vec<u8>>,
    /// Whether the tar ends as it should.
    pub(super) whole: bool,
    /// dpkg cannot run without it.
    pub(super) foundation: bool,
    pub(super) packing: &'static str,
}

pub(super) fn package(name: &'static str, data: Vec<Vec<u8>>) -> Package {
    Package { name, fields: "", control: Vec::new(), data, whole: true, foundation: false, packing: ".gz" }
}

impl Package {
    pub(super) fn deb(&self) -> Vec<u8> {
        let control =
            format!("Package: {}\nVersion: 1\nArchitecture: amd64\n{}Description: a\n b\n", self.name, self.fields);
        let files = [("./control", control.as_str())].into_iter().chain(self.control.iter().copied());
        let end = vec![0; 1024];
        let control: Vec<u8> = files.flat_map(|(name, text)| file(name, text)).chain(end.clone()).collect();
        let mut data: Vec<u8> = self.data.concat();
        if self.whole {
            data.extend(end);
        }
        let [control_name, data_name] = ["control", "data"].map(|name| format!("{name}.tar{}", self.packing));
        let [control, data] = [control, data].map(|bytes| pack(self.packing, &bytes));
        ar(&[("debian-binary", b"2.0\n"), (&control_name, &control), (&data_name, &data)])
    }
}

pub(super) struct Ground {
    pub(super) dir: tempfile::TempDir,
    pub(super) merged_usr: bool,
}

impl Ground {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pool")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir, merged_usr: true }
    }

    pub(super) fn root(&self) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join("root")).unwrap()
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(super) fn unpack(&self, packages: &[Package]) -> Result<Vec<Unpacked>, UnpackError> {
        let debs: Vec<Vec<u8>> = packages.iter().map(Package::deb).collect();
        self.unpack_debs(packages, &debs)
    }

    pub(super) fn unpack_debs(&self, packages: &[Package], debs: &[Vec<u8>]) -> Result<Vec<Unpacked>, UnpackError> {
        let packages = packages.iter().zip(debs).map(|(package, deb)| {
            let filename = format!("pool/{}.deb", package.name);
            fs::write(self.dir.path().join(&filename), deb).unwrap();
            PackageRef {
                name: package.name.to_owned(),
                version: "1".to_owned(),
                architecture: "amd64".to_owned(),
                origin: 0,
                filename,
                size: Bytes(deb.len() as u64),
                sha256: Digest::of(deb),
                essential: false,
                foundation: package.foundation,
                priority: Priority::Optional,
                installed_size: Bytes::ZERO,
                source: package.name.to_owned(),
                section: String::new(),
            }
        });
        let set = PackageSet {
            architecture: "amd64".to_owned(),
            origins: vec![Origin {
                mirrors: vec![format!("file://{}", self.dir.path().display())],
                suite: "iron".to_owned(),
                codename: String::new(),
                components: Vec::new(),
                date: 0,
                signed_by: Vec::new(),
            }],
            packages: packages.collect(),
            merged_usr: self.merged_usr,
            ..PackageSet::default()
        };
        let fetcher = Fetcher::new(&FetchOptions { attempts: 1, ..FetchOptions::default() }).unwrap();
        // Both ways of waiting: in memory and in a file.
        let options = UnpackOptions { memory_file_max: Bytes(900), workers: 3, ..UnpackOptions::default() };
        unpack(&set, &fetcher, &self.root(), &options, &mut |_| ()).map(|(packages, _)| packages)
    }
}
