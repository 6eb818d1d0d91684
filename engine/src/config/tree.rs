//! YAML text as a tree that remembers where everything stands.
//!
//! In: bytes and a file name. Out: one [`Node`], aliases expanded and merge keys applied, or what is
//! wrong. Scalars keep their text: what `no` or `0755` means is decided by the field that takes it,
//! never by the parser (see [`super::scalar`]).
//!
//! Invariant: a tree is at most [`SIZE_MAX`] bytes, [`DEPTH_MAX`] levels and [`NODES_MAX`] nodes large,
//! expanded aliases included, so no text of a few hundred bytes can use up the machine.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::units::Bytes;

pub const SIZE_MAX: Bytes = Bytes::mib(1);
pub const DEPTH_MAX: usize = 64;
pub const NODES_MAX: usize = 100_000;

/// A value with its place; lines and columns count from one.
#[derive(Clone, Debug)]
pub struct Node {
    /// Different for every node of a tree, copies made by aliases included.
    pub id: usize,
    pub line: u32,
    pub column: u32,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Scalar { text: String, plain: bool },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_line: u32,
    pub key_column: u32,
    pub value: Node,
}

impl Node {
    fn new(span: Span, value: Value) -> Self {
        Self { id: 0, line: clamp(span.start.line()), column: clamp(span.start.col() + 1), value }
    }

    pub fn place(&self, file: &str) -> Place {
        Place { file: file.to_owned(), line: self.line, column: self.column }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::count).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| 1 + entry.value.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
        }
    }

    fn number(&mut self, next: &mut usize) {
        self.id = *next;
        *next += 1;
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.number(next)),
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| entry.value.number(next)),
        }
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Reads one document. All mistakes that leave the tree readable are reported together.
pub fn parse(bytes: &[u8], file: &str) -> Result<Node, Diagnostics> {
    let text = text_of(bytes, file)?;
    let mut builder = Builder { file, ..Builder::default() };
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    for event in Parser::new_from_str_with_options(text, options) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                let marker = error.marker();
                let place = Some(builder.place(clamp(marker.line()), clamp(marker.col() + 1)));
                Err(Box::new(Diagnostic::error("yaml.syntax", format!("this is not YAML: {}", error.info())).at(place)))
            }
        };
        if let Err(fatal) = taken {
            builder.found.push(*fatal);
            return Err(builder.found);
        }
    }
    match builder.root {
        Some(mut root) if !builder.found.has_errors() => {
            root.number(&mut 0);
            Ok(root)
        }
        Some(_) => Err(builder.found),
        None => Err(Diagnostic::error("config.empty", format!("{file} holds no document"))
            .hint("the shortest config is `castiron: 1` and a `source`")
            .into()),
    }
}

fn text_of<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, Diagnostics> {
    if bytes.len() as u64 > SIZE_MAX.0 {
        return Err(Diagnostic::error(
            "yaml.size",
            format!("{file} has {} bytes, more than the {SIZE_MAX} a config may have", bytes.len()),
        )
        .into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::error("yaml.utf8", "this line is not UTF-8")
            .at(Some(Place { file: file.to_owned(), line: clamp(line), column: 1 }))
            .hint("save the file as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(index) = text.find(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        let line = text[..index].matches('\n').count() + 1;
        return Err(Diagnostic::error("yaml.control", "this line has a control character")
            .at(Some(Place { file: file.to_owned(), line: clamp(line), column: 1 }))
            .hint("write it as an escape in double quotes, such as \"\\0\" or \"\\e\"")
            .into());
    }
    Ok(text)
}

#[derive(Default)]
struct Builder<'a> {
    file: &'a str,
    found: Diagnostics,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
}

/// A collection that is still being read.
struct Open {
    anchor: usize,
    node: Node,
    key: Option<Node>,
    merges: Vec<Node>,
}

type Fatal = Box<Diagnostic>;

impl Builder<'_> {
    fn place(&self, line: u32, column: u32) -> Place {
        Place { file: self.file.to_owned(), line, column }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = Node::new(span, value);
                if anchor != 0 {
                    self.anchors.insert(anchor, node.clone());
                }
                self.add(node, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.start(anchor, Node::new(span, Value::Sequence(Vec::new())))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.start(anchor, Node::new(span, Value::Mapping(Vec::new())))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let place = self.place(clamp(span.start.line()), clamp(span.start.col() + 1));
                    let several = Diagnostic::error("yaml.documents", "a second document starts here")
                        .hint("a config is one document; put the others into files of their own");
                    return Err(Box::new(several.at(Some(place))));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            let marker = span.tag_start.unwrap_or(span.start);
            let place = self.place(clamp(marker.line()), clamp(marker.col() + 1));
            let refused = Diagnostic::error("yaml.tag", "tags such as `!!str` are not used in a config");
            self.found.push(refused.at(Some(place)).hint("remove the tag; write text in quotes"));
        }
    }

    fn budget(&mut self, nodes: usize, depth: usize, line: u32, column: u32) -> Result<(), Fatal> {
        self.nodes += nodes;
        let place = Some(self.place(line, column));
        if self.nodes > NODES_MAX {
            let message = format!("alias expansion exceeds {NODES_MAX} nodes (line {line})");
            return Err(Box::new(Diagnostic::error("yaml.nodes", message).at(place)));
        }
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} levels deep (line {line})");
            return Err(Box::new(Diagnostic::error("yaml.depth", message).at(place)));
        }
        Ok(())
    }

    fn start(&mut self, anchor: usize, node: Node) -> Result<(), Fatal> {
        self.budget(1, self.open.len() + 1, node.line, node.column)?;
        self.open.push(Open { anchor, node, key: None, merges: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fatal> {
        let Some(mut done) = self.open.pop() else { return Ok(()) };
        if let Value::Mapping(entries) = &mut done.node.value {
            for merge in done.merges {
                let Value::Mapping(merged) = merge.value else { continue };
                for entry in merged {
                    if !entries.iter().any(|own| own.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
        }
        if done.anchor != 0 {
            self.anchors.insert(done.anchor, done.node.clone());
        }
        self.add(done.node, 0)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Fatal> {
        let (line, column) = (clamp(span.start.line()), clamp(span.start.col() + 1));
        let Some(node) = self.anchors.get(&anchor) else {
            let ring = Diagnostic::error("yaml.alias", "this alias stands inside the value that it names");
            return Err(Box::new(ring.at(Some(self.place(line, column)))));
        };
        let (count, depth) = (node.count(), node.depth());
        self.budget(count, self.open.len() + depth, line, column)?;
        let node = self.anchors[&anchor].clone();
        self.add(node, 0)
    }

    /// Puts a finished node where it belongs: into the open collection, or at the root.
    fn add(&mut self, node: Node, cost: usize) -> Result<(), Fatal> {
        self.budget(cost, self.open.len() + 1, node.line, node.column)?;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Scalar { .. } => unreachable!("a scalar is never open"),
            Value::Sequence(items) => items.push(node),
            Value::Mapping(_) => match open.key.take() {
                None => open.key = Some(node),
                Some(key) => self.add_entry(key, node),
            },
        }
        Ok(())
    }

    fn add_entry(&mut self, key: Node, value: Node) {
        let (key_line, key_column) = (key.line, key.column);
        let place = Some(self.place(key_line, key_column));
        let Value::Scalar { text, plain } = key.value else {
            self.found.push(Diagnostic::error("yaml.key", "a key must be a word").at(place));
            return;
        };
        if plain && text == "<<" {
            return self.add_merge(value);
        }
        let Some(open) = self.open.last_mut() else { return };
        let Value::Mapping(entries) = &mut open.node.value else { return };
        if let Some(first) = entries.iter().find(|entry| entry.key == text) {
            let hint = format!("it stands in line {} already; remove one of them", first.key_line);
            self.found.push(
                Diagnostic::error("yaml.duplicate-key", format!("key `{text}` is given twice")).at(place).hint(hint),
            );
            return;
        }
        entries.push(Entry { key: text, key_line, key_column, value });
    }

    /// `<<: *one` or `<<: [*one, *two]`; keys of the mapping itself win, then the earlier ones.
    fn add_merge(&mut self, value: Node) {
        let place = Some(value.place(self.file));
        let merges = match value.value {
            Value::Sequence(items) => items,
            _ => vec![value],
        };
        if merges.iter().any(|merge| !matches!(merge.value, Value::Mapping(_))) {
            let wrong = Diagnostic::error("yaml.merge", "`<<` takes a mapping or a list of mappings");
            self.found.push(wrong.at(place).hint("write `<<: *name` after `&name` on a mapping"));
        } else if let Some(open) = self.open.last_mut() {
            open.merges.extend(merges);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes(), "t.yaml").unwrap_err().to_string()
    }

    #[test]
    fn an_alias_bomb_is_refused_fast() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![below; 9].join(", "));
        }
        let start = Instant::now();
        assert!(refused(&text).contains("alias expansion exceeds 100000 nodes (line 6)"), "{}", refused(&text));
        assert!(start.elapsed().as_millis() < 500);
    }

    #[test]
    fn depth_is_refused_without_overflow() {
        assert!(refused(&"[".repeat(100_000)).contains("yaml."));
        assert!(refused(&format!("a: {}x{}", "[".repeat(64), "]".repeat(64))).contains("yaml."));
        let nested: String = (0..70).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(refused(&nested).contains("yaml."));
    }

    #[test]
    fn size_is_refused() {
        assert!(parse(&vec![b' '; (1 << 20) + 1], "t.yaml").unwrap_err().to_string().contains("yaml.size"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, expected) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "t.yaml:3:1: error: key `a` is given twice [yaml.duplicate-key]\n  hint: it stands in line 1",
            ),
            ("a: !!python/object:os.system x\n", "t.yaml:1:4: error: tags such as `!!str` are not used"),
            ("a: 1\n---\nb: 2\n", "t.yaml:2:1: error: a second document starts here"),
            ("a: &x [*x]\n", "[yaml."),
            ("[a]: 1\n", "a key must be a word"),
            ("a: \u{7}\n", "control character"),
            ("a: [1\n", "t.yaml:1:4: error: this is not YAML: unclosed bracket"),
            ("<<: 3\n", "`<<` takes a mapping"),
            ("", "holds no document"),
        ] {
            assert!(refused(text).contains(expected), "{text:?}: {}", refused(text));
        }
        assert!(parse(b"a: 1\nb: \xff\n", "t.yaml").unwrap_err().to_string().starts_with("t.yaml:2:1:"));
    }

    #[test]
    fn merge_keys_fill_in_what_is_missing() {
        let root = parse(b"base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\n", "t.yaml").unwrap();
        let Value::Mapping(entries) = root.value else { panic!() };
        let Value::Mapping(own) = &entries[1].value.value else { panic!() };
        let keys: Vec<&str> = own.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["y", "x"]);
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_do_not_matter() {
        assert!(parse(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n", "t.yaml").is_ok());
    }
}
