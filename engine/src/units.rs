//! Vocabulary: sizes, identities, digests. Depends on nothing else of ours.
//!
//! Invariant: a value of one of these types is valid; text is checked once, in `FromStr`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    pub const ZERO: Self = Self(0);

    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The next multiple of `unit`, which must not be zero.
    pub const fn round_up(self, unit: Self) -> Self {
        Self(self.0.div_ceil(unit.0) * unit.0)
    }

    /// The last multiple of `unit` that is not above, which must not be zero.
    pub const fn round_down(self, unit: Self) -> Self {
        Self(self.0 / unit.0 * unit.0)
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(|bytes| bytes.0).sum())
    }
}

const BINARY_UNITS: &[(&str, u64)] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL_UNITS: &[(&str, u64)] =
    &[("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("kB", 1_000), ("B", 1)];
/// dib's single letters mean powers of 1000, as the units with a `B` do (`block_device/utils.py`).
const LETTER_UNITS: &[(&str, u64)] = &[("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)];

impl fmt::Display for Bytes {
    /// The largest binary unit that divides the number, else one decimal of the largest that fits.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BINARY_UNITS.iter().find(|(_, unit)| self.0 >= *unit).map_or_else(
            || format!("{} B", self.0),
            |(name, unit)| match self.0.is_multiple_of(*unit) {
                true => format!("{} {name}", self.0 / unit),
                false => format!("{:.1} {name}", self.0 as f64 / *unit as f64),
            },
        );
        out.pad(&text)
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a size")]
pub struct SizeError {
    pub text: String,
    pub hint: String,
}

impl FromStr for Bytes {
    type Err = SizeError;

    /// `20GiB` (1024), `20GB` (1000), `20G` (1000, as dib reads it) or plain bytes.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned(), hint: size_hint(text) };
        let trimmed = text.trim();
        let digits_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..digits_end], trimmed[digits_end..].trim_start());
        let factor = match unit {
            "" => 1,
            _ => [BINARY_UNITS, DECIMAL_UNITS, LETTER_UNITS]
                .into_iter()
                .flatten()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(error)?,
        };
        match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor).map(Self).ok_or_else(error),
            Err(_) => {
                let fraction: f64 = number.parse().map_err(|_| error())?;
                let bytes = fraction * factor as f64;
                if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(error()) }
            }
        }
    }
}

fn size_hint(text: &str) -> String {
    let lower = text.to_lowercase();
    let guess = [BINARY_UNITS, DECIMAL_UNITS]
        .into_iter()
        .flatten()
        .find(|(unit, _)| lower.trim_end().ends_with(&unit.to_lowercase()))
        .map(|(unit, _)| {
            let number: String = lower.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            format!("; did you mean `{number}{unit}`?")
        });
    format!("write KiB to TiB (1024), KB to TB (1000) or %{}", guess.unwrap_or_default())
}

/// A SHA-256 digest, written `sha256-<hex>` as Ignition does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut digest = [0; 32];
        for (place, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256-{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a digest: write sha256- and 64 hexadecimal digits")]
pub struct DigestError(pub String);

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256-").unwrap_or(text);
        Self::from_hex(hex).ok_or_else(|| DigestError(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a node of the block graph: a disk, partition, file system, … as the config calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl NodeId {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// Permission bits, printed in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

/// A text that must never be shown: `Debug` and `Display` hide it and it cannot be serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_field_writes_them() {
        for (text, bytes) in [
            ("512", 512),
            ("20GiB", 20 << 30),
            ("20 GiB", 20 << 30),
            ("1.5MiB", 3 << 19),
            ("20GB", 20_000_000_000),
            ("20G", 20_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_misspelt_unit_is_refused_with_the_right_one() {
        let error = "20Gib".parse::<Bytes>().unwrap_err();
        assert_eq!(error.hint, "write KiB to TiB (1024), KB to TB (1000) or %; did you mean `20GiB`?");
        assert!("99999999999TiB".parse::<Bytes>().is_err());
        assert!("-1".parse::<Bytes>().is_err());
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        for (bytes, text) in [(512, "512 B"), (1 << 20, "1 MiB"), (3 << 19, "1.5 MiB"), (4 << 30, "4 GiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"iron");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("sha256-12".parse::<Digest>().is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }
}
