//! Against a server that misbehaves as scripted, one answer per connection.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

const CONTENT: &[u8] = b"iron is cast in moulds of sand, and sand is cheap";

fn expected() -> Expected {
    Expected { size: Bytes(CONTENT.len() as u64), digest: Digest::of(CONTENT) }
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Sends the answers verbatim, one per connection, and keeps each request's text.
fn serve(answers: Vec<Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    std::thread::spawn(move || {
        let mut answers = VecDeque::from(answers);
        while let Some(answer) = answers.pop_front() {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).is_ok_and(|count| count > 0) {}
            seen.lock().unwrap().push(request);
            let _ = stream.write_all(&answer);
        }
    });
    Server { url, requests }
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

fn whole(body: &[u8]) -> Vec<u8> {
    answer(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"one\"", body.len()), body)
}

fn fetcher(cache: Option<&std::path::Path>) -> Fetcher {
    Fetcher::new(&FetchOptions {
        pause: Duration::from_millis(1),
        idle_timeout: Duration::from_secs(5),
        cache: cache.map(|path| Utf8PathBuf::from_path_buf(path.to_owned()).unwrap()),
        ..FetchOptions::default()
    })
    .unwrap()
}

fn fetch(fetcher: &Fetcher, urls: &[&str]) -> Result<Vec<u8>, FetchError> {
    fetcher.fetch_verified(urls, expected(), &mut |_| ())
}

#[test]
fn a_broken_transfer_is_resumed_where_it_stopped() {
    let length = CONTENT.len();
    let server = serve(vec![
        answer(&format!("200 OK\r\nContent-Length: {length}\r\nETag: \"one\""), &CONTENT[..10]),
        answer(
            &format!(
                "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes 10-{}/{length}\r\nETag: \"one\"",
                length - 10,
                length - 1
            ),
            &CONTENT[10..],
        ),
    ]);
    assert_eq!(fetch(&fetcher(None), &[&server.url]).unwrap(), CONTENT);
    let second = server.requests.lock().unwrap()[1].to_lowercase();
    assert!(second.contains("range: bytes=10-") && second.contains("if-range: \"one\""), "{second}");
}

#[test]
fn a_resource_that_changed_meanwhile_is_fetched_anew() {
    let length = CONTENT.len();
    let server = serve(vec![
        answer(&format!("200 OK\r\nContent-Length: {length}\r\nETag: \"old\""), b"something "),
        whole(CONTENT),
    ]);
    assert_eq!(fetch(&fetcher(None), &[&server.url]).unwrap(), CONTENT);
}

#[test]
fn trouble_passes_and_the_next_mirror_serves() {
    let busy = serve(vec![answer("503 Busy\r\nContent-Length: 0\r\nRetry-After: 0", b""), whole(CONTENT)]);
    assert_eq!(fetch(&fetcher(None), &[&busy.url]).unwrap(), CONTENT);
    let gone = serve(vec![answer("404 Not Found\r\nContent-Length: 0", b"")]);
    let good = serve(vec![whole(CONTENT)]);
    assert_eq!(fetch(&fetcher(None), &[&gone.url, &good.url]).unwrap(), CONTENT);
    assert_eq!(gone.requests.lock().unwrap().len(), 1, "a 404 is not asked for twice");
}

#[test]
fn wrong_bytes_are_refused_by_name() {
    let mut flipped = CONTENT.to_vec();
    flipped[7] ^= 1;
    let server = serve(vec![whole(&flipped), whole(&flipped)]);
    let error = fetch(&fetcher(None), &[&server.url]).unwrap_err();
    assert_eq!(error.rule(), "fetch.digest");
    assert!(error.to_string().contains(&server.url) && error.to_string().contains(&expected().digest.hex()), "{error}");
}

#[test]
fn a_portal_is_called_one() {
    let page = b"<!DOCTYPE html><title>log in</title>";
    let server = serve(vec![whole(page), whole(page)]);
    let error = fetch(&fetcher(None), &[&server.url]).unwrap_err();
    assert!(error.hint().unwrap().contains("captive portal"));
}

#[test]
fn an_endless_body_stops_at_the_limit() {
    let server = serve(vec![answer("200 OK", &[b'x'; 4096])]);
    let error = fetcher(None).get_small(&server.url, Bytes(1000)).unwrap_err();
    assert_eq!(error.rule(), "fetch.length");
}

#[test]
fn a_silent_server_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let fetcher = Fetcher::new(&FetchOptions {
        idle_timeout: Duration::from_millis(200),
        attempts: 1,
        ..FetchOptions::default()
    })
    .unwrap();
    assert_eq!(fetcher.get_small(&url, Bytes(10)).unwrap_err().rule(), "fetch.idle");
}

#[test]
fn the_cache_serves_without_a_server_and_notices_rot() {
    let dir = tempfile::tempdir().unwrap();
    let fetcher = fetcher(Some(dir.path()));
    let server = serve(vec![whole(CONTENT), whole(CONTENT)]);
    assert_eq!(fetch(&fetcher, &[&server.url]).unwrap(), CONTENT);
    assert_eq!(fetch(&fetcher, &["http://127.0.0.1:1/"]).unwrap(), CONTENT);
    let entry = fetcher.cache().unwrap().path(expected().digest);
    std::fs::write(&entry, [CONTENT, b"!"].concat()).unwrap();
    assert_eq!(fetch(&fetcher, &[&server.url]).unwrap(), CONTENT);
    assert_eq!(server.requests.lock().unwrap().len(), 2);
    assert_eq!(std::fs::read(entry).unwrap(), CONTENT);
}

#[test]
fn files_are_fetched_and_checked_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("content");
    std::fs::write(&path, CONTENT).unwrap();
    let url = format!("file://{}", path.display());
    assert_eq!(fetch(&fetcher(None), &[&url]).unwrap(), CONTENT);
    let error = fetcher(None).get_small(&format!("file://{}", dir.path().display()), Bytes(10)).unwrap_err();
    assert_eq!(error.rule(), "fetch.file");
    assert_eq!(fetcher(None).get_small("ftp://x/", Bytes(10)).unwrap_err().rule(), "fetch.url");
}

#[test]
fn a_file_is_spooled_and_rewound() {
    let server = serve(vec![whole(CONTENT)]);
    let mut file =
        fetcher(None).fetch_verified_file(&[&server.url], expected(), tempfile::tempfile, &mut |_| ()).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, CONTENT);
}
