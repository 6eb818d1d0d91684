use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use castiron_engine::event::{EventResult, Progress, Unit};
use castiron_engine::fetch::install_crypto_provider;

use super::syslog::syslog_line;
use super::*;

/// A server on the loopback that answers with these statuses in turn (the last one repeats) and
/// hands over every request as text.
fn server(statuses: Vec<u16>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut count = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut buffer = [0; 4096];
            loop {
                let length = stream.read(&mut buffer).unwrap();
                request.push_str(&String::from_utf8_lossy(&buffer[..length]));
                let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
                let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length == 0 || body.len() >= announced.unwrap_or("0").parse().unwrap() {
                    break;
                }
            }
            let status = statuses[count.min(statuses.len() - 1)];
            count += 1;
            write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            let _ = sender.send(request);
        }
    });
    (url, receiver)
}

fn client() -> Client {
    install_crypto_provider();
    Client::builder().tls_certs_only([]).build().unwrap()
}

fn webhook(url: &str) -> Webhook {
    let options = WebhookOptions {
        endpoint: url.to_owned(),
        level: Level::Info,
        token: Some(Secret::new("s3cret")),
        machine: Some("node7".into()),
    };
    Webhook::new(client(), options).unwrap()
}

fn progress(name: &str, done: u64) -> Event {
    Event::progress(name, "fetching", Progress { done, total: Some(9), unit: Unit::Packages })
}

#[test]
fn events_are_posted_as_curtin_does() {
    let (url, requests) = server(vec![200]);
    let mut webhook = webhook(&url);
    webhook.emit(&Event::finish("install/storage", "done", EventResult::Success));
    assert_eq!(webhook.flush(Duration::from_secs(10)), Counts { sent: 1, ..Counts::default() });
    let request = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /events HTTP/1.1"), "{head}");
    assert!(head.contains("authorization: Bearer s3cret"), "{head}");
    let event: serde_json::Value = serde_json::from_str(body).unwrap();
    for (field, value) in [
        ("origin", "castiron"),
        ("event_type", "finish"),
        ("name", "install/storage"),
        ("result", "SUCCESS"),
        ("level", "INFO"),
        ("machine", "node7"),
    ] {
        assert_eq!(event[field], value, "{field}");
    }
    assert!(event["timestamp"].is_f64());
}

#[test]
fn a_server_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
    let (url, requests) = server(vec![503, 200, 403, 200]);
    let mut webhook = webhook(&url);
    for name in ["a", "b", "c"] {
        webhook.emit(&Event::start(name, name));
    }
    assert_eq!(webhook.flush(Duration::from_secs(10)), Counts { sent: 2, lost: 1, waiting: 0 });
    assert_eq!(requests.try_iter().count(), 4);
}

#[test]
fn nobody_waits_for_a_dead_server() {
    let mut webhook = webhook("http://127.0.0.1:9/events");
    let begun = Instant::now();
    for number in 0..2000 {
        webhook.emit(&Event::start(format!("step {number}"), "x"));
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    let counts = webhook.flush(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(3), "flush ends in time");
    assert_eq!(counts.sent, 0);
    assert_eq!(counts.lost + counts.waiting, 2000);
    assert!(counts.waiting <= QUEUE_MAX as u64 + 1);
}

#[test]
fn a_full_queue_forgets_progress_first() {
    let mut queue = Queue::default();
    queue.push(Event::start("first", "x"));
    for number in 0..QUEUE_MAX {
        queue.push(progress(&format!("{number}"), 1));
    }
    assert_eq!(queue.waiting.len(), QUEUE_MAX);
    assert_eq!(queue.waiting[0].name, "first");
    assert_eq!(queue.counts.lost, 1);
}

#[test]
fn progress_of_the_same_work_is_put_together() {
    let mut queue = Queue::default();
    for done in 0..100 {
        queue.push(progress("packages", done));
    }
    queue.push(Event::finish("packages", "x", EventResult::Success));
    assert_eq!(queue.waiting.len(), 2);
    assert_eq!(queue.waiting[0].progress.unwrap().done, 99);
}

#[test]
fn a_log_is_uploaded_by_put_or_else_by_post() {
    let (url, requests) = server(vec![405, 200]);
    upload_log(&client(), &url, b"line 1\nline 2\n", Duration::from_secs(10)).unwrap();
    assert!(requests.recv().unwrap().starts_with("PUT /events"));
    let second = requests.recv().unwrap();
    assert!(second.starts_with("POST /events") && second.ends_with("line 1\nline 2\n"), "{second}");
    let (url, _requests) = server(vec![403]);
    let error = upload_log(&client(), &url, b"", Duration::from_secs(10)).unwrap_err();
    assert_eq!(error.to_string(), format!("{url}: the server answers 403"));
}

#[test]
fn syslog_lines_follow_the_standard() {
    let event = Event { timestamp: 1_790_000_000.25, ..Event::finish("install", "no\nspace", EventResult::Fail) };
    assert_eq!(
        syslog_line(&event, "node7"),
        "<131>1 2026-09-21T14:13:20.250000Z node7 castiron - - - install: no space"
    );
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut syslog = Syslog::new(&server.local_addr().unwrap().to_string(), "node7", Level::Warn).unwrap();
    syslog.emit(&Event::start("install", "too quiet for this server"));
    syslog.emit(&event);
    let mut buffer = [0; 4096];
    let length = server.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"<131>1 "));
    syslog.emit(&Event { description: "ä".repeat(3000), ..event });
    let length = server.recv(&mut buffer).unwrap();
    assert!((2047..=2048).contains(&length) && std::str::from_utf8(&buffer[..length]).is_ok());
}

#[test]
fn a_config_says_who_is_told() {
    let (events, requests) = server(vec![200]);
    let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "castiron: 1
source: {{ bootstrap: {{ release: trixie }} }}
reporting:
  controller: {{ type: webhook, endpoint: \"{events}/${{mac}}\", token: s3cret }}
  lost: {{ type: webhook, endpoint: \"{events}/${{serial}}\" }}
  lines: {{ type: syslog, server: \"{}\" }}
logs: {{ upload: \"{events}/log\" }}
",
        syslog.local_addr().unwrap()
    );
    let config = castiron_engine::config::parse(text.as_bytes(), "node.yaml").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"), "a token is never shown");
    let variables = Variables::read(std::path::Path::new("/nonexistent"), "52:54:00:12:34:56".parse().ok(), None);
    let (reporting, listeners, troubles) = Reporting::start(&config, &variables, &client(), Some("node7"));
    assert_eq!(troubles, ["reporting.lost: this machine has no serial for ${serial}"]);
    for mut listener in listeners {
        listener.emit(&Event::start("install", "x"));
    }
    assert_eq!(reporting.finish(|| "the log".to_owned(), Duration::from_secs(10)), Vec::<String>::new());
    let event = requests.recv().unwrap();
    assert!(event.starts_with("POST /events/52:54:00:12:34:56 "), "{event}");
    assert!(event.contains("authorization: Bearer s3cret") && event.matches("s3cret").count() == 1, "{event}");
    let upload = requests.recv().unwrap();
    assert!(upload.starts_with("PUT /events/log ") && upload.ends_with("the log"), "{upload}");
    let mut line = [0; 200];
    let length = syslog.recv(&mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    assert!(line.starts_with("<134>1 ") && line.ends_with(" node7 castiron - - - install: x"), "{line}");
}
