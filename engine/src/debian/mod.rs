//! Debian archives: who signed what, what there is, what is needed.
//!
//! In: bytes of Release files, indices and keyrings; a request. Out: a [`PackageSet`], which is data
//! and becomes part of a plan. Everything but [`gather`] is pure. Invariant: every package of a set
//! hangs on a signature of a known key by an unbroken chain of digests.

pub mod deb822;
pub mod gather;
pub mod index;
pub mod memory;
pub mod relation;
pub mod release;
pub mod resolver;
pub mod version;

pub use gather::{ArchiveError, ArchiveRequest, Source, gather};
pub use memory::Memory;
pub use resolver::Variant;

use serde::{Deserialize, Serialize};

use crate::fetch::Expected;
use crate::units::{Bytes, Digest};

/// Debian policy 2.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Required,
    Important,
    Standard,
    #[default]
    Optional,
    Extra,
}

impl Priority {
    /// Unknown words count as optional, as apt has it.
    pub fn parse(text: &str) -> Self {
        match text {
            "required" => Self::Required,
            "important" => Self::Important,
            "standard" => Self::Standard,
            "extra" => Self::Extra,
            _ => Self::Optional,
        }
    }
}

/// One package file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRef {
    pub name: String,
    pub version: String,
    /// The machine architecture, or `all`.
    pub architecture: String,
    /// Index into [`PackageSet::origins`].
    pub origin: usize,
    /// Below each of the origin's mirrors.
    pub filename: String,
    pub size: Bytes,
    pub sha256: Digest,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub essential: bool,
    /// dpkg cannot run without it: the essential packages, dpkg, and what these depend on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foundation: bool,
    pub priority: Priority,
    /// What the package says it takes on disk.
    pub installed_size: Bytes,
    /// The source package's name.
    pub source: String,
    pub section: String,
}

impl PackageRef {
    pub fn expected(&self) -> Expected {
        Expected { size: self.size, digest: self.sha256 }
    }
}

/// A verified Release file and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Equal mirrors of one archive, without a slash at the end, best first.
    pub mirrors: Vec<String>,
    /// As requested: a suite's name or codename.
    pub suite: String,
    pub codename: String,
    pub components: Vec<String>,
    /// The Release file's date in seconds since 1970, the floor for the next time.
    pub date: i64,
    /// Fingerprints of the keys that signed it.
    pub signed_by: Vec<String>,
}

/// What to install, complete and free of conflicts; sorted by name and architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSet {
    pub architecture: String,
    /// Further architectures that packages of the set have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_architectures: Vec<String>,
    pub origins: Vec<Origin>,
    pub packages: Vec<PackageRef>,
    /// Names that were asked for rather than needed by others, for `apt-mark`.
    pub requested: Vec<String>,
    /// Whether `/bin`, `/sbin` and `/lib*` are links into `/usr`.
    pub merged_usr: bool,
    /// OpenPGP certificates in one armored block that the target's apt shall trust by [`APT_KEYS`]; none where a
    /// package of the archive brings them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt_keys: Option<String>,
}

/// Where the target keeps keys that no package brings (sources.list(5) on `Signed-By`).
pub const APT_KEYS: &str = "/etc/apt/keyrings/castiron.asc";
/// Where it keeps the archives.
pub const APT_SOURCES: &str = "/etc/apt/sources.list.d/castiron.sources";

/// A stanza of sources.list(5) in its deb822 style.
pub fn apt_source(uri: &str, suites: &str, components: &str, signed_by: &str) -> String {
    format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\nSigned-By: {signed_by}\n")
}

impl PackageSet {
    /// Where a package can be had, best first.
    pub fn urls(&self, package: &PackageRef) -> Vec<String> {
        let mirrors = self.origins.get(package.origin).map_or(&[][..], |origin| &origin.mirrors);
        mirrors.iter().map(|mirror| format!("{mirror}/{}", package.filename)).collect()
    }

    pub fn download_size(&self) -> Bytes {
        self.packages.iter().map(|package| package.size).sum()
    }

    pub fn installed_size(&self) -> Bytes {
        self.packages.iter().map(|package| package.installed_size).sum()
    }

    pub fn get(&self, name: &str) -> Option<&PackageRef> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The archives that the set came from, for the target's apt. `keyring` is where a package brings their keys.
    pub fn apt_sources(&self, keyring: &str) -> String {
        let signed_by = if self.apt_keys.is_some() { APT_KEYS } else { keyring };
        let stanza = |origin: &Origin| {
            let mirror = origin.mirrors.first()?;
            Some(apt_source(mirror, &origin.suite, &origin.components.join(" "), signed_by))
        };
        self.origins.iter().filter_map(stanza).collect::<Vec<_>>().join("\n")
    }
}
