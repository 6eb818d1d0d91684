//! Packages as a signed suite: `pool`, `Packages` with by-hash, `Release` with its two signatures.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use castiron_engine::units::Digest;
use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::CertBuilder;
use sequoia_openpgp::crypto::KeyPair;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::Serialize as _;
use sequoia_openpgp::serialize::stream::{Armorer, Message, Signer};

use super::package::{Package, xz};
use crate::host::{Failure, Result, Subject};

/// The suite's name and code name.
pub const SUITE: &str = "toy";

/// A key that signs the archive, made for one run.
#[derive(Clone)]
pub struct ArchiveKey(Cert);

impl ArchiveKey {
    pub fn new() -> Result<Self> {
        let builder = CertBuilder::new().add_userid("Toy archive <toy@example.org>").add_signing_subkey();
        // Machines of the tests may have clocks that are a little behind.
        let created = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
        let (cert, _) = builder.set_creation_time(created).generate().on("making the archive key")?;
        Ok(Self(cert))
    }

    /// The public half, as keyrings hold it.
    pub fn keyring(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.0.serialize(&mut out).on("the archive key")?;
        Ok(out)
    }

    fn pair(&self) -> Result<KeyPair> {
        let policy = StandardPolicy::new();
        let mut keys = self.0.keys().secret().with_policy(&policy, None).for_signing();
        let key = keys.next().ok_or_else(|| Failure::new("the archive key cannot sign"))?.key().clone();
        key.into_keypair().on("the archive key")
    }

    /// RFC 9580 section 7: text and signature in one.
    fn clear_sign(&self, text: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let signer = Signer::new(Message::new(&mut out), self.pair()?).on("signing")?.cleartext();
        let mut message = signer.build().on("signing")?;
        message.write_all(text.as_bytes()).on("signing")?;
        message.finalize().on("signing")?;
        Ok(out)
    }

    fn detached(&self, text: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let armor = Armorer::new(Message::new(&mut out)).kind(sequoia_openpgp::armor::Kind::Signature);
        let signer = Signer::new(armor.build().on("signing")?, self.pair()?).on("signing")?.detached();
        let mut message = signer.build().on("signing")?;
        message.write_all(text.as_bytes()).on("signing")?;
        message.finalize().on("signing")?;
        Ok(out)
    }
}

/// An archive on disk.
pub struct Archive {
    pub folder: PathBuf,
    pub key: ArchiveKey,
}

impl Archive {
    /// Writes `packages` below `folder`, which must be empty.
    pub fn write(folder: &Path, packages: &[Package]) -> Result<Self> {
        let mut index = String::new();
        for package in packages {
            let deb = package.to_deb()?;
            write_file(&folder.join(package.filename()), &deb)?;
            let control = package.control();
            let (first, description) = control.split_at(control.find("Description:").unwrap_or(control.len()));
            writeln!(
                index,
                "{first}Filename: {}\nSize: {}\nSHA256: {}\n{description}",
                package.filename(),
                deb.len(),
                Digest::of(&deb).hex(),
            )
            .expect("memory takes all");
        }
        let archive = Self { folder: folder.to_owned(), key: ArchiveKey::new()? };
        let compressed = xz(index.as_bytes())?;
        for (name, content) in [("Packages", index.as_bytes()), ("Packages.xz", &compressed)] {
            let below = archive.dists().join("main/binary-amd64");
            write_file(&below.join(name), content)?;
            write_file(&below.join("by-hash/SHA256").join(Digest::of(content).hex()), content)?;
        }
        archive.sign(SystemTime::now(), Duration::from_secs(7 * 24 * 3600))?;
        Ok(archive)
    }

    /// The same archive where a copy of its files lies.
    pub fn copied_to(&self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), key: self.key.clone() }
    }

    pub fn dists(&self) -> PathBuf {
        self.folder.join("dists").join(SUITE)
    }

    /// Signs the indices as they lie, as of `date`, valid for `validity`.
    pub fn sign(&self, date: SystemTime, validity: Duration) -> Result<()> {
        let mut release = format!(
            "Origin: Toy\nLabel: Toy\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {}\nValid-Until: {}\n\
             Acquire-By-Hash: yes\nArchitectures: amd64\nComponents: main\nDescription: A toy\nSHA256:\n",
            rfc2822(date)?,
            rfc2822(date + validity)?,
        );
        for name in ["main/binary-amd64/Packages", "main/binary-amd64/Packages.xz"] {
            let path = self.dists().join(name);
            let content = std::fs::read(&path).on(path.display())?;
            writeln!(release, " {} {:>8} {name}", Digest::of(&content).hex(), content.len()).expect("memory takes all");
        }
        write_file(&self.dists().join("Release"), release.as_bytes())?;
        write_file(&self.dists().join("InRelease"), &self.key.clear_sign(&release)?)?;
        write_file(&self.dists().join("Release.gpg"), &self.key.detached(&release)?)
    }
}

fn rfc2822(time: SystemTime) -> Result<String> {
    let time = jiff::Timestamp::try_from(time).on("a time")?;
    Ok(time.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string())
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).on(folder.display())?;
    std::fs::write(path, content).on(path.display())
}
