//! A mirror on the loopback that keeps what the real one gave.
//!
//! `/debian/…` and `/debian-security/…` come from the archives in the host's apt sources. Files below `pool` and
//! `by-hash` never change and are kept for good; everything else (the Release files) is asked for again each time.
//! With it a second demo, test or bench run costs the real mirror a few requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::{self, Failure, Result, Source, Subject};
use crate::http::{self, Answer, Request, Response, Server};

/// What the mirror is called on the loopback, and where it comes from.
#[derive(Clone, Debug)]
struct Upstream {
    prefix: &'static str,
    uri: String,
}

/// Asked and answered from the cache, in files.
#[derive(Debug, Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

struct Mirror {
    upstreams: Vec<Upstream>,
    cache: PathBuf,
    /// One fetch per file at a time.
    busy: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    counters: Arc<Counters>,
}

/// Adds the archives of `suite` (and its security archive, where apt knows one) to `server`.
pub fn serve(server: &Server, suite: &str) -> Result<Arc<Counters>> {
    let main = host::mirror_of(suite)?;
    let mut upstreams = vec![Upstream { prefix: "/debian/", uri: main.uri }];
    if let Ok(Source { uri, .. }) = host::mirror_of(&format!("{suite}-security")) {
        upstreams.push(Upstream { prefix: "/debian-security/", uri });
    }
    serve_from(server, upstreams, host::cache("mirror")?)
}

fn serve_from(server: &Server, upstreams: Vec<Upstream>, cache: PathBuf) -> Result<Arc<Counters>> {
    let counters = Arc::new(Counters::default());
    server.answer(Mirror { upstreams, cache, busy: Mutex::default(), counters: Arc::clone(&counters) });
    Ok(counters)
}

impl Answer for Mirror {
    fn answer(&self, request: &Request) -> Option<Response> {
        // A client that takes this server for its proxy sends whole URLs of the archives it knows.
        let (upstream, below) = self.upstreams.iter().find_map(|upstream| {
            let absolute = request.path.strip_prefix(&upstream.uri).and_then(|rest| rest.strip_prefix('/'));
            Some((upstream, absolute.or_else(|| request.path.strip_prefix(upstream.prefix))?))
        })?;
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        Some(match self.file(upstream, below) {
            Ok(Some(path)) => match http::file_response(path) {
                Ok(response) => response,
                Err(failure) => Response::text(502, failure.0),
            },
            Ok(None) => Response::text(404, format!("the mirror has no {below}\n")),
            Err(failure) => Response::text(502, failure.0),
        })
    }
}

impl Mirror {
    fn file(&self, upstream: &Upstream, below: &str) -> Result<Option<PathBuf>> {
        let kept = self.cache.join(upstream.prefix.trim_matches('/')).join(below);
        let turn =
            Arc::clone(self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(below.to_owned()).or_default());
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = below.starts_with("pool/") || below.contains("/by-hash/");
        if lasting && kept.exists() {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(kept));
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let (status, content) = http::get(&format!("{}/{below}", upstream.uri))?;
        match status {
            200 => store(&kept, &content).map(|()| Some(kept)),
            404 => Ok(None),
            _ => Err(Failure(format!("{}/{below}: status {status}", upstream.uri))),
        }
    }
}

/// A reader sees no file or a whole one.
fn store(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).on(folder.display())?;
    let mut file = tempfile::NamedTempFile::new_in(folder).on(folder.display())?;
    std::io::Write::write_all(&mut file, content).on(path.display())?;
    file.persist(path).on(path.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Fault, Rule, get};

    #[test]
    fn pool_files_are_asked_for_once_and_release_files_each_time() {
        let upstream = Server::start().unwrap();
        upstream.document("/real/pool/a.deb", "a").document("/real/dists/s/InRelease", "1");
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start().unwrap();
        let uri = format!("{}/real", upstream.url());
        let from = vec![Upstream { prefix: "/debian/", uri: uri.clone() }];
        serve_from(&server, from, cache.path().to_owned()).unwrap();

        let ask = |path: &str| get(&format!("{}/debian/{path}", server.url())).unwrap();
        assert_eq!([ask("pool/a.deb"), ask("pool/a.deb")], [(200, b"a".to_vec()), (200, b"a".to_vec())]);
        assert_eq!(ask("dists/s/InRelease").1, b"1");
        upstream.document("/real/dists/s/InRelease", "2");
        assert_eq!(ask("dists/s/InRelease").1, b"2");
        assert_eq!(ask("pool/none.deb").0, 404);
        assert_eq!(ask("../etc/passwd").0, 404);
        upstream.fault(Rule::always("InRelease", Fault::Status(500)));
        assert_eq!(ask("dists/s/InRelease").0, 502);
        assert_eq!(upstream.log().len(), 5);
    }
}
