use std::path::Path;

use proptest::prelude::*;

use super::*;

const SHORTEST: &str = "castiron: 1\nsource: { bootstrap: { release: trixie } }\n";

#[test]
fn the_shortest_config_is_enough() {
    let config = parse(SHORTEST.as_bytes(), "image.yaml").unwrap();
    let bootstrap = config.source.bootstrap.unwrap();
    assert_eq!((bootstrap.distribution.as_str(), bootstrap.release.as_str()), ("debian", "trixie"));
    assert!(config.storage.is_none() && config.install.resume);
}

#[test]
fn places_are_those_of_the_values() {
    let config = parse(SHORTEST.as_bytes(), "image.yaml").unwrap();
    let shown = |path: &str| config.places.of(path).unwrap().to_string();
    assert_eq!(shown("source.bootstrap.release"), "image.yaml:2:33");
    assert_eq!(shown("source.bootstrap.mirrors[0].uri"), "image.yaml:2:22");
    assert_eq!(shown("users[0].name"), "image.yaml:1:1");
}

#[test]
fn what_comes_later_is_refused_with_its_place() {
    let text = format!(
        "{SHORTEST}health: {{ disks: {{ smart: passed }} }}\nstorage: {{ layout: [ {{ luks: {{ name: x }} }} ] }}\n"
    );
    let found = parse(text.as_bytes(), "image.yaml").unwrap_err().to_string();
    assert!(found.contains("image.yaml:3:9: error: health: not in this version of castiron [config.later]"), "{found}");
    assert!(found.contains("error: storage.layout[0].luks: not in this version of castiron [config.later]"), "{found}");
}

#[test]
fn passwords_are_not_shown() {
    let text = format!("{SHORTEST}users: [ {{ name: ops, hashed_passwd: \"$6$salt$hash\" }} ]\n");
    assert!(!format!("{:?}", parse(text.as_bytes(), "image.yaml").unwrap()).contains("hash\""));
}

/// The published schema is that of the types. `CASTIRON_BLESS=1` writes it anew.
#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/castiron.schema.json");
    if std::env::var_os("CASTIRON_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, schema()).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == schema(), "run this test with CASTIRON_BLESS=1 and review {}", path.display());
}

proptest! {
    /// Whatever stands in a file, reading it ends with a config or with mistakes that have a place.
    #[test]
    fn no_text_makes_the_reader_fail(cut in 0usize..400, insert in "[-a-z0-9:{}\\[\\]#&*!|>'\"%@` \n]{0,8}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let whole = "castiron: 1\nsource: { bootstrap: { release: trixie, mirrors: [ { uri: 'http://x' } ] } }\nstorage: { layout: [ { disk: &d { name: a, match: { size: '>= 1GiB' } } }, { disk: { <<: *d, name: b } } ] }\nusers: [ { name: ops, sudo: [a] } ]\n";
        let cut = cut.min(whole.len());
        let text = format!("{}{insert}{}", &whole[..cut], &whole[cut..]);
        for input in [text.as_bytes(), &whole.as_bytes()[..cut], &bytes] {
            if let Err(found) = parse(input, "t.yaml") {
                prop_assert!(found.has_errors());
            }
        }
    }
}
