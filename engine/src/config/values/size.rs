//! Sizes, ranges of sizes and time spans.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;

use super::{Refusal, refuse};
use crate::units::Bytes;

from_text!(Size, SizeRange, Span);

/// `20GiB` (1024), `20GB` (1000), bytes, or `50%` of what is left when it is the partition's turn; `100%` and
/// `rest` take all that is left, as in dib.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum Size {
    Exact(Bytes),
    /// Hundredths of a percent, at most 10 000.
    Share(u32),
}

impl Size {
    pub const REST: Self = Self::Share(10_000);
}

impl FromStr for Size {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text == "rest" {
            return Ok(Self::REST);
        }
        if let Some(number) = text.strip_suffix('%') {
            return match number.trim_end().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Share((percent * 100.0).round() as u32)),
                _ => refuse(format!("`{text}` is not a share"), "write more than 0% and at most 100%"),
            };
        }
        match text.parse::<Bytes>() {
            Ok(Bytes::ZERO) => refuse(format!("`{text}` is nothing"), "write a size above zero"),
            Ok(bytes) => Ok(Self::Exact(bytes)),
            Err(error) => refuse(error.to_string(), error.hint),
        }
    }
}

/// Which sizes fit: `400GiB` exactly, `>= 400GiB`, `< 2TB`, two of them joined by a comma, or `100GiB..2TiB`
/// with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct SizeRange {
    pub min: Bytes,
    /// The largest size that fits.
    pub max: Bytes,
}

impl SizeRange {
    pub fn contains(&self, size: Bytes) -> bool {
        self.min <= size && size <= self.max
    }
}

impl fmt::Display for SizeRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(out, "{min}"),
            (min, Bytes(u64::MAX)) => write!(out, ">= {min}"),
            (Bytes::ZERO, max) => write!(out, "<= {max}"),
            (min, max) => write!(out, ">= {min}, <= {max}"),
        }
    }
}

impl FromStr for SizeRange {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if let Some((low, high)) = text.split_once("..") {
            return format!(">= {}, <= {}", low.trim(), high.trim()).parse();
        }
        let mut range = Self { min: Bytes::ZERO, max: Bytes(u64::MAX) };
        for part in text.split(',') {
            let part = part.trim();
            let (operator, number) = part.split_at(part.find(|c: char| !"<>=".contains(c)).unwrap_or(part.len()));
            let size = match number.trim().parse::<Bytes>() {
                Ok(size) => size,
                Err(error) => return refuse(error.to_string(), format!("write such as `>= 400GiB`; {}", error.hint)),
            };
            match operator {
                ">=" => range.min = range.min.max(size),
                ">" => range.min = range.min.max(Bytes(size.0.saturating_add(1))),
                "<=" => range.max = range.max.min(size),
                "<" => range.max = range.max.min(Bytes(size.0.saturating_sub(1))),
                "" | "=" | "==" => range = Self { min: size, max: size },
                _ => return refuse(format!("`{operator}` compares nothing"), "write >=, >, <=, < or ="),
            }
        }
        match range.min <= range.max {
            true => Ok(range),
            false => refuse(format!("no size fits `{text}`"), "the lower bound comes before the upper one"),
        }
    }
}

/// A time span: `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        const UNITS: &[(&str, u64)] = &[("h", 3600), ("m", 60), ("s", 1)];
        let parsed = UNITS
            .iter()
            .find_map(|(unit, seconds)| text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*seconds));
        match parsed {
            Some(seconds) => Ok(Self(Duration::from_secs(seconds))),
            None => refuse(format!("`{text}` is not a time span"), "write such as 30s, 5m or 1h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_partitions() {
        for (text, size) in [
            ("1GiB", Size::Exact(Bytes::gib(1))),
            ("100%", Size::REST),
            ("rest", Size::REST),
            ("12.5%", Size::Share(1250)),
            ("4096", Size::Exact(Bytes(4096))),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), size, "{text}");
        }
        for text in ["150%", "0%", "-1%", "20Gib", "0", "", "%"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_of_sizes() {
        for (text, fits, not) in [
            (">= 400GiB", 400 << 30, (400 << 30) - 1),
            ("> 1GiB", (1 << 30) + 1, 1 << 30),
            ("<1GiB", (1 << 30) - 1, 1 << 30),
            (">= 1GiB, < 2GiB", 3 << 29, 2 << 30),
            ("1GiB..2GiB", 2 << 30, (2 << 30) + 1),
            ("480103981056", 480_103_981_056, 480_103_981_055),
        ] {
            let range: SizeRange = text.parse().unwrap();
            assert!(range.contains(Bytes(fits)) && !range.contains(Bytes(not)), "{text}");
        }
        for text in [">= 2GiB, < 1GiB", "2GiB..1GiB", "..1GiB", "=> 1GiB", ">", "big"] {
            assert!(text.parse::<SizeRange>().is_err(), "{text}");
        }
    }
}
