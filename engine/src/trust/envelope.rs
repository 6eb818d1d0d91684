//! The envelope: for which machines and for which time a signed document counts.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::Window;

/// What the trusted comment of a signature says. `Display` writes what `FromStr` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Envelope {
    #[serde(flatten)]
    pub window: Window,
    #[serde(rename = "machine")]
    pub scope: Scope,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EnvelopeError {
    #[error("the trusted comment does not begin with `castiron`")]
    Missing,
    #[error("the trusted comment has no `{0}=`")]
    NoField(&'static str),
    #[error("the trusted comment says `{0}=` twice")]
    Twice(String),
    #[error("the trusted comment has the unknown field `{0}`")]
    Unknown(String),
    #[error("`{value}` of `{field}=` is not a time as RFC 3339 writes it")]
    NotATime { field: &'static str, value: String },
    #[error("not-before {not_before} is later than not-after {not_after}")]
    Backwards { not_before: Timestamp, not_after: Timestamp },
    #[error("the machine scope cannot be read")]
    Scope(#[from] ScopeError),
}

impl FromStr for Envelope {
    type Err = EnvelopeError;

    fn from_str(comment: &str) -> Result<Self, EnvelopeError> {
        let mut words = comment.split_ascii_whitespace();
        if words.next() != Some("castiron") {
            return Err(EnvelopeError::Missing);
        }
        let (mut not_before, mut not_after, mut machine) = (None, None, None);
        for word in words {
            let (field, value) = word.split_once('=').ok_or_else(|| EnvelopeError::Unknown(word.to_owned()))?;
            let place = match field {
                "not-before" => &mut not_before,
                "not-after" => &mut not_after,
                "machine" => &mut machine,
                _ => return Err(EnvelopeError::Unknown(field.to_owned())),
            };
            if place.replace(value).is_some() {
                return Err(EnvelopeError::Twice(field.to_owned()));
            }
        }
        let not_before = time("not-before", not_before)?;
        let not_after = time("not-after", not_after)?;
        if not_before > not_after {
            return Err(EnvelopeError::Backwards { not_before, not_after });
        }
        let scope = machine.ok_or(EnvelopeError::NoField("machine"))?.parse()?;
        Ok(Self { window: Window { not_before, not_after }, scope })
    }
}

fn time(field: &'static str, value: Option<&str>) -> Result<Timestamp, EnvelopeError> {
    let value = value.ok_or(EnvelopeError::NoField(field))?;
    value.parse().map_err(|_| EnvelopeError::NotATime { field, value: value.to_owned() })
}

impl fmt::Display for Envelope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { not_before, not_after } = self.window;
        write!(out, "castiron not-before={not_before} not-after={not_after} machine={}", self.scope)
    }
}

/// What identifies the machine at hand. MAC addresses are lower case with colons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub macs: Vec<String>,
    pub uuid: Option<String>,
    pub serial: Option<String>,
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.macs.iter().map(|mac| format!("mac:{mac}"));
        let named = named.chain(self.uuid.iter().map(|uuid| format!("uuid:{uuid}")));
        let named = named.chain(self.serial.iter().map(|serial| format!("serial:{serial}")));
        let named: Vec<String> = named.collect();
        match named.is_empty() {
            true => out.write_str("a machine without any identity"),
            false => out.write_str(&named.join(",")),
        }
    }
}

/// The machines a document is for. One rule that fits is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Any,
    Only(Vec<ScopeRule>),
}

/// One rule; its pattern may hold `*` (any text) and `?` (any one character). Case does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeRule {
    Mac(String),
    Uuid(String),
    Serial(String),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScopeError {
    #[error("`{0}` is no machine rule: write any, or a comma list of mac:…, uuid:… and serial:…")]
    NotARule(String),
    #[error("`{0}` has a blank: write ? in its place")]
    Blank(String),
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl FromStr for ScopeRule {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.contains(char::is_whitespace) {
            return Err(ScopeError::Blank(text.to_owned()));
        }
        match text.split_once(':') {
            Some((_, "")) | None => Err(ScopeError::NotARule(text.to_owned())),
            Some(("mac", mac)) => Ok(Self::Mac(mac.to_ascii_lowercase().replace('-', ":"))),
            Some(("uuid", uuid)) => Ok(Self::Uuid(uuid.to_ascii_lowercase())),
            Some(("serial", serial)) => Ok(Self::Serial(serial.to_owned())),
            Some(_) => Err(ScopeError::NotARule(text.to_owned())),
        }
    }
}

impl Scope {
    pub fn covers(&self, machine: &Machine) -> bool {
        match self {
            Self::Any => true,
            Self::Only(rules) => rules.iter().any(|rule| match rule {
                ScopeRule::Mac(pattern) => machine.macs.iter().any(|mac| glob(pattern, mac)),
                ScopeRule::Uuid(pattern) => machine.uuid.as_deref().is_some_and(|uuid| glob(pattern, uuid)),
                ScopeRule::Serial(pattern) => machine.serial.as_deref().is_some_and(|serial| glob(pattern, serial)),
            }),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
            Self::Only(rules) => out.write_str(&rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

impl fmt::Display for ScopeRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(pattern) => write!(out, "mac:{pattern}"),
            Self::Uuid(pattern) => write!(out, "uuid:{pattern}"),
            Self::Serial(pattern) => write!(out, "serial:{pattern}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `*` and `?` over the whole text, without regard to case. Linear in the text for each `*`: the
/// last star is the only one that ever needs to take back what it matched.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    p = after + 1;
                    t = taken + 1;
                    star = Some((after, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_cover_whole_texts() {
        for (pattern, text, fits) in [
            ("52:54:*", "52:54:00:12:34:56", true),
            ("52:54:*:56", "52:54:00:12:34:56", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("S5GX*1", "s5gx-0001", true),
            ("VMware-56?4d*", "VMware-56 4d 1a", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} against {text}");
        }
    }

    #[test]
    fn an_envelope_survives_its_text() {
        let text =
            "castiron not-before=2026-09-01T00:00:00Z not-after=2026-10-01T00:00:00Z machine=mac:52:54:*,serial:X1";
        let envelope: Envelope = text.parse().unwrap();
        assert_eq!(envelope.to_string(), text);
    }

    #[test]
    fn a_broken_envelope_is_refused_by_name() {
        let good = "not-before=2026-09-01T00:00:00Z not-after=2026-10-01T00:00:00Z";
        for (comment, message) in [
            ("timestamp:1633700835\tfile:test".to_owned(), "the trusted comment does not begin with `castiron`"),
            (format!("castiron {good}"), "the trusted comment has no `machine=`"),
            ("castiron machine=any".to_owned(), "the trusted comment has no `not-before=`"),
            (format!("castiron {good} machine=any machine=any"), "the trusted comment says `machine=` twice"),
            (format!("castiron {good} machine=any color=red"), "the trusted comment has the unknown field `color`"),
            (format!("castiron {good} machine=node7"), "the machine scope cannot be read"),
            (
                "castiron not-before=yesterday not-after=2026-10-01T00:00:00Z machine=any".to_owned(),
                "`yesterday` of `not-before=` is not a time as RFC 3339 writes it",
            ),
            (
                "castiron not-before=2026-11-01T00:00:00Z not-after=2026-10-01T00:00:00Z machine=any".to_owned(),
                "not-before 2026-11-01T00:00:00Z is later than not-after 2026-10-01T00:00:00Z",
            ),
        ] {
            assert_eq!(comment.parse::<Envelope>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn dashes_in_a_mac_are_colons() {
        let scope: Scope = "mac:52-54-00-AB-CD-EF".parse().unwrap();
        let machine = Machine { macs: vec!["52:54:00:ab:cd:ef".into()], ..Machine::default() };
        assert!(scope.covers(&machine));
        assert!(!"uuid:*".parse::<Scope>().unwrap().covers(&machine), "a machine without UUID has no UUID that fits");
    }
}
