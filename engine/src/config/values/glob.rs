//! Patterns for the texts that hardware tells.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;

use super::{Refusal, refuse};

from_text!(Glob);

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
