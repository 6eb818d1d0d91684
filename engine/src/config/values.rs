//! Values that are checked while the config is read, so that all mistakes in them are reported at once.
//!
//! In: the text of one scalar. Out: a value that is valid, or what is wrong with it and what to write.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::de::Refusal;
use crate::units::{Bytes, Mode, Secret};

/// Makes a type that is read from text by its `FromStr`.
macro_rules! from_text {
    ($($name:ident),*) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )* };
}

from_text!(
    Size,
    SizeRange,
    Span,
    HostName,
    AbsolutePath,
    PackageName,
    UserName,
    EnvironmentName,
    FileMode,
    Owner,
    Glob
);
from_text!(SecretText);

fn refuse<T>(message: String, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { rule: "config.value", message, hint: hint.into() })
}

/// The schema's version; this castiron reads version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "u32", extend("const" = 1))]
pub struct Version(pub u32);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Self(1)),
            other => Err(D::Error::custom(Refusal {
                rule: "config.version",
                message: format!("schema version {other} is not known"),
                hint: "this castiron reads version 1".to_owned(),
            })),
        }
    }
}

/// A key that is part of the schema and not of this version; giving it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {}

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(Refusal {
            rule: "config.later",
            message: "not in this version of castiron".to_owned(),
            hint: "leave the key out".to_owned(),
        }))
    }
}

impl JsonSchema for Later {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Later".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "not": {}, "description": "Not in this version." })
    }
}

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

/// A host name of one or more labels (RFC 1123 section 2.1), which may name variables such as `node-${serial}`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct HostName(pub String);

impl HostName {
    /// Whether a text without variables is a host name.
    pub fn is_valid(text: &str) -> bool {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        text.len() <= 64 && text.split('.').all(label)
    }
}

impl FromStr for HostName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let without_variables = match crate::config::variables::names(text) {
            Ok(names) => names.iter().fold(text.to_owned(), |text, name| text.replace(&format!("${{{name}}}"), "x")),
            Err(message) => return refuse(message, "write variables as ${name}"),
        };
        match Self::is_valid(&without_variables) {
            true => Ok(Self(text.to_owned())),
            false => refuse(
                format!("`{}` is not a host name", text.escape_debug()),
                "letters, digits and `-`, in labels of at most 63 joined by dots, 64 in all",
            ),
        }
    }
}

/// An absolute path without `.` or `..`, in the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct AbsolutePath(pub Utf8PathBuf);

impl FromStr for AbsolutePath {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let dotted = text.split('/').any(|part| part == "." || part == "..");
        if !text.starts_with('/') || dotted || text.chars().any(char::is_control) || text.len() > 4095 {
            return refuse(
                format!("`{}` is not an absolute path", text.escape_debug()),
                "begin with `/`, without `.` and `..`",
            );
        }
        Ok(Self(Utf8Path::new(text).components().collect()))
    }
}

/// A Debian package name (policy 5.6.7), with `:architecture` or without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct PackageName(pub String);

impl FromStr for PackageName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let name = text.split_once(':').map_or(text, |(name, _)| name);
        let arch = text.split_once(':').map_or("any", |(_, arch)| arch);
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = name.len() >= 2
            && name.bytes().next().is_some_and(lower)
            && name.bytes().all(|byte| lower(byte) || b"+-.".contains(&byte))
            && !arch.is_empty()
            && arch.bytes().all(|byte| lower(byte) || byte == b'-');
        match valid {
            true => Ok(Self(text.to_owned())),
            false => refuse(
                format!("`{}` is not a package name", text.escape_debug()),
                "small letters, digits, `+`, `-` and `.`; versions cannot be chosen here",
            ),
        }
    }
}

/// A user or group name as Debian's `adduser` takes it (useradd(8): at most 32 characters).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct UserName(pub String);

impl FromStr for UserName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let valid = text.len() <= 32
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(|byte| first(byte) || byte.is_ascii_digit() || byte == b'-');
        match valid {
            true => Ok(Self(text.to_owned())),
            false => refuse(
                format!("`{}` is not a user or group name", text.escape_debug()),
                "at most 32 small letters, digits, `-` and `_`, not beginning with a digit",
            ),
        }
    }
}

/// The name of a variable: letters, digits, `_`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct EnvironmentName(pub String);

impl FromStr for EnvironmentName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        match valid {
            true => Ok(Self(text.to_owned())),
            false => refuse(format!("`{}` is not a name", text.escape_debug()), "letters, digits, `_` and `-`"),
        }
    }
}

/// Permission bits in octal, as text: `"0644"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct FileMode(pub Mode);

impl FromStr for FileMode {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
            Ok(mode) if mode <= 0o7777 && text.len() >= 3 => Ok(Self(Mode(mode))),
            _ => refuse(format!("`{text}` is not a mode"), "write three or four octal digits such as \"0644\""),
        }
    }
}

/// `user` or `user:group`, by name or number.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Owner {
    pub user: String,
    pub group: Option<String>,
}

impl FromStr for Owner {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let name = |text: &str| text.parse::<u32>().is_ok() || text.parse::<UserName>().is_ok();
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        match name(user) && group.is_none_or(name) {
            true => Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) }),
            false => {
                refuse(format!("`{}` is not an owner", text.escape_debug()), "write user:group, by name or number")
            }
        }
    }
}

/// A pattern: `*` is any text, `?` one character, `[a-z]` one of a set, `[!a-z]` none of it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Glob(String);

impl Glob {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, text: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let text: Vec<char> = text.chars().collect();
        matches(&pattern, &text)
    }
}

/// Remembers only the last `*`, so the time is bounded by the product of both lengths.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match one(pattern, p, text[t]) {
            Some(next) => {
                p = next;
                t += 1;
            }
            None => match star {
                Some((star_p, star_t)) => {
                    p = star_p + 1;
                    t = star_t + 1;
                    star = Some((star_p, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The place after the part of the pattern that matches one character.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => {
            let end = set_end(pattern, at)?;
            let negated = matches!(pattern[at + 1], '!' | '^');
            let set = &pattern[at + 1 + usize::from(negated)..end];
            let mut found = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    found |= set[i] <= c && c <= set[i + 2];
                    i += 3;
                } else {
                    found |= set[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        literal => (literal == c).then_some(at + 1),
    }
}

/// Where the `]` of a set is; directly after `[` or `[!` it stands for itself.
fn set_end(pattern: &[char], at: usize) -> Option<usize> {
    let first = at + 1 + usize::from(matches!(pattern.get(at + 1), Some('!' | '^')));
    (first + 1..pattern.len()).find(|index| pattern[*index] == ']')
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Glob {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let pattern: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < pattern.len() {
            if pattern[at] == '[' {
                match set_end(&pattern, at) {
                    Some(end) => at = end,
                    None => return refuse(format!("`{text}` opens a set that does not end"), "close it with `]`"),
                }
            }
            at += 1;
        }
        match text.is_empty() || text.len() > 256 {
            true => refuse("a pattern has 1 to 256 characters".to_owned(), "write `*` for any text"),
            false => Ok(Self(text.to_owned())),
        }
    }
}

/// A text that is never shown.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct SecretText(pub Secret);

impl FromStr for SecretText {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Ok(Self(Secret::new(text)))
    }
}

/// A command: a list is started as it stands, a text is given to `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list (`[program, argument]`), or text for the shell")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Command, E> {
                match text.trim().is_empty() {
                    true => Err(E::custom("an empty command")),
                    false => Ok(Command::Shell(text.to_owned())),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Command, A::Error> {
                let mut words: Vec<String> = Vec::new();
                while let Some(word) = items.next_element()? {
                    words.push(word);
                }
                match words.first().is_none_or(String::is_empty) {
                    true => Err(A::Error::custom("a command needs a program")),
                    false => Ok(Command::Exec(words)),
                }
            }
        }

        deserializer.deserialize_any(CommandVisitor)
    }
}

/// A list, or one value that stands for a list of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "OneOrManySchema")]
pub struct OneOrMany(pub Vec<String>);

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "the shape for the schema")]
enum OneOrManySchema {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("text, or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(OneOrMany(list))
            }
        }

        deserializer.deserialize_any(ListVisitor)
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

    #[test]
    fn globs_match_whole_texts() {
        for (pattern, text, expected) in [
            ("S5GX*1", "S5GX0001", true),
            ("S5GX*1", "S5GX0002", false),
            ("*", "", true),
            ("?", "", false),
            ("nvme?n1", "nvme0n1", true),
            ("sd[a-c]", "sdb", true),
            ("sd[!a-c]", "sdb", false),
            ("sd[]x]", "sd]", true),
            ("a*b*c", "aXbYbZc", true),
            ("Samsung*", "SAMSUNG X", false),
            ("**", "ab", true),
        ] {
            assert_eq!(pattern.parse::<Glob>().unwrap().matches(text), expected, "{pattern} {text}");
        }
        assert!("a[bc".parse::<Glob>().is_err());
        let slow = "*a".repeat(100).parse::<Glob>().unwrap();
        assert!(!slow.matches(&"a".repeat(99)) && !slow.matches(&"b".repeat(10_000)));
    }

    #[test]
    fn names_are_taken_or_refused() {
        for (text, valid) in [
            ("node7", true),
            ("a.example.org", true),
            ("node-${serial}", true),
            ("${vars.rack}-${hostname}", true),
            ("-x", false),
            ("x_y", false),
            ("a..b", false),
            ("$(reboot)", false),
            ("x\ny", false),
            ("${open", false),
            ("\u{202e}x", false),
        ] {
            assert_eq!(text.parse::<HostName>().is_ok(), valid, "{text:?}");
        }
        assert!("x".repeat(65).parse::<HostName>().is_err());
        for (text, valid) in [("/srv/pg", true), ("/", true), ("srv", false), ("/a/../b", false), ("/a\nb", false)] {
            assert_eq!(text.parse::<AbsolutePath>().is_ok(), valid, "{text:?}");
        }
        for (text, valid) in [
            ("g++", true),
            ("libc6:amd64", true),
            ("x", false),
            ("Foo", false),
            ("a=1", false),
            ("-y", false),
            ("a;b", false),
        ] {
            assert_eq!(text.parse::<PackageName>().is_ok(), valid, "{text:?}");
        }
        for (text, valid) in
            [("ops", true), ("_apt", true), ("1st", false), ("a b", false), ("root:x", false), ("-x", false)]
        {
            assert_eq!(text.parse::<UserName>().is_ok(), valid, "{text:?}");
        }
        for (text, mode) in [
            ("0644", Some(0o644)),
            ("0o755", Some(0o755)),
            ("644", Some(0o644)),
            ("9", None),
            ("10000", None),
            ("rw", None),
        ] {
            assert_eq!(text.parse::<FileMode>().ok().map(|mode| mode.0.0), mode, "{text:?}");
        }
        assert!(
            "root:adm".parse::<Owner>().is_ok() && "0:0".parse::<Owner>().is_ok() && "a:b:c".parse::<Owner>().is_err()
        );
    }
}
