use castiron_engine::fetch::{FetchError, FetchOptions, Fetcher};
use castiron_engine::units::Bytes;

use super::*;

fn serving(content: &[u8]) -> (Server, tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("pool")).unwrap();
    std::fs::write(folder.path().join("pool/a b.deb"), content).unwrap();
    let server = Server::start().unwrap();
    server.folder("/debian", folder.path());
    let url = format!("{}/debian/pool/a%20b.deb", server.url());
    (server, folder, url)
}

#[test]
fn files_come_as_they_lie_and_nothing_outside_comes() {
    let (server, _folder, url) = serving(b"content");
    assert_eq!(get(&url).unwrap(), (200, b"content".to_vec()));
    for path in ["debian/pool", "debian/../../etc/passwd", "debian/%2e%2e/%2e%2e/etc/passwd", "other/pool/a%20b.deb"] {
        assert_eq!(get(&format!("{}/{path}", server.url())).unwrap().0, 404, "{path}");
    }
    assert_eq!(server.log().len(), 5);
}

#[test]
fn a_range_resumes_and_a_range_past_the_end_is_refused() {
    let (_server, _folder, url) = serving(b"0123456789");
    assert_eq!(get_with(&url, &["Range: bytes=7-"]).unwrap(), (206, b"789".to_vec()));
    assert_eq!(get_with(&url, &["Range: bytes=2-4"]).unwrap(), (206, b"234".to_vec()));
    assert_eq!(get_with(&url, &["Range: bytes=10-"]).unwrap().0, 416);
}

#[test]
fn rules_strike_what_they_name_and_end_with_heal() {
    let (server, _folder, url) = serving(b"0123456789");
    server.fault(Rule::once("pool/", Fault::Status(404)).after(1));
    assert_eq!([get(&url), get(&url), get(&url)].map(|answer| answer.unwrap().0), [200, 404, 200]);
    server.fault(Rule::always("pool/", Fault::FlipBit(3)));
    assert_eq!(get(&url).unwrap().1, b"0122456789");
    assert_eq!(get_with(&url, &["Range: bytes=3-"]).unwrap().1, b"2456789");
    server.heal();
    server.fault(Rule::always("pool/", Fault::Truncate(4)));
    assert!(get(&url).unwrap_err().0.contains("10 bytes were announced, 4 came"));
    server.heal();
    server.fault(Rule::once("pool/", Fault::Stall { bytes: 5, pause: Duration::from_millis(200) }));
    let begun = Instant::now();
    assert_eq!(get(&url).unwrap().1, b"0123456789");
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_dead_server_answers_nobody_until_it_heals() {
    let (server, _folder, url) = serving(b"0123456789");
    server.die_after(15);
    assert_eq!(get(&url).unwrap().1, b"0123456789");
    assert!(get(&url).is_err());
    assert!(server.is_dead());
    assert!(get(&url).is_err());
    server.heal();
    assert_eq!(get(&url).unwrap().1, b"0123456789");
    // The log is written when an answer has gone out, a moment after the client has it.
    let sent = || server.log().iter().map(|entry| entry.sent).sum::<u64>();
    while sent() < 25 && server.shared.started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sent(), 25);
}

#[test]
fn what_is_posted_is_kept() {
    let server = Server::start().unwrap();
    let body = b"{\"name\":\"install\"}";
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{\"name\":\"install\"}\r\n0\r\n\r\n",
    )
    .unwrap();
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stream);
    assert_eq!(server.posted("/events"), [body.to_vec()]);
}

#[test]
fn the_same_port_speaks_https_to_whom_knows_its_authority() {
    let (server, _folder, url) = serving(b"content");
    let authority = server.https().unwrap();
    assert_eq!(get(&url).unwrap().1, b"content");
    let url = url.replace("http://", "https://");
    let get = |authorities: Vec<Vec<u8>>| {
        let options = FetchOptions { extra_ca_pem: authorities, ..FetchOptions::default() };
        Fetcher::new(&options).unwrap().get_small(&url, Bytes::mib(1))
    };
    assert_eq!(get(vec![pem(&authority)]).unwrap(), b"content");
    let refused = get(Vec::new()).unwrap_err();
    assert!(matches!(refused, FetchError::Certificate { .. }), "{refused:?}");
}

fn pem(der: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes()
}
