use expect_test::{Expect, expect};

use super::*;

fn universe(text: &str) -> Vec<Index> {
    // One suite per block between lines of dashes; `name version key: value; …` per package.
    let stanza = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let (name, version) = (parts.next().unwrap(), parts.next().unwrap());
        let fields: String = parts.next().unwrap_or_default().split("; ").map(|field| format!("{field}\n")).collect();
        let architecture = if fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
        format!("Package: {name}\nVersion: {version}\n{architecture}{fields}\n")
    };
    text.split("---")
        .map(|suite| {
            let packages: String = suite.lines().map(str::trim).filter(|line| !line.is_empty()).map(stanza).collect();
            Index::parse(packages.as_bytes())
        })
        .collect()
}

fn check_variant(text: &str, variant: Variant, expected: Expect) {
    check_wanted(text, &Wanted { architecture: "amd64", variant: Some(variant), ..Wanted::default() }, expected);
}

fn check(text: &str, include: &[&str], expected: Expect) {
    let include: Vec<String> = include.iter().map(|name| (*name).to_owned()).collect();
    check_wanted(text, &Wanted { architecture: "amd64", include: &include, ..Wanted::default() }, expected);
}

fn check_wanted(text: &str, wanted: &Wanted<'_>, expected: Expect) {
    let suites = universe(text);
    let indices: Vec<&Index> = suites.iter().collect();
    let shown = match resolve(&indices, wanted) {
        Ok(resolution) => {
            let mut names: Vec<String> = resolution
                .choices
                .iter()
                .map(|choice| {
                    let package = indices[choice.index].packages().nth(choice.record).unwrap();
                    format!("{} {} {}", package.name(), package.version(), package.architecture())
                })
                .collect();
            names.sort();
            names.join("\n")
        }
        Err(error) => format!("{}: {error}", error.rule()),
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_highest_version_of_all_suites_wins() {
    check("a 1.0-1\n---\na 1.0-1+deb12u1\n---\na 1.0~rc1", &["a"], expect!["a 1.0-1+deb12u1 amd64"]);
}

#[test]
fn alternatives_are_taken_in_order_unless_one_is_there() {
    let text = "a 1 Depends: x | y\nb 1 Depends: a, y\nx 1\ny 1";
    check(
        text,
        &["a"],
        expect![[r#"
        a 1 amd64
        x 1 amd64"#]],
    );
    check(
        text,
        &["a", "y"],
        expect![[r#"
        a 1 amd64
        y 1 amd64"#]],
    );
}

#[test]
fn an_alternative_that_conflicts_is_passed_over() {
    check(
        "a 1 Depends: x | y\nb 1 Conflicts: x\nx 1\ny 1",
        &["b", "a"],
        expect![[r#"
        a 1 amd64
        b 1 amd64
        y 1 amd64"#]],
    );
}

#[test]
fn provides_count_with_their_version() {
    let text = "a 1 Depends: virtual\nb 1 Depends: virtual (>= 2)\np 1 Provides: virtual; Priority: optional\n\
                q 1 Provides: virtual (= 2); Priority: extra\nr 1 Provides: virtual (= 1); Priority: required";
    check(
        text,
        &["a"],
        expect![[r#"
        a 1 amd64
        r 1 amd64"#]],
    );
    check(
        text,
        &["b"],
        expect![[r#"
        b 1 amd64
        q 1 amd64"#]],
    );
}

#[test]
fn a_real_package_is_preferred_to_providers() {
    check(
        "a 1 Depends: awk\nawk 1\nmawk 1 Provides: awk; Priority: required",
        &["a"],
        expect![[r#"
        a 1 amd64
        awk 1 amd64"#]],
    );
}

#[test]
fn what_is_missing_is_told_with_the_reasons() {
    check(
        "a 1 Depends: b (>= 1)\nb 1 Pre-Depends: c (>= 2) | d\nc 1",
        &["a"],
        expect![[r#"
        packages.unsatisfied: b 1 needs c (>= 2) | d, which only c 1 is there for
          because a 1 needs b (>= 1) (b 1)
          because a 1 was asked for"#]],
    );
    check(
        "a 1 Depends: nothing",
        &["a"],
        expect![[r#"
        packages.unsatisfied: a 1 needs nothing, which does not exist
          because a 1 was asked for"#]],
    );
    check(
        "openssh-server 1",
        &["openssh-sever"],
        expect!["packages.unknown: there is no package openssh-sever; did you mean openssh-server?"],
    );
}

#[test]
fn a_conflict_is_told_with_both_reasons() {
    check(
        "a 1 Depends: x\nb 1 Depends: y\nx 1 Breaks: y (<< 2)\ny 1",
        &["a", "b"],
        expect![[r#"
        packages.conflict: y 1 and x 1 cannot be installed together: y 1 is excluded, as that one breaks y (<< 2)
          because b 1 needs y (y 1)
          because b 1 was asked for
          because a 1 needs x (x 1)
          because a 1 was asked for"#]],
    );
}

#[test]
fn a_package_that_conflicts_with_what_it_provides_is_no_conflict() {
    check("mta 1 Provides: mail; Conflicts: mail", &["mta"], expect!["mta 1 amd64"]);
    check(
        "mta 1 Provides: mail; Conflicts: mail\nother 1 Provides: mail",
        &["mta", "other"],
        expect![[r#"
            packages.conflict: other 1 and mta 1 cannot be installed together: other 1 is excluded, as that one conflicts with mail
              because other 1 was asked for
              because mta 1 was asked for"#]],
    );
}

#[test]
fn dependency_loops_end() {
    check(
        "a 1 Depends: b\nb 1 Depends: a",
        &["a"],
        expect![[r#"
        a 1 amd64
        b 1 amd64"#]],
    );
}

#[test]
fn variants_take_priorities() {
    let text = "apt 1 Priority: important; Depends: lib\nlib 1\ncoreutils 1 Priority: required; Essential: yes\nadduser 1 Priority: important\n\
                vim 1 Priority: standard\nbuild-essential 1\nother 1";
    check_variant(
        text,
        Variant::Minbase,
        expect![[r#"
        apt 1 amd64
        coreutils 1 amd64
        lib 1 amd64"#]],
    );
    check_variant(
        text,
        Variant::Buildd,
        expect![[r#"
        apt 1 amd64
        build-essential 1 amd64
        coreutils 1 amd64
        lib 1 amd64"#]],
    );
    check_variant(
        text,
        Variant::Standard,
        expect![[r#"
        adduser 1 amd64
        apt 1 amd64
        coreutils 1 amd64
        lib 1 amd64
        vim 1 amd64"#]],
    );
}

#[test]
fn recommends_are_an_option_and_excludes_are_final() {
    let text = "a 1 Depends: d; Recommends: b, missing, x\nb 1\nd 1\nx 1 Conflicts: d";
    check(
        text,
        &["a"],
        expect![[r#"
        a 1 amd64
        d 1 amd64"#]],
    );
    let include = ["a".to_owned()];
    let suites = universe(text);
    let indices: Vec<&Index> = suites.iter().collect();
    let exclude = ["d".to_owned()];
    let wanted =
        Wanted { architecture: "amd64", include: &include, exclude: &exclude, recommends: true, ..Wanted::default() };
    assert_eq!(resolve(&indices, &wanted).unwrap().choices.len(), 3, "a, b and x; d is left out and x may stay");
}

#[test]
fn foreign_architectures_keep_to_themselves() {
    let text = "a 1 Architecture: arm64; Depends: lib, tool, py:any\nlib 1 Multi-Arch: same\nlib 1 Architecture: arm64; Multi-Arch: same\n\
                tool 1 Multi-Arch: foreign\npy 1 Multi-Arch: allowed";
    let (include, foreign) = (["a:arm64".to_owned()], ["arm64".to_owned()]);
    let suites = universe(text);
    let indices: Vec<&Index> = suites.iter().collect();
    let wanted =
        Wanted { architecture: "amd64", include: &include, foreign_architectures: &foreign, ..Wanted::default() };
    let names: Vec<_> = resolve(&indices, &wanted)
        .unwrap()
        .choices
        .iter()
        .map(|choice| {
            let package = indices[choice.index].packages().nth(choice.record).unwrap();
            format!("{}:{}", package.name(), package.architecture())
        })
        .collect();
    assert_eq!(names, ["a:arm64", "lib:arm64", "tool:amd64", "py:amd64"]);
}

#[test]
fn a_wide_web_ends_quickly() {
    let text: String = (0..3000)
        .map(|n| format!("p{n} 1 Depends: p{}, p{} | p{}\n", (n + 1) % 3000, (n * 7) % 3000, (n * 13) % 3000))
        .collect();
    let started = std::time::Instant::now();
    let suites = universe(&text);
    let indices: Vec<&Index> = suites.iter().collect();
    let include = ["p0".to_owned()];
    let wanted = Wanted { architecture: "amd64", include: &include, ..Wanted::default() };
    assert_eq!(resolve(&indices, &wanted).unwrap().choices.len(), 3000);
    assert!(started.elapsed().as_secs() < 5);
}
