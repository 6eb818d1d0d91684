//! Whether a config may be acted on. In: a document, its detached signature, what this machine
//! trusts, which machine it is and what its clocks say. Out: [`Verified`], or a refusal by name.
//!
//! A signature is minisign's (Ed25519 over BLAKE2b of the document, prehashed), so `minisign -V`
//! checks the same files. Its *trusted comment*, which the signature covers, is the envelope:
//!
//! ```text
//! trusted comment: castiron not-before=2026-09-01T00:00:00Z not-after=2026-10-01T00:00:00Z machine=any
//! ```
//!
//! Invariants: no I/O and no clock of its own; [`Verified`] cannot be made without a check.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use minisign_verify::{PublicKey, Signature};
use serde::Serialize;
use thiserror::Error;

use crate::diagnostic::Diagnostic;
use crate::units::Digest;

mod envelope;
mod window;

pub use envelope::{Envelope, EnvelopeError, Machine, Scope, ScopeError, ScopeRule};
pub use window::{ClockEvidence, ClockSource, ClockVerdict, Window};

/// A config as it was found, not yet trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it came from, for people: a URL, `inline`, a path on a labelled file system.
    pub name: String,
    pub origin: Origin,
    pub bytes: Vec<u8>,
    /// The text of the `.minisig` beside it, if there was one.
    pub signature: Option<String>,
}

/// How a document reached this machine, which decides whether it needs a proof of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Over the network.
    Foreign,
    /// From a file system that was found by its label: whoever plugged the medium in may have written it.
    Medium,
    /// From where a DHCP server pointed to, unasked: it counts only signed or pinned, whatever else is allowed.
    Offered,
    /// On the kernel command line. Whoever writes that line could as well write `castiron.trust=any`.
    CommandLine,
    /// In the initramfs, beside the trusted keys themselves.
    Initramfs,
}

/// A minisign public key and its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// Where it came from, for people.
    pub name: String,
    key: PublicKey,
    id: [u8; 8],
    fingerprint: Digest,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{name} is not a minisign public key")]
pub struct KeyError {
    pub name: String,
}

impl TrustedKey {
    /// Reads a `.pub` file (comment line, key line) or the key line alone.
    pub fn parse(name: impl Into<String>, text: &str) -> Result<Self, KeyError> {
        let name = name.into();
        let error = || KeyError { name: name.clone() };
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).ok_or_else(error)?;
        let bytes = BASE64.decode(line).map_err(|_| error())?;
        let key = PublicKey::from_base64(line).map_err(|_| error())?;
        let id = bytes[2..10].try_into().map_err(|_| error())?;
        Ok(Self { key, id, fingerprint: Digest::of(&bytes), name })
    }

    /// SHA-256 over the 42 bytes of the key as minisign encodes them.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The key's id as minisign prints it. It names a key; it does not prove one.
    pub fn id(&self) -> String {
        key_id(self.id)
    }
}

fn key_id(id: [u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(id))
}

/// What this machine accepts as proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub keys: Vec<TrustedKey>,
    /// `castiron.key=sha256-…`: of the keys above only these count.
    pub only: Vec<Digest>,
    /// `castiron.config.hash=`: exactly this document, signed or not.
    pub pin: Option<Digest>,
    /// `castiron.trust=any`: anything. The caller shows a banner.
    pub any: bool,
}

impl Policy {
    /// Takes one `castiron.key=` argument: a whole public key (`RW…`), which is added to the trusted
    /// ones, or the fingerprint of one (`sha256-…`), which leaves only such keys trusted.
    pub fn add_key_argument(&mut self, text: &str) -> Result<(), KeyError> {
        match text.starts_with("sha256-").then(|| text.parse()) {
            Some(Ok(fingerprint)) => self.only.push(fingerprint),
            Some(Err(_)) => return Err(KeyError { name: format!("castiron.key={text}") }),
            None => {
                let key = TrustedKey::parse("castiron.key=", text)
                    .map_err(|_| KeyError { name: format!("castiron.key={text}") })?;
                if !self.only.is_empty() {
                    self.only.push(key.fingerprint);
                }
                self.keys.push(key);
            }
        }
        Ok(())
    }

    fn accepted(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(|key| self.only.is_empty() || self.only.contains(&key.fingerprint))
    }
}

/// Why a document is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    Signed {
        key: String,
        fingerprint: Digest,
        envelope: Envelope,
        clock: ClockVerdict,
    },
    Pinned {
        hash: Digest,
    },
    CommandLine,
    Initramfs,
    /// Nobody checked anything, because `castiron.trust=any` said so.
    Anything,
}

impl fmt::Display for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed { key, envelope, .. } => write!(out, "signed by {key}, {envelope}"),
            Self::Pinned { hash } => write!(out, "pinned by {hash}"),
            Self::CommandLine => out.write_str("given on the kernel command line"),
            Self::Initramfs => out.write_str("built into the appliance"),
            Self::Anything => out.write_str("NOT CHECKED: castiron.trust=any"),
        }
    }
}

/// A value that passed [`verify`]. There is no other way to get one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    proof: Proof,
}

impl<T> Verified<T> {
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    pub fn get(&self) -> &T {
        &self.value
    }

    /// Turns the value into another one that follows from it alone, such as bytes into a config.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Verified<U>, E> {
        Ok(Verified { value: f(self.value)?, proof: self.proof })
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TrustError {
    #[error("{name} is not signed")]
    Unsigned { name: String },
    #[error("the signature of {name} cannot be read: {reason}")]
    Malformed { name: String, reason: String },
    #[error("{name} is signed by the unknown key {id}")]
    UnknownKey { name: String, id: String },
    #[error("the signature of {name} is wrong: the document or the signature was changed")]
    BadSignature { name: String },
    #[error("the envelope of {name} is unusable")]
    Envelope { name: String, source: EnvelopeError },
    #[error("{name} expired on {not_after}; {source_of_now} says {now}")]
    Expired { name: String, not_after: Timestamp, now: Timestamp, source_of_now: ClockSource },
    #[error("{name} is not valid before {not_before}; {source_of_now} says {now}")]
    NotYetValid { name: String, not_before: Timestamp, now: Timestamp, source_of_now: ClockSource },
    #[error("{name} is for another machine: for {scope}, this is {machine}")]
    OtherMachine { name: String, scope: Scope, machine: Machine },
    #[error("{name} is {found}, the command line asks for {wanted}")]
    OtherHash { name: String, found: Digest, wanted: Digest },
}

impl TrustError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } => "trust.unsigned",
            Self::Malformed { .. } => "trust.malformed",
            Self::UnknownKey { .. } => "trust.unknown-key",
            Self::BadSignature { .. } => "trust.bad-signature",
            Self::Envelope { .. } => "trust.envelope",
            Self::Expired { .. } => "trust.expired",
            Self::NotYetValid { .. } => "trust.not-yet-valid",
            Self::OtherMachine { .. } => "trust.other-machine",
            Self::OtherHash { .. } => "trust.other-hash",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } => {
                "sign it with `castiron sign` and put the .minisig beside it, or pin it with castiron.config.hash="
            }
            Self::Malformed { .. } => "serve the .minisig file exactly as `castiron sign` wrote it",
            Self::UnknownKey { .. } => {
                "build the appliance with this key, give it with castiron.key=, or sign with a trusted one"
            }
            Self::BadSignature { .. } => "sign the document again after every change",
            Self::Envelope { .. } => "sign with `castiron sign`, which writes the envelope",
            Self::Expired { .. } => "sign it again with a later --not-after",
            Self::NotYetValid { .. } => "correct the clock or sign with an earlier --not-before",
            Self::OtherMachine { .. } => "sign it with a --machine that includes this one",
            Self::OtherHash { .. } => "`sha256sum` of the file gives the value for castiron.config.hash=",
        }
    }
}

impl From<TrustError> for Diagnostic {
    fn from(error: TrustError) -> Self {
        let mut message = error.to_string();
        if let TrustError::Envelope { source, .. } = &error {
            message = format!("{message}: {source}");
        }
        Self::error(error.rule(), message).hint(error.hint())
    }
}

/// The one check. Nothing of `document` may be acted on before it has passed.
pub fn verify(
    document: Document,
    policy: &Policy,
    machine: &Machine,
    clocks: &ClockEvidence,
) -> Result<Verified<Document>, TrustError> {
    let proof = prove(&document, policy, machine, clocks)?;
    Ok(Verified { value: document, proof })
}

fn prove(document: &Document, policy: &Policy, machine: &Machine, clocks: &ClockEvidence) -> Result<Proof, TrustError> {
    if let Some(wanted) = policy.pin {
        let found = Digest::of(&document.bytes);
        return match found == wanted {
            true => Ok(Proof::Pinned { hash: wanted }),
            false => Err(TrustError::OtherHash { name: document.name.clone(), found, wanted }),
        };
    }
    match document.origin {
        Origin::CommandLine => Ok(Proof::CommandLine),
        Origin::Initramfs => Ok(Proof::Initramfs),
        Origin::Foreign | Origin::Medium if policy.any => Ok(Proof::Anything),
        Origin::Foreign | Origin::Medium | Origin::Offered => check_signature(document, policy, machine, clocks),
    }
}

fn check_signature(
    document: &Document,
    policy: &Policy,
    machine: &Machine,
    clocks: &ClockEvidence,
) -> Result<Proof, TrustError> {
    let name = || document.name.clone();
    let text = document.signature.as_deref().ok_or_else(|| TrustError::Unsigned { name: name() })?;
    let signature = Signature::decode(text)
        .map_err(|error| TrustError::Malformed { name: name(), reason: error.to_string().to_lowercase() })?;
    let key = matching_key(text, &signature, &document.bytes, policy, name())?;

    let envelope: Envelope =
        signature.trusted_comment().parse().map_err(|source| TrustError::Envelope { name: name(), source })?;
    if !envelope.scope.covers(machine) {
        return Err(TrustError::OtherMachine { name: name(), scope: envelope.scope, machine: machine.clone() });
    }
    let clock = envelope.window.judge(clocks).map_err(|refusal| refusal.of(name(), envelope.window))?;
    Ok(Proof::Signed { key: key.name.clone(), fingerprint: key.fingerprint, envelope, clock })
}

/// The trusted key that made the signature. Two keys may carry the same id by accident or malice,
/// so every one with the right id is tried.
fn matching_key<'a>(
    text: &str,
    signature: &Signature,
    bytes: &[u8],
    policy: &'a Policy,
    name: String,
) -> Result<&'a TrustedKey, TrustError> {
    let id = signature_key_id(text).unwrap_or_default();
    let mut candidates = policy.accepted().filter(|key| key.id == id).peekable();
    if candidates.peek().is_none() {
        return Err(TrustError::UnknownKey { name, id: key_id(id) });
    }
    // `false`: only prehashed signatures, so that no second algorithm needs to be right.
    candidates.find(|key| key.key.verify(bytes, signature, false).is_ok()).ok_or(TrustError::BadSignature { name })
}

/// Bytes 2 to 10 of the second line of a minisign signature.
fn signature_key_id(text: &str) -> Option<[u8; 8]> {
    let bytes = BASE64.decode(text.lines().nth(1)?.trim()).ok()?;
    bytes.get(2..10)?.try_into().ok()
}

impl FromStr for TrustedKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text, text)
    }
}

#[cfg(test)]
mod tests;
