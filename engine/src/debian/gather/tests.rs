//! Against small archives made and signed here, on disk, read by `file:` URLs.

use std::fs;
use std::io::Write;

use sequoia_openpgp::cert::CertBuilder;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::serialize::stream::{Message, Signer};
use sequoia_openpgp::{Cert, types::HashAlgorithm};

use super::*;
use crate::fetch::FetchOptions;
use crate::units::Digest;

const NOW: i64 = 1_795_000_000; // 18 November 2026
const DAY: i64 = 86_400;

fn key(name: &str) -> Cert {
    CertBuilder::general_purpose(Some(name))
        .set_creation_time(std::time::UNIX_EPOCH + std::time::Duration::from_secs((NOW - 100 * DAY) as u64))
        .set_validity_period(None)
        .generate()
        .unwrap()
        .0
}

fn sign(cert: &Cert, text: &str, clear: bool) -> Vec<u8> {
    let policy = StandardPolicy::new();
    let keypair = cert
        .keys()
        .with_policy(&policy, None)
        .for_signing()
        .secret()
        .next()
        .unwrap()
        .key()
        .clone()
        .into_keypair()
        .unwrap();
    let mut out = Vec::new();
    let message = Message::new(&mut out);
    let signer = Signer::new(message, keypair).unwrap().hash_algo(HashAlgorithm::SHA256).unwrap();
    let signer = signer.creation_time(std::time::UNIX_EPOCH + std::time::Duration::from_secs((NOW - DAY) as u64));
    let mut signer = if clear { signer.cleartext().build().unwrap() } else { signer.detached().build().unwrap() };
    signer.write_all(text.as_bytes()).unwrap();
    signer.finalize().unwrap();
    out
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

/// An archive with one suite, one component, and the packages of `packages`.
struct Archive {
    dir: tempfile::TempDir,
    cert: Cert,
    packages: String,
    release: String,
}

impl Archive {
    fn new() -> Self {
        let packages = format!(
            "Package: toy\nVersion: 1.0-1\nArchitecture: amd64\nFilename: pool/toy.deb\nSize: 3\nSHA256: {}\nPriority: required\n\n\
             Package: apt\nVersion: 2\nArchitecture: amd64\nFilename: pool/apt.deb\nSize: 3\nSHA256: {}\n",
            Digest::of(b"toy").hex(),
            Digest::of(b"apt").hex(),
        );
        let release = format!(
            "Suite: stable\nCodename: iron\nDate: {}\nValid-Until: {}\nArchitectures: amd64\nComponents: main\nAcquire-By-Hash: yes\nSHA256:\n \
             {} {} main/binary-amd64/Packages\n",
            date(NOW - DAY),
            date(NOW + DAY),
            Digest::of(packages.as_bytes()).hex(),
            packages.len(),
        );
        Self { dir: tempfile::tempdir().unwrap(), cert: key("toy archive"), packages, release }
    }

    fn suite(&self) -> std::path::PathBuf {
        self.dir.path().join("dists/iron")
    }

    fn write(&self) {
        let index = self.suite().join("main/binary-amd64");
        fs::create_dir_all(&index).unwrap();
        fs::write(index.join("Packages"), &self.packages).unwrap();
        fs::write(self.suite().join("InRelease"), sign(&self.cert, &self.release, true)).unwrap();
    }

    fn request(&self) -> ArchiveRequest {
        ArchiveRequest {
            sources: vec![Source {
                mirrors: vec![format!("file://{}/", self.dir.path().display())],
                suites: vec!["iron".to_owned()],
                components: vec!["main".to_owned()],
            }],
            architecture: "amd64".to_owned(),
            variant: Some(Variant::Minbase),
            keyring: self.cert.to_vec().unwrap(),
            now: NOW,
            ..ArchiveRequest::default()
        }
    }

    fn gather(&self, change: impl FnOnce(&mut ArchiveRequest)) -> Result<PackageSet, ArchiveError> {
        let mut request = self.request();
        change(&mut request);
        gather(&request, &Fetcher::new(&FetchOptions { attempts: 1, ..FetchOptions::default() }).unwrap(), &|_| ())
    }

    fn refused(&self, change: impl FnOnce(&mut ArchiveRequest)) -> &'static str {
        self.gather(change).unwrap_err().rule()
    }
}

fn flip(path: &std::path::Path, mark: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = memchr::memmem::find(&bytes, mark.as_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_archive_yields_its_packages() {
    let archive = Archive::new();
    archive.write();
    let set = archive.gather(|_| ()).unwrap();
    assert_eq!(set.packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["apt", "toy"]);
    assert_eq!(set.origins[0].signed_by, [archive.cert.fingerprint().to_hex()]);
    assert_eq!(set.urls(&set.packages[1]), [format!("file://{}/pool/toy.deb", archive.dir.path().display())]);
    let copy: PackageSet = serde_json::from_str(&serde_json::to_string(&set).unwrap()).unwrap();
    assert_eq!(copy, set, "a set is data");
}

#[test]
fn an_armored_keyring_of_several_keys_serves_too() {
    let archive = Archive::new();
    archive.write();
    let armored = |cert: &Cert| cert.armored().to_vec().unwrap();
    archive.gather(|request| request.keyring = [armored(&key("other")), armored(&archive.cert)].concat()).unwrap();
}

#[test]
fn a_signature_beside_serves_too() {
    let archive = Archive::new();
    archive.write();
    fs::remove_file(archive.suite().join("InRelease")).unwrap();
    fs::write(archive.suite().join("Release"), &archive.release).unwrap();
    fs::write(archive.suite().join("Release.gpg"), sign(&archive.cert, &archive.release, false)).unwrap();
    archive.gather(|_| ()).unwrap();
    flip(&archive.suite().join("Release"), "Codename");
    assert_eq!(archive.refused(|_| ()), "archive.signature");
}

#[test]
fn every_packed_form_of_an_index_is_read() {
    let mut archive = Archive::new();
    let packed: [(&str, Vec<u8>); 3] = [
        (".zst", zstd::encode_all(archive.packages.as_bytes(), 1).unwrap()),
        (".gz", {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(archive.packages.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }),
        (".xz", {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(archive.packages.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }),
    ];
    let plain = archive.release.clone();
    for (suffix, bytes) in packed {
        archive.release =
            format!("{plain} {} {} main/binary-amd64/Packages{suffix}\n", Digest::of(&bytes).hex(), bytes.len());
        archive.write();
        let by_hash = archive.suite().join("main/binary-amd64/by-hash/SHA256");
        fs::create_dir_all(&by_hash).unwrap();
        fs::write(by_hash.join(Digest::of(&bytes).hex()), &bytes).unwrap();
        fs::remove_file(archive.suite().join("main/binary-amd64/Packages")).unwrap();
        assert_eq!(archive.gather(|_| ()).unwrap().packages.len(), 2, "{suffix}");
    }
}

#[test]
fn one_flipped_bit_is_refused_by_name() {
    let archive = Archive::new();
    archive.write();
    flip(&archive.suite().join("InRelease"), "Codename");
    assert_eq!(archive.refused(|_| ()), "archive.signature");
    archive.write();
    flip(&archive.suite().join("main/binary-amd64/Packages"), "toy");
    assert_eq!(archive.refused(|_| ()), "fetch.digest");
}

#[test]
fn time_is_respected() {
    let archive = Archive::new();
    archive.write();
    assert_eq!(archive.refused(|request| request.now = NOW + 2 * DAY), "archive.expired");
    archive.gather(|request| (request.now, request.ignore_valid_until) = (NOW + 2 * DAY, true)).unwrap();
    assert_eq!(archive.refused(|request| request.date_floor = Some(NOW)), "archive.replayed");
    archive.gather(|request| request.date_floor = Some(NOW - DAY)).unwrap();
    let mut tomorrow = Archive::new();
    tomorrow.release = tomorrow.release.replace(&date(NOW - DAY), &date(NOW + DAY));
    tomorrow.write();
    assert_eq!(tomorrow.refused(|_| ()), "archive.future");
    let mut soon = Archive::new();
    soon.release = soon.release.replace(&date(NOW - DAY), &date(NOW + DAY / 2));
    soon.write();
    soon.gather(|_| ()).unwrap();
}

/// An old state that is still valid is a replay once a newer one was seen, by whichever mirror.
#[test]
fn what_is_older_than_what_was_seen_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new(folder.path().join("releases").to_str().unwrap());
    let with = |request: &mut ArchiveRequest| request.memory = Some(memory.clone());
    let mut archive = Archive::new();
    archive.write();
    let yesterday = archive.release.clone();
    archive.gather(with).unwrap();
    archive.gather(with).unwrap();

    archive.release = yesterday.replace(&date(NOW - DAY), &date(NOW - DAY / 2));
    archive.write();
    // What is not believed is not remembered.
    flip(&archive.suite().join("main/binary-amd64/Packages"), "toy");
    assert_eq!(archive.refused(with), "fetch.digest");
    archive.release.clone_from(&yesterday);
    archive.write();
    archive.gather(with).unwrap();

    archive.release = yesterday.replace(&date(NOW - DAY), &date(NOW - DAY / 2));
    archive.write();
    let handed_on = folder.path().join("handed-on").to_str().unwrap().to_owned();
    archive.gather(|request| request.memory = Some(memory.clone().and(&handed_on))).unwrap();
    archive.release = yesterday;
    archive.write();
    assert_eq!(archive.refused(|request| request.memory = Some(Memory::new(&handed_on))), "archive.replayed");
    let error = archive.gather(with).unwrap_err();
    assert_eq!(error.rule(), "archive.replayed");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("2026-11-"), "{error:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(archive.dir.path().join("dists"), elsewhere.path().join("dists")).unwrap();
    let mirror = format!("file://{}", elsewhere.path().display());
    let from_elsewhere = |request: &mut ArchiveRequest| {
        with(request);
        request.sources[0].mirrors = vec![mirror.clone()];
    };
    assert_eq!(archive.refused(from_elsewhere), "archive.replayed", "another mirror of the same archive");

    // Who says so gets it, and the newest is still remembered.
    let knowingly = |request: &mut ArchiveRequest| {
        from_elsewhere(request);
        request.allow_older = true;
    };
    archive.gather(knowingly).unwrap();
    assert_eq!(archive.refused(from_elsewhere), "archive.replayed");
    // An archive of the same names that others sign is another one.
    let other = Archive::new();
    other.write();
    other.gather(with).unwrap();
}

#[test]
fn a_keyring_of_its_own_goes_with_the_packages() {
    let archive = Archive::new();
    archive.write();
    assert_eq!(archive.gather(|_| ()).unwrap().apt_keys, None);
    let other = key("other");
    let keyring = [other.armored().to_vec().unwrap(), archive.cert.armored().to_vec().unwrap()].concat();
    let set = archive.gather(|request| (request.keyring, request.hand_over_keyring) = (keyring, true)).unwrap();
    let keys = set.apt_keys.as_deref().unwrap();
    assert_eq!(keys.matches("BEGIN PGP PUBLIC KEY BLOCK").count(), 1, "apt reads the first block only");
    let names = Keyring::parse(keys.as_bytes()).unwrap().fingerprints();
    assert_eq!(names, [&other, &archive.cert].map(|cert| cert.fingerprint().to_hex()));
    let mirror = format!("file://{}", archive.dir.path().display());
    assert_eq!(
        set.apt_sources("/usr/share/keyrings/x.gpg"),
        format!("Types: deb\nURIs: {mirror}\nSuites: iron\nComponents: main\nSigned-By: {}\n", super::super::APT_KEYS)
    );
}

#[test]
fn keys_are_named() {
    let archive = Archive::new();
    archive.write();
    let error = archive.gather(|request| request.keyring = key("other").to_vec().unwrap()).unwrap_err();
    assert_eq!(error.rule(), "archive.key-missing");
    let source = std::error::Error::source(&error).unwrap().to_string();
    let signer = Cert::from_bytes(&archive.cert.to_vec().unwrap()).unwrap();
    assert!(signer.keys().any(|key| source.contains(&key.key().fingerprint().to_hex())), "{source}");
    assert_eq!(archive.refused(|request| request.keyring = Vec::new()), "archive.keyring");
    assert_eq!(archive.refused(|request| request.keyring = b"no key".to_vec()), "archive.keyring");
}

#[test]
fn only_the_signed_text_is_believed() {
    let archive = Archive::new();
    archive.write();
    let path = archive.suite().join("InRelease");
    let good = fs::read_to_string(&path).unwrap();
    for (bad, rule) in [
        (format!("Suite: evil\n\n{good}"), "archive.unsigned"),
        (format!("{good}Suite: evil\n"), "archive.malformed"),
        (format!("{good}{good}"), "archive.malformed"),
        (archive.release.clone(), "archive.unsigned"),
        (good[..good.len() - 40].to_owned(), "archive.malformed"),
        ("<!DOCTYPE html><html>please log in</html>".to_owned(), "archive.unsigned"),
        (String::new(), "archive.unsigned"),
    ] {
        fs::write(&path, &bad).unwrap();
        assert_eq!(archive.refused(|_| ()), rule, "{}", &bad[..bad.len().min(60)]);
    }
}

#[test]
fn weak_or_missing_content_is_refused() {
    for (from, to, rule) in [
        ("SHA256:", "MD5Sum:", "archive.malformed"),
        ("Date:", "Datum:", "archive.malformed"),
        ("Codename: iron", "Codename: steel", "archive.suite"),
        ("Architectures: amd64", "Architectures: arm64", "archive.architecture"),
        ("Components: main", "Components: contrib", "archive.component"),
        ("main/binary-amd64", "main/binary-i386", "archive.index"),
    ] {
        let mut archive = Archive::new();
        archive.release = archive.release.replace(from, to);
        archive.write();
        assert_eq!(archive.refused(|_| ()), rule, "{to}");
    }
}

#[test]
fn hostile_entries_are_refused() {
    for (from, to) in [
        ("pool/toy.deb", "../../etc/shadow"),
        ("pool/toy.deb", "pool//toy.deb"),
        ("Version: 1.0-1", "Version: 999:"),
        ("Package: toy", "Package: ../toy"),
        ("Size: 3", "Size: -3"),
        ("SHA256: ", "SHA1: "),
    ] {
        let mut archive = Archive::new();
        let changed = archive.packages.replacen(from, to, 1);
        archive.release = archive
            .release
            .replace(&Digest::of(archive.packages.as_bytes()).hex(), &Digest::of(changed.as_bytes()).hex())
            .replace(&format!(" {} main", archive.packages.len()), &format!(" {} main", changed.len()));
        archive.packages = changed;
        archive.write();
        assert_eq!(archive.refused(|_| ()), "packages.damaged", "{to}");
    }
}

#[test]
fn a_mirror_that_cannot_be_trusted_is_passed_over() {
    let (bad, good) = (Archive::new(), Archive::new());
    bad.write();
    good.write();
    let mirrors = [&bad, &good].map(|archive| format!("file://{}", archive.dir.path().display()));
    let set = good.gather(|request| request.sources[0].mirrors = mirrors.to_vec()).unwrap();
    assert_eq!(set.origins[0].mirrors, [mirrors[1].clone(), mirrors[0].clone()]);
    assert_eq!(
        good.refused(|request| request.sources[0].mirrors = vec!["file:///no/such/mirror".to_owned()]),
        "fetch.file"
    );
}
