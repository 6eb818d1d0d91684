//! The build host's apt sources, for a mirror when none is named.
//!
//! Reads a root, parses text: one-line `.list` files and deb822 `.sources` files (sources.list(5)).

use camino::Utf8Path;
use castiron_engine::debian::deb822;

/// One archive the host uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    pub uri: String,
    pub suites: Vec<String>,
    pub components: Vec<String>,
}

/// All sources below `root`, in apt's order; files that cannot be read count as absent.
pub fn read(root: &Utf8Path) -> Vec<AptSource> {
    let apt = root.join("etc/apt");
    let mut sources = parse_list(&std::fs::read_to_string(apt.join("sources.list")).unwrap_or_default());
    let mut files: Vec<_> = apt
        .join("sources.list.d")
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.into_path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match file.extension() {
            Some("list") => sources.extend(parse_list(&text)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    sources
}

/// The URI of the first source that has the suite, else of the first that looks like a whole
/// archive (one with an updates suite), which then carries the other suites too.
pub fn mirror_of(sources: &[AptSource], suite: &str) -> Option<String> {
    let has = |source: &&AptSource| source.suites.iter().any(|name| name == suite);
    let whole = |source: &&AptSource| source.suites.iter().any(|name| name.ends_with("-updates"));
    sources
        .iter()
        .find(has)
        .or_else(|| sources.iter().find(whole))
        .map(|source| source.uri.trim_end_matches('/').to_owned())
}

fn parse_list(text: &str) -> Vec<AptSource> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim_start();
            // Options in brackets may contain blanks.
            let line = if line.starts_with('[') { line.split_once(']')?.1 } else { line };
            let mut words = line.split_whitespace().map(str::to_owned);
            Some(AptSource { uri: words.next()?, suites: vec![words.next()?], components: words.collect() })
        })
        .collect()
}

fn parse_deb822(text: &str) -> Vec<AptSource> {
    // Comment lines may stand between a field's lines.
    let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    deb822::stanzas(&text)
        .filter(|stanza| {
            stanza.get("Enabled") != Some("no")
                && stanza.get("Types").is_some_and(|types| types.split_whitespace().any(|word| word == "deb"))
        })
        .flat_map(|stanza| {
            let words =
                |name| stanza.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let (suites, components) = (words("Suites"), words("Components"));
            words("URIs").into_iter().map(move |uri| AptSource {
                uri,
                suites: suites.clone(),
                components: components.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_the_right_mirror_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir_all(root.join("etc/apt/sources.list.d")).unwrap();
        std::fs::write(
            root.join("etc/apt/sources.list"),
            "# deb http://old.test/debian stone main\ndeb [signed-by=/k arch=amd64] http://list.test/debian iron main contrib # why\ndeb-src http://x.test y z\n",
        )
        .unwrap();
        std::fs::write(
            root.join("etc/apt/sources.list.d/a.sources"),
            "Types: deb deb-src\n# a comment\nURIs: http://new.test/debian/\nSuites: steel steel-updates\nComponents: main\n\nTypes: deb\nURIs: http://off.test\nSuites: zinc\nEnabled: no\n",
        )
        .unwrap();
        let sources = read(root);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        for (suite, mirror) in [
            ("iron", "http://list.test/debian"),
            ("steel", "http://new.test/debian"),
            ("zinc", "http://new.test/debian"),
        ] {
            assert_eq!(mirror_of(&sources, suite).as_deref(), Some(mirror));
        }
        assert_eq!(mirror_of(&[], "iron"), None);
    }
}
