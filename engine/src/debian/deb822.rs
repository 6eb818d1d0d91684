//! Stanzas of fields (deb822(5)), read in place.
//!
//! Invariant: nothing is copied; every text handed out is a slice of the input.

/// The stanzas of a text, in order; empty lines separate them.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memmem::find(rest.as_bytes(), b"\n\n").map_or(rest.len(), |end| end + 1);
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(Stanza(stanza))
    })
}

/// The fields of one stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stanza<'a>(pub &'a str);

impl<'a> Stanza<'a> {
    /// A field's value without surrounding blanks; further lines keep their leading blank.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Names and values in order. Comments and lines that are no field are passed over.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let mut end = 0;
                // A field goes on while lines start with a blank.
                loop {
                    end = memchr::memchr(b'\n', &rest.as_bytes()[end..]).map_or(rest.len(), |at| end + at + 1);
                    if !matches!(rest.as_bytes().get(end), Some(b' ' | b'\t')) {
                        break;
                    }
                }
                let (field, after) = rest.split_at(end);
                rest = after;
                if let Some((name, value)) = field.split_once(':').filter(|(name, _)| is_name(name)) {
                    return Some((name, value.trim()));
                }
            }
            None
        })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '-', ' ', '\t']) && name.bytes().all(|byte| (33..=126).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_and_fields_are_found() {
        let text = "\nPackage: a\nDepends: b,\n c\n# comment\nEmpty:\n\n\nPackage: d";
        let found: Vec<Vec<_>> = stanzas(text).map(|stanza| stanza.fields().collect()).collect();
        assert_eq!(found, [vec![("Package", "a"), ("Depends", "b,\n c"), ("Empty", "")], vec![("Package", "d")]]);
        assert_eq!(stanzas(text).next().unwrap().get("package"), Some("a"));
    }
}
