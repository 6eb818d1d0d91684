//! This machine as the harness sees it: where things lie, and how a program is run to its end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A failure of the harness or of what it drives: one sentence, the subject first.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Puts the subject before an error of another kind.
pub trait Subject<T> {
    fn on(self, subject: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::fmt::Display> Subject<T> for std::result::Result<T, E> {
    fn on(self, subject: impl std::fmt::Display) -> Result<T> {
        self.map_err(|cause| Failure(format!("{subject}: {cause}")))
    }
}

/// The top of the work tree.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the work tree").to_owned()
}

/// Where this run may leave files: below `target`, gone with `make clean`.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let path = top().join("target/harness").join(name);
    std::fs::create_dir_all(&path).on(path.display())?;
    Ok(path)
}

/// An empty folder below [`scratch`]; what an earlier run left there is removed first.
pub fn fresh(name: &str) -> Result<PathBuf> {
    let path = scratch(name)?;
    std::fs::remove_dir_all(&path).on(path.display())?;
    scratch(name)
}

/// What outlives `make clean`: packages and indices that the real mirror once gave.
pub fn cache(name: &str) -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(set) => PathBuf::from(set),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
    };
    let path = base.join("castiron").join(name);
    std::fs::create_dir_all(&path).on(path.display())?;
    Ok(path)
}

/// A program of ours, built when it is not up to date.
pub fn program(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let build = || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(top()).args(["build", "--release", "-q"]);
        // What cargo tells a test of its package must not look like a change of the build scripts' environment.
        for (name, _) in std::env::vars_os() {
            let told = name.to_string_lossy();
            if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        run(&mut command).map(drop).map_err(|failure| failure.0)
    };
    BUILT.get_or_init(build).clone().map_err(Failure)?;
    Ok(top().join("target/x86_64-unknown-linux-gnu/release").join(name))
}

/// Runs a program to its end; a bad status becomes a failure that quotes its last words.
pub fn run(command: &mut Command) -> Result<Output> {
    let line = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy);
    let line = line.collect::<Vec<_>>().join(" ");
    let output = command.output().on(&line)?;
    if output.status.success() {
        return Ok(output);
    }
    let words = [&output.stdout[..], &output.stderr[..]].concat();
    let words = String::from_utf8_lossy(&words);
    let last: Vec<&str> = words.lines().rev().take(40).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Failure(format!("{line}: {}\n{}", output.status, last.join("\n"))))
}

/// Runs `program` with `args` and gives what it printed.
pub fn tool<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Result<String> {
    let output = run(Command::new(program).args(args))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One archive as the host's apt knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Without a slash at the end.
    pub uri: String,
    pub suites: Vec<String>,
}

/// The archives in apt's own lists, read below `etc_apt`: one-line `.list` and deb822 `.sources` files.
pub fn apt_sources(etc_apt: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(OsStr::to_str) {
            Some("sources") => found.extend(parse_deb822(&text)),
            Some("list") => found.extend(parse_one_line(&text)),
            _ => {}
        }
    }
    Ok(found)
}

fn source(uri: &str, suites: &str) -> Source {
    Source { uri: uri.trim_end_matches('/').to_owned(), suites: suites.split_whitespace().map(str::to_owned).collect() }
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let field = |stanza: &str, name: &str| {
        let line = stanza.lines().find(|line| line.starts_with(name))?;
        Some(line[name.len()..].trim().to_owned())
    };
    let stanzas = text.split("\n\n");
    let typed = stanzas.filter(|stanza| {
        field(stanza, "Types:").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"))
            && field(stanza, "Enabled:").is_none_or(|enabled| enabled != "no")
    });
    typed
        .filter_map(|stanza| Some((field(stanza, "URIs:")?, field(stanza, "Suites:")?)))
        .flat_map(|(uris, suites)| uris.split_whitespace().map(|uri| source(uri, &suites)).collect::<Vec<_>>())
        .collect()
}

fn parse_one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1.trim_start() } else { rest };
        let mut words = rest.split_whitespace();
        Some(source(words.next()?, words.next()?))
    };
    text.lines().filter_map(|line| parse(line.trim())).collect()
}

/// The archive that holds `suite`, as this machine's apt would fetch it.
pub fn mirror_of(suite: &str) -> Result<Source> {
    let sources = apt_sources(Path::new("/etc/apt"))?;
    let holds = |source: &Source| source.suites.iter().any(|name| name == suite) && source.uri.starts_with("http://");
    sources.into_iter().find(holds).ok_or_else(|| {
        Failure(format!("apt's sources on this machine name no plain-http archive with {suite}; add one to /etc/apt"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_sources_are_read() {
        let text = "Types: deb\n# a remark\nURIs: http://mirror.example.org/debian/\nSuites: stable stable-updates\n\n\
                    Types: deb-src\nURIs: http://mirror.example.org/src\nSuites: stable\n\n\
                    Types: deb\nURIs: http://off.example.org/debian\nSuites: stable\nEnabled: no\n";
        assert_eq!(parse_deb822(text), [source("http://mirror.example.org/debian", "stable stable-updates")]);
    }

    #[test]
    fn one_line_sources_are_read() {
        let text = "# deb http://no.example.org x main\ndeb [arch=amd64 signed-by=/k] http://m.example.org/d s main\n";
        assert_eq!(parse_one_line(text), [source("http://m.example.org/d", "s")]);
    }

    #[test]
    fn a_failed_program_is_quoted() {
        let failure = tool("sh", ["-c", "echo out; echo err >&2; exit 3"]).unwrap_err().0;
        assert!(failure.contains("exit status: 3") && failure.ends_with("out\nerr"), "{failure}");
    }
}
