//! Debian versions and their order (Debian policy 5.6.12, deb-version(7)).

use std::cmp::Ordering;

/// Whether `left` is older than, the same as or newer than `right`.
///
/// Any text is ordered, also what is no valid version, so that a damaged index cannot stop a run.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    compare_number(left.0, right.0)
        .then_with(|| compare_part(left.1, right.1))
        .then_with(|| compare_part(left.2, right.2))
}

/// Whether `text` is a version that dpkg accepts.
pub fn is_valid(text: &str) -> bool {
    let (epoch, upstream, revision) = split(text);
    let allowed = |part: &str, marks: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.as_bytes().contains(&byte))
    };
    epoch.bytes().all(|byte| byte.is_ascii_digit())
        && (epoch.is_empty() || epoch.parse::<i32>().is_ok())
        && upstream.starts_with(|c: char| c.is_ascii_digit())
        && allowed(upstream, ".+-~:")
        && allowed(revision, "+.~")
        && !text.starts_with(':')
        && !text.ends_with('-')
}

/// Epoch, upstream version, revision.
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// By leading zeros' absence, then length, then digits: numbers may be longer than any integer type.
fn compare_number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = left.split_at(left.find(|c: char| c.is_ascii_digit()).unwrap_or(left.len()));
        let (right_text, right_rest) = right.split_at(right.find(|c: char| c.is_ascii_digit()).unwrap_or(right.len()));
        let text = compare_text(left_text.as_bytes(), right_text.as_bytes());
        let (left_digits, left_rest) =
            left_rest.split_at(left_rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(left_rest.len()));
        let (right_digits, right_rest) =
            right_rest.split_at(right_rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(right_rest.len()));
        let order = text.then_with(|| compare_number(left_digits, right_digits));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn compare_text(left: &[u8], right: &[u8]) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..left.len().max(right.len()))
        .map(|at| rank(left.get(at)).cmp(&rank(right.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_policy_says() {
        // Each is older than the next.
        let rising = [
            "~~",
            "~~a",
            "~",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~beta1~svc1245",
            "1.0~beta1",
            "1.0",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0.1",
            "1.00000000000000000000000000000001",
            "1.18446744073709551616",
            "1:0~",
            "1:0",
            "2:0",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for (left, right) in [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.01", "1.1"), ("a", "a0")] {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
    }

    #[test]
    fn validity_is_dpkgs() {
        for good in ["1", "2.36-9+deb12u14", "1:4.13+dfsg1-1", "0~x"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a1", "999:", "1_2", "1-", "x:1", ":1", "1 2", "99999999999:1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[0-2]?:?[0-2a~+.-]{0,6}", b in "[0-2]?:?[0-2a~+.-]{0,6}", c in "[0-2]?:?[0-2a~+.-]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare(&a, &c), Ordering::Greater);
            }
        }
    }
}
