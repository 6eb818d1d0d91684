//! From a tree to the config types, with all mistakes at once.
//!
//! serde's derived code stops at the first mistake. [`read`] notes it, leaves the value that has it out of
//! the tree, and reads again, until nothing is wrong or the whole document is left out; a key that is
//! missing only because it was left out is not reported a second time.
//!
//! Invariant: every round either succeeds or leaves out one more node, so the number of rounds is bounded
//! by the mistakes shown ([`MISTAKES_MAX`]) and those that follow from them.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::scalar::{self, Wrong};
use super::tree::{Entry, Node, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, Place};

pub const MISTAKES_MAX: usize = 100;

pub fn read<'a, T: Deserialize<'a>>(root: &'a Node, file: &str) -> Result<T, Diagnostics> {
    let mut found = Diagnostics::default();
    let mut left_out = HashSet::new();
    loop {
        let reader = Reader { node: root, left_out: &left_out };
        let fault = match T::deserialize(reader) {
            Ok(value) if found.0.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(fault) => fault,
        };
        let node = fault.node;
        if let Some(diagnostic) = fault.show(file)
            && !found.0.contains(&diagnostic)
        {
            found.push(diagnostic);
        }
        match node {
            Some(id) if id != root.id && found.0.len() < MISTAKES_MAX && left_out.insert(id) => {}
            _ => break,
        }
    }
    found.0.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| (place.line, place.column)));
    Err(found)
}

/// A mistake on its way up from the value that has it.
#[derive(Debug)]
pub struct Fault {
    rule: Box<str>,
    message: Box<str>,
    hint: Option<Box<str>>,
    /// Where it is shown.
    place: Option<(u32, u32)>,
    /// What is left out in the next round.
    node: Option<usize>,
    /// The keys and indices from the root, innermost first.
    path: Vec<String>,
    missing: Option<&'static str>,
    follows: bool,
}

impl Fault {
    fn new(rule: &str, message: String, hint: Option<String>) -> Self {
        let (rule, message, hint) = (rule.into(), message.into(), hint.map(Into::into));
        Self { rule, message, hint, place: None, node: None, path: Vec::new(), missing: None, follows: false }
    }

    fn at(mut self, node: &Node) -> Self {
        self.place.get_or_insert((node.line, node.column));
        self.node.get_or_insert(node.id);
        self
    }

    fn show(mut self, file: &str) -> Option<Diagnostic> {
        if self.follows {
            return None;
        }
        self.path.reverse();
        let path = self.path.concat();
        let message = match path.trim_start_matches('.') {
            "" => self.message.into(),
            path => format!("{path}: {}", self.message),
        };
        let place = self.place.map(|(line, column)| Place { file: file.to_owned(), line, column });
        Some(Diagnostic { hint: self.hint.map(Into::into), ..Diagnostic::error(self.rule, message).at(place) })
    }
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self::new("config.type", wrong.message, Some(wrong.hint))
    }
}

/// A mistake that a type of ours finds in its text, in a shape that survives `serde::de::Error::custom`.
#[derive(Debug)]
pub struct Refusal {
    pub rule: &'static str,
    pub message: String,
    pub hint: String,
}

const RULE_MARK: &str = "\n  rule: ";
const HINT_MARK: &str = "\n  hint: ";

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{HINT_MARK}{}{RULE_MARK}{}", self.message, self.hint, self.rule)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let whole = message.to_string();
        let (rest, rule) = whole.rsplit_once(RULE_MARK).unwrap_or((&whole, "config.value"));
        match rest.rsplit_once(HINT_MARK) {
            Some((message, hint)) => Self::new(rule, message.to_owned(), Some(hint.to_owned())),
            None => Self::new(rule, rest.to_owned(), None),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            Unexpected::Str(text) => format!("`{text}`"),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            Unexpected::Unit => "nothing".to_owned(),
            other => other.to_string(),
        };
        let expected = expected.to_string();
        let expected = match expected.as_str() {
            _ if expected.starts_with("struct ") || expected == "a map" => "a mapping (`key: value`)".to_owned(),
            _ if expected.starts_with("a sequence") => "a list (`[one, two]`)".to_owned(),
            "a string" => "text".to_owned(),
            _ => expected,
        };
        Self::new("config.type", format!("here stands {found}"), Some(format!("write {expected}")))
    }

    fn unknown_variant(word: &str, allowed: &'static [&'static str]) -> Self {
        Self::new("config.unknown-word", format!("`{word}` is not known here"), Some(suggest(word, allowed)))
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        Self::new("config.unknown-key", format!("unknown key `{key}`"), Some(suggest(key, allowed)))
    }

    fn missing_field(key: &'static str) -> Self {
        let mut fault = Self::new("config.missing-key", format!("key `{key}` is missing"), None);
        fault.missing = Some(key);
        fault
    }
}

fn nearest<'w>(word: &str, allowed: &[&'w str]) -> Option<&'w str> {
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    allowed
        .iter()
        .map(|known| (strsim::osa_distance(&plain(word), &plain(known)), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len().min(word.len()) / 4)
        .min()
        .map(|(_, known)| known)
}

/// The nearest word, or all words if none is near.
fn suggest(word: &str, allowed: &[&str]) -> String {
    match nearest(word, allowed) {
        Some(known) => format!("did you mean `{known}`?"),
        None if allowed.is_empty() => "nothing is taken here".to_owned(),
        None => format!("write one of: {}", allowed.join(", ")),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a, 'p> {
    node: &'a Node,
    left_out: &'p HashSet<usize>,
}

impl<'a, 'p> Reader<'a, 'p> {
    fn scalar(&self, expected: &dyn de::Expected) -> Result<(&'a str, bool), Fault> {
        match &self.node.value {
            Value::Scalar { text, plain } => Ok((text, *plain)),
            Value::Sequence(_) => Err(de::Error::invalid_type(Unexpected::Seq, expected)),
            Value::Mapping(_) => Err(de::Error::invalid_type(Unexpected::Map, expected)),
        }
    }

    fn located<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(self.node))
    }

    fn integer<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = self.scalar(&visitor).and_then(|(text, plain)| Ok(scalar::integer(text, plain)?));
        let value = number.and_then(|number| match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) => visitor.visit_u64(number),
            (_, Ok(number)) => visitor.visit_i64(number),
            _ => Err(Fault::new("config.value", format!("`{number}` is too large"), None)),
        });
        self.located(value)
    }

    fn mapping<V: Visitor<'a>>(self, entries: &'a [Entry], visitor: V) -> Result<V::Value, Fault> {
        let mut access = Entries { entries: entries.iter(), left_out: self.left_out, value: None };
        let value = visitor.visit_map(&mut access).map_err(|mut fault| {
            fault.follows |= fault.place.is_none()
                && fault.missing.is_some_and(|key| {
                    let meant = |entry: &Entry| nearest(&entry.key, &[key]).is_some();
                    entries.iter().any(|entry| self.left_out.contains(&entry.value.id) && meant(entry))
                });
            fault
        });
        self.located(value)
    }

    fn sequence<V: Visitor<'a>>(self, items: &'a [Node], visitor: V) -> Result<V::Value, Fault> {
        let access = Items { items: items.iter().enumerate(), left_out: self.left_out };
        self.located(visitor.visit_seq(access))
    }
}

impl<'a> Deserializer<'a> for Reader<'a, '_> {
    type Error = Fault;

    /// Scalars are text unless the field asks for something else.
    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { text, plain } if scalar::is_null(text, *plain) => self.located(visitor.visit_unit()),
            Value::Scalar { text, .. } => self.located(visitor.visit_borrowed_str(text)),
            Value::Sequence(items) => self.sequence(items, visitor),
            Value::Mapping(entries) => self.mapping(entries, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.scalar(&visitor).and_then(|(text, plain)| visitor.visit_bool(scalar::truth(text, plain)?));
        self.located(value)
    }

    fn deserialize_i64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }
    fn deserialize_i32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }
    fn deserialize_u64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }
    fn deserialize_u32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }
    fn deserialize_u16<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }
    fn deserialize_u8<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.integer(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value =
            self.scalar(&visitor).and_then(|(text, plain)| visitor.visit_borrowed_str(scalar::text(text, plain)?));
        self.located(value)
    }
    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { text, plain } if scalar::is_null(text, *plain) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// A word, or dib's mapping of one key to its settings.
    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let value = match &self.node.value {
            Value::Scalar { text, plain } => scalar::text(text, *plain)
                .map_err(Fault::from)
                .and_then(|text| visitor.visit_enum(Variant { word: text, value: None, left_out: self.left_out })),
            Value::Mapping(entries) => match entries.as_slice() {
                [Entry { key, value, .. }] => visitor
                    .visit_enum(Variant { word: key, value: Some(value), left_out: self.left_out })
                    .map_err(|fault| Fault { node: fault.node.filter(|node| *node != value.id), ..fault }),
                _ => Err(Fault::new(
                    "config.one-key",
                    format!("an entry has exactly one key, this one has {}", entries.len()),
                    Some("start each entry with `- ` and indent its settings below its key".to_owned()),
                )),
            },
            Value::Sequence(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
        };
        self.located(value)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.located(visitor.visit_unit())
    }

    forward_to_deserialize_any! {
        <V: Visitor<'a>>
        i8 i16 i128 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct Items<'a, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    left_out: &'p HashSet<usize>,
}

impl<'a> SeqAccess<'a> for Items<'a, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.by_ref().find(|(_, node)| !self.left_out.contains(&node.id)) else {
            return Ok(None);
        };
        let item = seed.deserialize(Reader { node, left_out: self.left_out });
        item.map(Some).map_err(|mut fault| {
            fault.path.push(format!("[{index}]"));
            fault.at(node)
        })
    }
}

struct Entries<'a, 'p> {
    entries: std::slice::Iter<'a, Entry>,
    left_out: &'p HashSet<usize>,
    value: Option<&'a Entry>,
}

impl<'a> MapAccess<'a> for Entries<'a, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.by_ref().find(|entry| !self.left_out.contains(&entry.value.id));
        let Some(entry) = self.value else { return Ok(None) };
        let key = seed.deserialize(de::value::BorrowedStrDeserializer::<Fault>::new(&entry.key));
        key.map(Some).map_err(|mut fault| {
            fault.place = Some((entry.key_line, entry.key_column));
            fault.node = Some(entry.value.id);
            fault
        })
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry =
            self.value.take().ok_or_else(|| Fault::new("config.value", "a key has no value".to_owned(), None))?;
        seed.deserialize(Reader { node: &entry.value, left_out: self.left_out }).map_err(|mut fault| {
            fault.path.push(format!(".{}", entry.key));
            fault.at(&entry.value)
        })
    }
}

struct Variant<'a, 'p> {
    word: &'a str,
    value: Option<&'a Node>,
    left_out: &'p HashSet<usize>,
}

impl<'a, 'p> EnumAccess<'a> for Variant<'a, 'p> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let word = seed.deserialize(de::value::BorrowedStrDeserializer::<Fault>::new(self.word))?;
        Ok((word, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'a, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.value {
            None => Ok(()),
            Some(node) => Err(Fault::new("config.type", format!("`{}` takes no settings", self.word), None).at(node)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Fault> {
        let Some(node) = self.value else {
            let hint = Some(format!("write `{}:` and its settings", self.word));
            return Err(Fault::new("config.type", format!("`{}` needs settings", self.word), hint));
        };
        seed.deserialize(Reader { node, left_out: self.left_out }).map_err(|mut fault| {
            fault.path.push(format!(".{}", self.word));
            fault
        })
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Err(de::Error::invalid_type(Unexpected::TupleVariant, &visitor))
    }

    fn struct_variant<V: Visitor<'a>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        Err(de::Error::invalid_type(Unexpected::StructVariant, &visitor))
    }
}
