//! Values that are checked while the config is read, so that all mistakes in them are reported at once.
//!
//! In: the text of one scalar. Out: a value that is valid, or what is wrong with it and what to write.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::de::Refusal;
use crate::units::Secret;

/// Makes a type that is read from text by its `FromStr`.
macro_rules! from_text {
    ($($name:ident),*) => { $(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}

mod glob;
mod name;
mod size;

pub use glob::Glob;
pub use name::{AbsolutePath, EnvironmentName, FileMode, HostName, Owner, PackageName, UserName};
pub use size::{Size, SizeRange, Span};

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
