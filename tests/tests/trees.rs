//! The tree that `castiron bootstrap` makes of the real archive, beside debootstrap's and mmdebstrap's.

#![allow(clippy::disallowed_methods, reason = "the harness starts programs; it is no part of the engine")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use castiron_engine::debian::{ArchiveRequest, Source, gather};
use castiron_engine::fetch::{FetchOptions, Fetcher};
use castiron_engine::units::Digest;
use castiron_tests::http::Server;
use castiron_tests::{host, proxy, rivals};

/// What differs from both on purpose, and why. A path stands for everything below it.
const DIFFERENT: &[(&str, &str)] = &[
    ("/etc/hostname", "the others copy the build host's name"),
    ("/etc/resolv.conf", "the others copy the build host's name servers"),
    ("/run/mount", "a directory that debootstrap's own mount calls leave"),
    ("/var/cache/apt", "packages and indices the others keep or lock; castiron's pass by the target"),
    ("/var/lib/apt", "as above; and apt's list of automatic packages, which only mmdebstrap's use of apt makes"),
    ("/var/cache/ldconfig/aux-cache", "inode numbers and times of the libraries"),
    ("/var/cache/debconf/config.dat-old", "the state before the last change, whichever that was"),
    ("/var/cache/debconf/templates.dat-old", "as above"),
    ("/var/lib/dpkg/status-old", "as above"),
    ("/var/lib/dpkg/diversions-old", "as above"),
    ("/var/lib/dpkg/available", "debootstrap fills it for dselect; apt does not use it"),
    ("/var/lib/dpkg/cmethopt", "debootstrap chooses dselect's method"),
    ("/var/lib/dpkg/arch", "mmdebstrap names the only architecture, which is dpkg's default"),
    ("/var/lib/dpkg/lock", "made by whoever asked last"),
    ("/var/lib/dpkg/lock-frontend", "made by apt when it runs"),
    ("/var/log", "logs tell times, and mmdebstrap removes them"),
    ("/etc/apt/sources.list", "the archives stand in sources.list.d, each with the keys that it is signed by"),
    ("/etc/apt/sources.list.d", "as above"),
];

#[derive(Debug, PartialEq, Eq)]
struct Node {
    mode: u32,
    owner: (u32, u32),
    content: String,
}

fn tree(root: &Path) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let found = path.symlink_metadata().unwrap();
            let name = format!("/{}", path.strip_prefix(root).unwrap().display());
            let kind = found.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if kind.is_file() {
                Digest::of(&comparable(&name, fs::read(&path).unwrap())).to_string()
            } else if kind.is_char_device() || kind.is_block_device() {
                found.rdev().to_string()
            } else {
                if kind.is_dir() {
                    folders.push(path);
                }
                String::new()
            };
            nodes.insert(name, Node { mode: found.mode(), owner: (found.uid(), found.gid()), content });
        }
    }
    nodes
}

/// dpkg's database takes priorities and sections from debootstrap's `available`; the packages' own are as good.
fn comparable(name: &str, content: Vec<u8>) -> Vec<u8> {
    if name != "/var/lib/dpkg/status" {
        return content;
    }
    let text = String::from_utf8(content).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("Priority:") && !line.starts_with("Section:"));
    lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn differences(ours: &Path, theirs: &Path) -> Vec<String> {
    let (ours, theirs) = (tree(ours), tree(theirs));
    let known =
        |path: &str| DIFFERENT.iter().any(|(prefix, _)| path == *prefix || path.starts_with(&format!("{prefix}/")));
    let mut paths: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    paths.sort();
    paths.dedup();
    let differing = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path) && !known(path));
    differing.map(|path| format!("{path}: {:?} here, {:?} there", ours.get(path), theirs.get(path))).collect()
}

/// The real archive, so it takes a minute or two, and it needs root as the tools do.
fn compare(suite: &str, others: &[&str]) {
    let server = Server::start().unwrap();
    proxy::serve(&server, &rivals::host_suite().unwrap()).unwrap();
    let mirror = format!("{}/debian", server.url());
    let folder = host::fresh(&format!("bootstrap-{suite}")).unwrap();
    let ours = folder.join("castiron");
    host::run(&mut rivals::castiron(suite, &mirror, &ours).unwrap()).unwrap();
    for name in others {
        let theirs = folder.join(name);
        host::run(&mut match *name {
            "debootstrap" => rivals::debootstrap(suite, &mirror, &theirs),
            _ => rivals::mmdebstrap(suite, &mirror, &theirs),
        })
        .unwrap();
        let found = differences(&ours, &theirs);
        assert!(found.is_empty(), "against {name}:\n{}", found.join("\n"));
    }
    let inside = |args: &[&str]| host::tool("chroot", [&[ours.to_str().unwrap()], args].concat()).unwrap();
    let sources = fs::read_to_string(ours.join("etc/apt/sources.list.d/castiron.sources")).unwrap();
    assert!(sources.contains("\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"), "{sources}");
    assert_eq!(inside(&["dpkg", "--audit"]), "");
    assert_eq!(inside(&["dpkg", "--verify"]), "");
    inside(&["apt-get", "check"]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_tree_is_debootstraps_and_mmdebstraps() {
    compare(&rivals::host_suite().unwrap(), &["debootstrap", "mmdebstrap"]);
}

/// Where packages that dpkg cannot run without divert files. mmdebstrap's hook for a merged `/usr` adds `usr-is-merged`,
/// which nothing there asks for.
#[test]
fn so_is_that_of_trixie() {
    compare("trixie", &["debootstrap"]);
}

/// By name only, so nothing is unpacked; `standard` is a word of mmdebstrap's alone.
#[test]
fn every_variant_takes_the_packages_that_the_others_take() {
    let suite = rivals::host_suite().unwrap();
    let server = Server::start().unwrap();
    proxy::serve(&server, &suite).unwrap();
    let mirror = format!("{}/debian", server.url());
    let keyring = fs::read("/usr/share/keyrings/debian-archive-keyring.gpg").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(&FetchOptions::default()).unwrap();
    for variant in ["minbase", "buildd", "important", "standard"] {
        let theirs = match variant {
            "standard" => rivals::mmdebstrap_names(&suite, &mirror, variant, &folder.path().join(variant)),
            _ => rivals::debootstrap_names(&suite, &mirror, variant, &folder.path().join(variant)),
        };
        let source =
            Source { mirrors: vec![mirror.clone()], suites: vec![suite.clone()], components: vec!["main".to_owned()] };
        let request = ArchiveRequest {
            sources: vec![source],
            architecture: host::tool("dpkg", ["--print-architecture"]).unwrap().trim().to_owned(),
            variant: Some(variant.parse().unwrap()),
            keyring: keyring.clone(),
            now: jiff::Timestamp::now().as_second(),
            ..ArchiveRequest::default()
        };
        let ours = gather(&request, &fetcher, &|_| ()).unwrap();
        let ours: BTreeSet<String> = ours.packages.into_iter().map(|package| package.name).collect();
        let theirs = theirs.unwrap();
        assert!(theirs.len() > 50, "{variant}: {theirs:?}");
        let [more, less] = [&ours - &theirs, &theirs - &ours];
        assert!(more.is_empty() && less.is_empty(), "{variant}: {more:?} more than theirs, {less:?} less");
    }
}
