//! Relations between packages (Debian policy 7.1): `a (>= 1) | b:any, c [amd64 !i386]`.

use std::cmp::Ordering;
use std::fmt;

use super::version;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

/// One alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub name: &'a str,
    /// `any`, `native` or an architecture.
    pub qualifier: Option<&'a str>,
    pub version: Option<(Operator, &'a str)>,
}

impl Relation<'_> {
    /// Whether a package of this version fits; an unversioned provision is `None` and fits only an unversioned relation.
    pub fn admits(&self, found: Option<&str>) -> bool {
        let Some((operator, wanted)) = self.version else { return true };
        let Some(found) = found else { return false };
        let order = version::compare(found, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(out, ":{qualifier}")?;
        }
        let Some((operator, version)) = self.version else { return Ok(()) };
        let operator = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(out, " ({operator} {version})")
    }
}

/// The groups of a field, each with its alternatives; what does not apply to `architecture` is left
/// out, and so is what is no relation at all.
pub fn parse<'a>(field: &'a str, architecture: &'a str) -> impl Iterator<Item = Vec<Relation<'a>>> {
    field.split(',').filter_map(move |group| {
        let alternatives: Vec<_> = group.split('|').filter_map(|text| parse_one(text, architecture)).collect();
        (!alternatives.is_empty()).then_some(alternatives)
    })
}

fn parse_one<'a>(text: &'a str, architecture: &str) -> Option<Relation<'a>> {
    let text = text.trim();
    let name_end = text.find(|c: char| c.is_whitespace() || "([<:".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(name_end);
    if name.is_empty() {
        return None;
    }
    let mut relation = Relation { name, qualifier: None, version: None };
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(|c: char| c.is_whitespace() || "([<".contains(c)).unwrap_or(after.len());
        relation.qualifier = Some(&after[..end]);
        rest = &after[end..];
    }
    rest = rest.trim_start();
    if let Some(after) = rest.strip_prefix('(') {
        let (inner, after) = after.split_once(')')?;
        relation.version = Some(parse_version(inner.trim())?);
        rest = after.trim_start();
    }
    if let Some(after) = rest.strip_prefix('[') {
        let (inner, _) = after.split_once(']')?;
        if !applies(inner, architecture) {
            return None;
        }
    }
    Some(relation)
}

fn parse_version(text: &str) -> Option<(Operator, &str)> {
    const OPERATORS: &[(&str, Operator)] = &[
        ("<<", Operator::Earlier),
        ("<=", Operator::EarlierOrEqual),
        (">=", Operator::LaterOrEqual),
        (">>", Operator::Later),
        ("=", Operator::Equal),
        // Obsolete forms that dpkg still reads, as "or equal".
        ("<", Operator::EarlierOrEqual),
        (">", Operator::LaterOrEqual),
    ];
    let (sign, operator) = OPERATORS.iter().find(|(sign, _)| text.starts_with(sign))?;
    Some((*operator, text[sign.len()..].trim()))
}

/// `amd64 arm64` names where it applies, `!i386` where it does not.
fn applies(list: &str, architecture: &str) -> bool {
    let mut words = list.split_whitespace().peekable();
    let negative = words.peek().is_some_and(|word| word.starts_with('!'));
    let named = words.any(|word| {
        let word = word.trim_start_matches('!');
        word == architecture
            || word == "any"
            || word == "linux-any"
            || word.strip_prefix("any-").is_some_and(|cpu| cpu == architecture)
    });
    named != negative
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Vec<String> {
        parse(field, "amd64")
            .map(|group| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
            .collect()
    }

    #[test]
    fn relations_are_read() {
        assert_eq!(
            shown(
                "libc6 (>= 2.34), debconf|debconf-2.0 , perl:any(<<5.38),\n x [!i386 !arm64], y [i386], z [linux-any], , a (= 1:2-3)"
            ),
            ["libc6 (>= 2.34)", "debconf | debconf-2.0", "perl:any (<< 5.38)", "x", "z", "a (= 1:2-3)"]
        );
    }

    #[test]
    fn versions_are_admitted() {
        for (field, version, fits) in [
            ("a (>= 1.0)", Some("1.0-1"), true),
            ("a (<< 1.0)", Some("1.0~rc1"), true),
            ("a (= 1.0)", Some("1.0-1"), false),
            ("a (>= 1.0)", None, false),
            ("a", None, true),
        ] {
            let group = parse(field, "amd64").next().unwrap();
            assert_eq!(group[0].admits(version), fits, "{field} {version:?}");
        }
    }
}
