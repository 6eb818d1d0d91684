//! Shell patterns as `modules.alias` uses them: `*`, `?` and `[…]` (fnmatch(3) without flags, ASCII).

/// Whether the whole of `text` matches `pattern`. Runs in the product of the lengths at worst.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the present guess for the last `*` fails: after it, one more byte swallowed.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => match set(&pattern[p..], text[t]) {
                Some((length, true)) => Some(p + length),
                Some((_, false)) => None,
                // Never closed: an ordinary character.
                None => (text[t] == b'[').then_some(p + 1),
            },
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(p + 2),
            Some(&byte) => (byte == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, retry) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after_star, swallowed))) => {
                retry = Some((after_star, swallowed + 1));
                (p, t) = (after_star, swallowed + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// For a pattern that begins with `[`: the length of the set and whether `byte` is in it; `None` when it never closes.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let mut at = if negated { 2 } else { 1 };
    let first = at;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, found != negated));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

/// The part of a pattern before its first special character.
pub fn literal_head(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "a12b34c", true),
            ("a*b*c", "a12b34", false),
            ("*a", "aaaaaaaaab", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("[a", "[a", true),
            ("a[", "ab", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", "pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00", true),
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", "pci:v00008086d000010D4sv00001AF4sd00001100bc02sc00i00", false),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", true),
            ("input:b0003v045Ep*e*-e*1,*k*r*a*m*l*s*f*w*", "input:b0003v045Ep0001e0111-e0,1,2k71ram4lsfw", true),
            ("usb:v0*[0-9]p*", "usb:v0123p1", true),
            ("of:N*T*Cbrcm,bcm2835-mmcC*", "of:NmmcT(null)Cbrcm,bcm2835-mmcCx", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"a*".repeat(200), &"a".repeat(199)));
        assert!(!matches(&format!("{}b", "*a".repeat(60)), &"a".repeat(20_000)));
    }
}
