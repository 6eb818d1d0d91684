//! What a scalar means, decided by the field that takes it.
//!
//! YAML 1.1 (which diskimage-builder's PyYAML reads) and YAML 1.2 disagree on `no`, `0755`, `12:30`,
//! `1_000` and `1e3`. Here a text field takes the characters as they stand, so `no` stays a country and
//! `0755` a mode. A truth takes the words of both versions. A number takes plain decimal digits only;
//! what the versions read differently is refused with the spelling that both read alike.

/// What is wrong with a scalar, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub hint: String,
}

fn wrong<T>(message: String, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message, hint: hint.into() })
}

/// YAML 1.2 section 10.3.2 and YAML 1.1 agree on these.
pub fn is_null(text: &str, plain: bool) -> bool {
    plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The words of <https://yaml.org/type/bool.html> that PyYAML reads as a truth (`y` and `n` are not among them).
pub fn truth(text: &str, plain: bool) -> Result<bool, Wrong> {
    if !plain {
        return wrong(format!("\"{text}\" in quotes is text, not true or false"), "remove the quotes");
    }
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
        _ => wrong(format!("`{text}` is not true or false"), "write true or false"),
    }
}

pub fn integer(text: &str, plain: bool) -> Result<i128, Wrong> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain {
        return wrong(format!("\"{text}\" in quotes is text, not a number"), "remove the quotes");
    }
    if decimal && (digits == "0" || !digits.starts_with('0')) {
        return match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => wrong(format!("`{text}` is too large"), "write a number of at most 18 digits"),
        };
    }
    let ambiguous = |read: &str| format!("{read}; write plain decimal digits");
    if decimal {
        let octal = i128::from_str_radix(digits, 8);
        let meant = octal.map_or_else(|_| digits.trim_start_matches('0').to_owned(), |number| number.to_string());
        return wrong(
            format!("`{text}` starts with a zero"),
            format!("YAML 1.1 reads it as octal ({meant}), YAML 1.2 as decimal; write plain decimal digits"),
        );
    }
    let hint = match digits {
        _ if digits.starts_with("0x") || digits.starts_with("0o") || digits.starts_with("0b") => {
            "only decimal numbers are taken".to_owned()
        }
        _ if digits.contains(':') => ambiguous("YAML 1.1 reads it to the base of 60"),
        _ if digits.contains('_') => ambiguous("YAML 1.1 drops the underscores, YAML 1.2 reads text"),
        _ if digits.parse::<f64>().is_ok() => "a whole number is needed here".to_owned(),
        _ => "write decimal digits".to_owned(),
    };
    wrong(format!("`{text}` is not a whole number"), hint)
}

/// Text as it stands; only nothing at all is not text.
pub fn text(text: &str, plain: bool) -> Result<&str, Wrong> {
    match is_null(text, plain) {
        true if text.is_empty() => wrong("a value is missing".to_owned(), "write the value, or \"\" for an empty text"),
        true => wrong(format!("`{text}` means no value"), format!("leave the key out, or write \"{text}\" in quotes")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain scalars, what PyYAML 6.0.3 makes of them, and what a text, a truth and a number field take here.
    #[test]
    fn plain_scalars_mean_what_the_field_says() {
        const R: &str = "refused";
        #[rustfmt::skip]
        let table: &[(&str, &str, &str, &str, &str)] = &[
            // scalar         PyYAML          text            truth    number
            ("yes",           "True",         "yes",          "true",  R),
            ("Yes",           "True",         "Yes",          "true",  R),
            ("YES",           "True",         "YES",          "true",  R),
            ("yEs",           "'yEs'",        "yEs",          R,       R),
            ("no",            "False",        "no",           "false", R),
            ("No",            "False",        "No",           "false", R),
            ("NO",            "False",        "NO",           "false", R),
            ("on",            "True",         "on",           "true",  R),
            ("ON",            "True",         "ON",           "true",  R),
            ("off",           "False",        "off",          "false", R),
            ("Off",           "False",        "Off",          "false", R),
            ("true",          "True",         "true",         "true",  R),
            ("True",          "True",         "True",         "true",  R),
            ("TRUE",          "True",         "TRUE",         "true",  R),
            ("tRUE",          "'tRUE'",       "tRUE",         R,       R),
            ("false",         "False",        "false",        "false", R),
            ("FALSE",         "False",        "FALSE",        "false", R),
            ("y",             "'y'",          "y",            R,       R),
            ("Y",             "'Y'",          "Y",            R,       R),
            ("n",             "'n'",          "n",            R,       R),
            ("1",             "1",            "1",            R,       "1"),
            ("0",             "0",            "0",            R,       "0"),
            ("-1",            "-1",           "-1",           R,       "-1"),
            ("+1",            "1",            "+1",           R,       "1"),
            ("42",            "42",           "42",           R,       "42"),
            ("00",            "0",            "00",           R,       R),
            ("010",           "8",            "010",          R,       R),
            ("0755",          "493",          "0755",         R,       R),
            ("0o755",         "'0o755'",      "0o755",        R,       R),
            ("0o7",           "'0o7'",        "0o7",          R,       R),
            ("089",           "'089'",        "089",          R,       R),
            ("0x1f",          "31",           "0x1f",         R,       R),
            ("0b101",         "5",            "0b101",        R,       R),
            ("1_000",         "1000",         "1_000",        R,       R),
            ("12:30",         "750",          "12:30",        R,       R),
            ("1:30:00",       "5400",         "1:30:00",      R,       R),
            ("22:22",         "1342",         "22:22",        R,       R),
            ("1.5",           "1.5",          "1.5",          R,       R),
            ("1.0",           "1.0",          "1.0",          R,       R),
            (".5",            "0.5",          ".5",           R,       R),
            ("1e3",           "'1e3'",        "1e3",          R,       R),
            ("1.0e3",         "'1.0e3'",      "1.0e3",        R,       R),
            ("1e+3",          "'1e+3'",       "1e+3",         R,       R),
            (".inf",          "inf",          ".inf",         R,       R),
            (".nan",          "nan",          ".nan",         R,       R),
            ("~",             "None",         R,              R,       R),
            ("null",          "None",         R,              R,       R),
            ("Null",          "None",         R,              R,       R),
            ("NULL",          "None",         R,              R,       R),
            ("nULL",          "'nULL'",       "nULL",         R,       R),
            ("",              "None",         R,              R,       R),
            ("2026-01-02",    "date",         "2026-01-02",   R,       R),
            ("20GiB",         "'20GiB'",      "20GiB",        R,       R),
            ("100%",          "'100%'",       "100%",         R,       R),
            ("EF00",          "'EF00'",       "EF00",         R,       R),
            ("8300",          "8300",         "8300",         R,       "8300"),
            ("8e00",          "'8e00'",       "8e00",         R,       R),
            ("52:54:00:12",   "190080732",    "52:54:00:12",  R,       R),
            ("=",             "'='",          "=",            R,       R),
            ("192.0.2.1",     "'192.0.2.1'",  "192.0.2.1",    R,       R),
            ("999999999999999999999999999999999999999999", "int", "999999999999999999999999999999999999999999", R, R),
        ];
        for (scalar, pyyaml, as_text, as_truth, as_number) in table {
            let show = |got: Result<String, Wrong>| got.unwrap_or_else(|_| R.to_owned());
            assert_eq!(show(text(scalar, true).map(str::to_owned)), *as_text, "{scalar} as text, PyYAML: {pyyaml}");
            assert_eq!(
                show(truth(scalar, true).map(|v| v.to_string())),
                *as_truth,
                "{scalar} as truth, PyYAML: {pyyaml}"
            );
            assert_eq!(
                show(integer(scalar, true).map(|v| v.to_string())),
                *as_number,
                "{scalar} as number, PyYAML: {pyyaml}"
            );
        }
    }

    #[test]
    fn quotes_make_text() {
        assert_eq!(text("null", false), Ok("null"));
        assert_eq!(text("", false), Ok(""));
        assert_eq!(truth("true", false).unwrap_err().hint, "remove the quotes");
        assert_eq!(integer("1", false).unwrap_err().hint, "remove the quotes");
    }

    #[test]
    fn an_octal_number_is_refused_with_its_value() {
        let hint = integer("0755", true).unwrap_err().hint;
        assert_eq!(hint, "YAML 1.1 reads it as octal (493), YAML 1.2 as decimal; write plain decimal digits");
    }
}
