use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::*;
use crate::config::tree;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only what is refused matters here")]
struct Outer {
    name: String,
    count: Option<u8>,
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    words: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only what is refused matters here")]
enum Item {
    Plain(Inner),
    Word,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only what is refused matters here")]
struct Inner {
    size: String,
    keep: Option<bool>,
}

fn check(text: &str, expected: Expect) {
    let root = tree::parse(text.as_bytes(), "t").unwrap();
    expected.assert_eq(&match read::<Outer>(&root, "t") {
        Ok(outer) => format!("{outer:?}"),
        Err(found) => found.to_string(),
    });
}

#[test]
fn all_mistakes_are_found_at_once() {
    check(
        "nam: x\ncount: 300\nitems:\n- plain: {siz: 1, keep: maybe}\n- plain: {size: 1}\n- wrod\n- {a: 1, b: 2}\nwords: [a]\n",
        expect![[r#"
            t:1:1: error: unknown key `nam` [config.unknown-key]
              hint: did you mean `name`?
            t:2:8: error: count: invalid value: integer `300`, expected u8 [config.value]
            t:4:11: error: items[0].plain: unknown key `siz` [config.unknown-key]
              hint: did you mean `size`?
            t:4:25: error: items[0].plain.keep: `maybe` is not true or false [config.type]
              hint: write true or false
            t:6:3: error: items[2]: `wrod` is not known here [config.unknown-word]
              hint: did you mean `word`?
            t:7:3: error: items[3]: an entry has exactly one key, this one has 2 [config.one-key]
              hint: start each entry with `- ` and indent its settings below its key
            t:8:8: error: words: here stands a list [config.type]
              hint: write a mapping (`key: value`)"#]],
    );
}

#[test]
fn what_follows_from_a_mistake_is_not_reported() {
    check(
        "name: [x]\nitems: [{plain: {size: ~}}]\n",
        expect![[r#"
            t:1:7: error: name: here stands a list [config.type]
              hint: write text
            t:2:24: error: items[0].plain.size: `~` means no value [config.type]
              hint: leave the key out, or write "~" in quotes"#]],
    );
}

#[test]
fn one_key_maps_and_words_are_both_entries() {
    check(
        "name: no\nitems: [word, {plain: {size: 0755, keep: yes}}]\n",
        expect![[
            r#"Outer { name: "no", count: None, items: [Word, Plain(Inner { size: "0755", keep: Some(true) })], words: {} }"#
        ]],
    );
}
