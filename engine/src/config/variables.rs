//! `${name}` in texts of a config. No other template language: no conditions, no nesting, no environment.

/// The names used in a text, in order.
pub fn names(text: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or_else(|| "a variable is opened with `${` and not closed".to_owned())?;
        let name = &after[..end];
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(format!("`${{{}}}` is not a variable", name.escape_debug()));
        }
        names.push(name);
        rest = &after[end + 1..];
    }
    Ok(names)
}

/// Puts in the values; a value is never expanded again. `Err` holds the name that has no value.
pub fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    for name in names(text)? {
        let pattern = format!("${{{name}}}");
        let (before, after) = rest.split_once(&pattern).ok_or_else(|| name.to_owned())?;
        out += before;
        out += value(name).ok_or_else(|| format!("variable `{name}` has no value on this machine"))?;
        rest = after;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_once() {
        let value = |name: &str| match name {
            "mac" => Some("52-54"),
            "vars.x" => Some("${mac}"),
            _ => None,
        };
        assert_eq!(expand("a ${mac} ${vars.x} $HOME", value), Ok("a 52-54 ${mac} $HOME".to_owned()));
        assert_eq!(expand("${no}", value), Err("variable `no` has no value on this machine".to_owned()));
        assert!(expand("${mac", value).is_err());
    }
}
