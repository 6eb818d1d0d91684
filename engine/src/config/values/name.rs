//! Names, paths, owners and modes of the target, each checked by the rules of whoever reads it there.

use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;

use super::{Refusal, refuse};
use crate::units::Mode;

from_text!(HostName, AbsolutePath, PackageName, UserName, EnvironmentName, FileMode, Owner);

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

#[cfg(test)]
mod tests {
    use super::*;

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
