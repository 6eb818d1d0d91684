//! Release files: whose word an archive's content rests on.
//!
//! In: an `InRelease` file, or `Release` and `Release.gpg`, and the keys to trust. Out: what it says,
//! read from the signed text only. Invariant: at least one signature by a known key that was valid
//! when it was made; signatures by unknown keys count for nothing and harm nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use sequoia_openpgp::cert::{Cert, CertParser};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper,
    VerifierBuilder,
};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::Marshal as _;
use sequoia_openpgp::{KeyHandle, Result as PgpResult, armor};
use thiserror::Error;

use super::deb822::Stanza;
use crate::fetch::Expected;
use crate::units::{Bytes, Digest};

/// A clock may run this much behind the archive's before its Release counts as not yet valid:
/// machines whose clock holds local time are off by half a day before NTP corrects them.
pub const FUTURE_SKEW_SECONDS: i64 = 12 * 3600 + 600;

const SIGNED_START: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNED_END: &str = "-----END PGP SIGNATURE-----";

#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReleaseError {
    #[error("the keyring cannot be read: {0}")]
    Keyring(String),
    #[error("the keyring holds no key")]
    EmptyKeyring,
    #[error("this is no signed Release file{}", if *.html { ": it is a web page" } else { "" })]
    NotSigned { html: bool },
    #[error("signed only by keys that are not in the keyring: {}", .wanted.join(", "))]
    MissingKey { wanted: Vec<String> },
    #[error("bad signature by key {key}: {reason}")]
    BadSignature { key: String, reason: String },
    #[error("key {key} may not sign: {reason}")]
    BadKey { key: String, reason: String },
    #[error("the signed text is malformed: {0}")]
    Malformed(String),
    #[error("expired: valid until {until}, and it is {now}")]
    Expired { until: String, now: String },
    #[error("dated {date}, but it is only {now}")]
    Future { date: String, now: String },
    #[error("replayed: dated {date}, older than {floor}, which was seen before")]
    Replayed { date: String, floor: String },
    #[error("this is suite {found}, not {wanted}")]
    WrongSuite { wanted: String, found: String },
    #[error("has no architecture {wanted}, only {}", .offered.join(" "))]
    NoArchitecture { wanted: String, offered: Vec<String> },
    #[error("has no component {wanted}, only {}", .offered.join(" "))]
    NoComponent { wanted: String, offered: Vec<String> },
}

impl ReleaseError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Keyring(_) | Self::EmptyKeyring => "archive.keyring",
            Self::NotSigned { .. } => "archive.unsigned",
            Self::MissingKey { .. } => "archive.key-missing",
            Self::BadSignature { .. } => "archive.signature",
            Self::BadKey { .. } => "archive.key-bad",
            Self::Malformed(_) => "archive.malformed",
            Self::Expired { .. } => "archive.expired",
            Self::Future { .. } => "archive.future",
            Self::Replayed { .. } => "archive.replayed",
            Self::WrongSuite { .. } => "archive.suite",
            Self::NoArchitecture { .. } => "archive.architecture",
            Self::NoComponent { .. } => "archive.component",
        }
    }

    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Keyring(_) | Self::EmptyKeyring => {
                "give an OpenPGP keyring, binary or armored, such as debian-archive-keyring.gpg"
            }
            Self::NotSigned { html: true } => "a captive portal or a proxy answers instead of the mirror",
            Self::NotSigned { html: false } => "check the mirror's path; unsigned archives are not used",
            Self::MissingKey { .. } => "give a keyring with one of these keys",
            Self::BadSignature { .. } => "the file was changed on its way; try another mirror",
            Self::BadKey { .. } => "check the clock; else the keyring is too old for this archive",
            Self::Expired { .. } => "the mirror no longer follows its archive, or the clock is ahead",
            Self::Future { .. } => "set the clock",
            Self::Replayed { .. } => "the mirror serves an old state; try another one",
            Self::Malformed(_) | Self::WrongSuite { .. } => return None,
            Self::NoArchitecture { .. } | Self::NoComponent { .. } => return None,
        })
    }
}

/// The keys an archive may be signed with.
#[derive(Clone, Debug)]
pub struct Keyring {
    certs: Vec<Cert>,
}

impl Keyring {
    /// Any number of certificates, binary or armored (also several armored blocks in a row).
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let armor = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
        let starts: Vec<usize> = memchr::memmem::find_iter(bytes, armor).collect();
        let blocks: Vec<&[u8]> = match starts.is_empty() {
            true => vec![bytes],
            false => starts
                .iter()
                .zip(starts.iter().skip(1).chain([&bytes.len()]))
                .map(|(from, to)| &bytes[*from..*to])
                .collect(),
        };
        let mut certs = Vec::new();
        for block in blocks {
            let parser = CertParser::from_bytes(block).map_err(|error| ReleaseError::Keyring(error.to_string()))?;
            // A certificate of a kind that is not supported does not make the others useless.
            certs.extend(parser.flatten());
        }
        if certs.is_empty() {
            return Err(ReleaseError::EmptyKeyring);
        }
        Ok(Self { certs })
    }

    /// All certificates in one armored block, which apt reads from a file that ends in `.asc`.
    pub fn armored(&self) -> Result<String, ReleaseError> {
        let failed = |error: String| ReleaseError::Keyring(error);
        let mut writer = armor::Writer::new(Vec::new(), armor::Kind::PublicKey).map_err(|e| failed(e.to_string()))?;
        for cert in &self.certs {
            cert.serialize(&mut writer).map_err(|error| failed(error.to_string()))?;
        }
        let bytes = writer.finalize().map_err(|error| failed(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
    }

    pub fn fingerprints(&self) -> Vec<String> {
        self.certs.iter().map(|cert| cert.fingerprint().to_hex()).collect()
    }
}

/// When a Release is believed.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Seconds since 1970.
    pub now: i64,
    /// A Release dated earlier was seen before this one: it is a replay.
    pub floor: Option<i64>,
    /// For archives that are frozen on purpose, such as snapshots.
    pub ignore_valid_until: bool,
}

/// What a Release file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Who publishes the archive, and which of theirs it is.
    pub origin: String,
    pub label: String,
    pub suite: String,
    pub codename: String,
    pub version: String,
    pub architectures: Vec<String>,
    pub components: Vec<String>,
    /// Seconds since 1970.
    pub date: i64,
    pub valid_until: Option<i64>,
    pub by_hash: bool,
    /// Whether `all` packages stand in every architecture's index and need no index of their own.
    pub all_in_each: bool,
    /// Files below the suite's directory, by path, from the SHA256 section.
    pub files: HashMap<String, Expected>,
    /// Fingerprints of the keys that made good signatures.
    pub signed_by: Vec<String>,
}

impl Release {
    /// Verifies a clear-signed file and reads what was signed.
    pub fn from_inline(file: &[u8], keyring: &Keyring, terms: Terms) -> Result<Self, ReleaseError> {
        check_frame(file)?;
        let finding = Finding::default();
        let policy = StandardPolicy::new();
        let mut body = Vec::new();
        let read = VerifierBuilder::from_bytes(file)
            .and_then(|builder| {
                builder.with_policy(&policy, system_time(terms.now), Helper { keyring, finding: &finding })
            })
            .and_then(|mut verifier| Ok(std::io::Read::read_to_end(&mut verifier, &mut body)?));
        let signed_by = finding.verdict(read.map(drop))?;
        Self::parse(&body, signed_by, terms)
    }

    /// Verifies `Release` by `Release.gpg` and reads it.
    pub fn from_detached(file: &[u8], signature: &[u8], keyring: &Keyring, terms: Terms) -> Result<Self, ReleaseError> {
        let finding = Finding::default();
        let policy = StandardPolicy::new();
        let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
            .and_then(|builder| {
                builder.with_policy(&policy, system_time(terms.now), Helper { keyring, finding: &finding })
            })
            .map_err(|_| ReleaseError::NotSigned { html: crate::fetch::looks_like_html(signature) })?;
        let signed_by = finding.verdict(verifier.verify_bytes(file))?;
        Self::parse(file, signed_by, terms)
    }

    /// Whether this is the suite that was asked for, under either of its names. `stable/updates` and
    /// the like count by their first part.
    pub fn check_suite(&self, wanted: &str) -> Result<(), ReleaseError> {
        let names = [self.suite.as_str(), self.codename.as_str()];
        let first = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        if names.iter().any(|name| *name == wanted || first(name) == first(wanted)) {
            return Ok(());
        }
        // `stable-updates` calls itself `oldstable-updates` a release later, its codename never changes.
        Err(ReleaseError::WrongSuite {
            wanted: wanted.to_owned(),
            found: format!("{} ({})", self.codename, self.suite),
        })
    }

    pub fn check_architecture(&self, wanted: &str) -> Result<(), ReleaseError> {
        if self.architectures.is_empty() || self.architectures.iter().any(|found| found == wanted) {
            return Ok(());
        }
        Err(ReleaseError::NoArchitecture { wanted: wanted.to_owned(), offered: self.architectures.clone() })
    }

    /// Security archives write `updates/main` for `main`.
    pub fn check_component(&self, wanted: &str) -> Result<(), ReleaseError> {
        let fits = |found: &String| found == wanted || found.rsplit('/').next() == Some(wanted);
        if self.components.is_empty() || self.components.iter().any(fits) {
            return Ok(());
        }
        Err(ReleaseError::NoComponent { wanted: wanted.to_owned(), offered: self.components.clone() })
    }

    /// Against what is known to have been published at `floor` (seconds since 1970).
    pub fn check_not_older(&self, floor: Option<i64>) -> Result<(), ReleaseError> {
        match floor.filter(|floor| self.date < *floor) {
            Some(floor) => Err(ReleaseError::Replayed { date: show_date(self.date), floor: show_date(floor) }),
            None => Ok(()),
        }
    }

    fn parse(body: &[u8], signed_by: Vec<String>, terms: Terms) -> Result<Self, ReleaseError> {
        let malformed = |what: &str| ReleaseError::Malformed(what.to_owned());
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?.replace('\r', "");
        let fields: HashMap<String, &str> =
            Stanza(&text).fields().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let get = |name: &str| fields.get(name).copied();
        let words =
            |name: &str| get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let date_text = get("date").ok_or_else(|| malformed("no Date"))?;
        let date = parse_date(date_text).ok_or_else(|| malformed(&format!("Date `{date_text}`")))?;
        let valid_until = match get("valid-until") {
            Some(until) => Some(parse_date(until).ok_or_else(|| malformed(&format!("Valid-Until `{until}`")))?),
            None => None,
        };
        let release = Self {
            origin: get("origin").unwrap_or_default().to_owned(),
            label: get("label").unwrap_or_default().to_owned(),
            suite: get("suite").unwrap_or_default().to_owned(),
            codename: get("codename").unwrap_or_default().to_owned(),
            version: get("version").unwrap_or_default().to_owned(),
            architectures: words("architectures"),
            components: words("components"),
            date,
            valid_until,
            by_hash: get("acquire-by-hash") == Some("yes"),
            all_in_each: !words("architectures").iter().any(|found| found == "all")
                || words("no-support-for-architecture-all").iter().any(|index| index == "Packages"),
            files: parse_files(
                get("sha256").ok_or_else(|| malformed("no SHA256 section; weaker digests are not used"))?,
            )
            .ok_or_else(|| malformed("the SHA256 section"))?,
            signed_by,
        };
        release.check_time(terms)?;
        Ok(release)
    }

    fn check_time(&self, terms: Terms) -> Result<(), ReleaseError> {
        self.check_not_older(terms.floor)?;
        if self.date > terms.now + FUTURE_SKEW_SECONDS {
            return Err(ReleaseError::Future { date: show_date(self.date), now: show_date(terms.now) });
        }
        if let Some(until) = self.valid_until.filter(|until| terms.now > *until && !terms.ignore_valid_until) {
            return Err(ReleaseError::Expired { until: show_date(until), now: show_date(terms.now) });
        }
        Ok(())
    }
}

/// One signed block and nothing else, as apt demands: no reader may see more than was signed.
fn check_frame(file: &[u8]) -> Result<(), ReleaseError> {
    let text = String::from_utf8_lossy(file);
    if !text.starts_with(SIGNED_START) {
        return Err(ReleaseError::NotSigned { html: crate::fetch::looks_like_html(file) });
    }
    let starts = text.lines().filter(|line| line.trim_end() == SIGNED_START).count();
    let after = text.split_once(SIGNED_END).map(|(_, after)| after.trim());
    match (starts, after) {
        (1, Some("")) => Ok(()),
        (1, None) => Err(ReleaseError::Malformed("it ends before the signature does".to_owned())),
        _ => Err(ReleaseError::Malformed("there is text outside the signed block".to_owned())),
    }
}

fn system_time(seconds: i64) -> Option<std::time::SystemTime> {
    // A clock that lags must not make today's signatures seem to come from the future.
    Some(UNIX_EPOCH + Duration::from_secs((seconds + FUTURE_SKEW_SECONDS).max(0) as u64))
}

/// `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 5322, 3.3, with zone UTC, GMT, Z or +0000).
fn parse_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let zoned = ["UTC", "GMT", "Z"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone))
        .map(|rest| format!("{} +0000", rest.trim_end()));
    let zoned = zoned.as_deref().unwrap_or(text);
    jiff::fmt::rfc2822::DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(zoned)
        .ok()
        .map(|time| time.as_second())
}

fn show_date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Lines of digest, size and path.
fn parse_files(section: &str) -> Option<HashMap<String, Expected>> {
    let mut files = HashMap::new();
    for line in section.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let digest = Digest::from_hex(words.next()?)?;
        let size = Bytes(words.next()?.parse().ok()?);
        files.insert(words.next()?.to_owned(), Expected { size, digest });
    }
    Some(files)
}

/// What the verifier found out about the signatures.
#[derive(Default)]
struct Finding {
    good: RefCell<Vec<String>>,
    bad: RefCell<Option<ReleaseError>>,
}

impl Finding {
    /// The keys that signed well, or our own reason why none did, or the verifier's.
    fn verdict(&self, verified: PgpResult<()>) -> Result<Vec<String>, ReleaseError> {
        match (self.bad.take(), verified) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(ReleaseError::Malformed(error.to_string())),
            (None, Ok(())) if self.good.borrow().is_empty() => Err(ReleaseError::NotSigned { html: false }),
            (None, Ok(())) => Ok(self.good.take()),
        }
    }
}

struct Helper<'a> {
    keyring: &'a Keyring,
    finding: &'a Finding,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, ids: &[KeyHandle]) -> PgpResult<Vec<Cert>> {
        let wanted = |cert: &&Cert| cert.keys().any(|key| ids.iter().any(|id| id.aliases(key.key().key_handle())));
        Ok(self.keyring.certs.iter().filter(wanted).cloned().collect())
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> PgpResult<()> {
        match judge(structure) {
            Ok(good) => {
                self.finding.good.replace(good);
                Ok(())
            }
            Err(error) => {
                let message = error.to_string();
                self.finding.bad.replace(Some(error));
                Err(std::io::Error::other(message).into())
            }
        }
    }
}

/// The keys with good signatures, or the most telling reason why there is none.
fn judge(structure: MessageStructure<'_>) -> Result<Vec<String>, ReleaseError> {
    let (mut good, mut missing, mut bad, mut other) = (Vec::new(), Vec::new(), None, None);
    for layer in structure {
        let MessageLayer::SignatureGroup { results } = layer else {
            return Err(ReleaseError::Malformed("it is encrypted or compressed".to_owned()));
        };
        for result in results {
            match result {
                Ok(GoodChecksum { ka, .. }) => good.push(ka.cert().fingerprint().to_hex()),
                Err(VerificationError::MissingKey { sig }) => {
                    missing.extend(sig.get_issuers().first().map(KeyHandle::to_hex))
                }
                Err(VerificationError::BadSignature { ka, error, .. }) => {
                    bad = Some(ReleaseError::BadSignature {
                        key: ka.cert().fingerprint().to_hex(),
                        reason: error.to_string(),
                    });
                }
                Err(VerificationError::BadKey { ka, error, .. }) => {
                    other =
                        Some(ReleaseError::BadKey { key: ka.cert().fingerprint().to_hex(), reason: error.to_string() });
                }
                Err(VerificationError::UnboundKey { cert, error, .. }) => {
                    other = Some(ReleaseError::BadKey { key: cert.fingerprint().to_hex(), reason: error.to_string() });
                }
                Err(error) => other = other.or(Some(ReleaseError::Malformed(error.to_string()))),
            }
        }
    }
    if !good.is_empty() {
        return Ok(good);
    }
    missing.sort();
    missing.dedup();
    Err(bad.or(other).unwrap_or(match missing.is_empty() {
        true => ReleaseError::NotSigned { html: false },
        false => ReleaseError::MissingKey { wanted: missing },
    }))
}
