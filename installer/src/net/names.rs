//! Domain names as DHCP options and router advertisements carry them (RFC 1035, 3.1 and 4.1.4).

/// All names in `bytes`; pointers are followed backwards only, so that no list runs in a ring. The
/// list ends at the first mistake.
pub fn parse_list(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((name, next)) = parse_name(bytes, at) else { break };
        // Router advertisements pad with zeros, which read as empty names.
        if is_valid(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// The name at `at` and where the next one begins.
fn parse_name(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let mut labels: Vec<&str> = Vec::new();
    let mut next = None;
    let mut place = at;
    loop {
        let length = usize::from(*bytes.get(place)?);
        match length {
            0 => break,
            1..=63 => {
                labels.push(std::str::from_utf8(bytes.get(place + 1..place + 1 + length)?).ok()?);
                place += 1 + length;
            }
            192.. => {
                let target = (length & 63) << 8 | usize::from(*bytes.get(place + 1)?);
                next.get_or_insert(place + 2);
                if target >= place {
                    return None;
                }
                place = target;
            }
            _ => return None,
        }
        if labels.len() > 127 {
            return None;
        }
    }
    Some((labels.join("."), next.unwrap_or(place + 1)))
}

/// Letters, digits, dashes and underscores in labels of 1 to 63, at most 253 in all: nothing that
/// could mean anything in resolv.conf, a URL or a shell.
pub fn is_valid(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.trim_end_matches('.').split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pointers() {
        let bytes = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(parse_list(bytes), ["eng.apple.com", "marketing.apple.com"]);
    }

    #[test]
    fn rings_and_cuts_end_the_list() {
        assert_eq!(parse_list(b"\xc0\x00"), Vec::<String>::new());
        assert_eq!(parse_list(b"\x01a\x00\xc0\x09"), ["a"]);
        assert_eq!(parse_list(b"\x01a\x00\x05b"), ["a"]);
        assert_eq!(parse_list(b"\x01a\x00\x00\x00\x00\x00\x00"), ["a"], "padding is no name");
    }

    #[test]
    fn names_that_could_do_harm_are_no_names() {
        for name in ["a b", "$(reboot)", "a\nb", "-rf", "", "a..b", &"x".repeat(64)] {
            assert!(!is_valid(name), "{name:?}");
        }
        assert!(is_valid("node-7.example.org"));
        assert!(is_valid("example.org."));
    }
}
