use std::cell::Cell;
use std::net::UdpSocket;

use castiron_engine::trust::ClockSource;

use super::*;

struct Fake(Cell<Option<Timestamp>>);

impl Fake {
    fn at(text: &str) -> Self {
        Self(Cell::new(text.parse().ok()))
    }
    fn date(&self) -> String {
        self.0.get().map(|time| time.to_string()[..10].to_owned()).unwrap_or_default()
    }
}

impl SystemClock for Fake {
    fn now(&self) -> Option<Timestamp> {
        self.0.get()
    }
    fn set(&self, time: Timestamp) -> io::Result<()> {
        self.0.set(Some(time));
        Ok(())
    }
}

/// An appliance built on 2026-09-01.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/castiron")).unwrap();
    fs::write(root.path().join(BUILD_DATE), "1788220800\n").unwrap();
    root
}

fn start(clock: &Fake) -> (Clocks, String) {
    let mut events: Vec<Event> = Vec::new();
    let clocks = Clocks::start(root().path(), clock, &mut events);
    (clocks, events.into_iter().map(|event| event.description).collect())
}

#[test]
fn a_clock_that_cannot_be_right_is_named_and_lifted() {
    for (wrong, shown) in [
        ("1970-01-01T00:00:12Z", "1970-01-01T00:00:12Z"),
        ("2026-08-31T23:59:59Z", "2026-08-31T23:59:59Z"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00Z"),
        ("9999-12-01T00:00:00Z", "9999-12-01T00:00:00Z"),
        ("-000100-01-01T00:00:00Z", "-000100-01-01T00:00:00Z"),
        ("past all years", "a time past the year 9999"),
    ] {
        let clock = Fake::at(wrong);
        let (clocks, said) = start(&clock);
        assert!(said.starts_with(&format!("the hardware clock is implausible, it says {shown}")), "{said}");
        assert_eq!(clock.date(), "2026-09-01");
        assert_eq!(clocks.evidence().hardware, None);
    }
}

#[test]
fn a_good_clock_is_left_alone() {
    let clock = Fake::at("2027-03-01T00:00:00Z");
    let (clocks, said) = start(&clock);
    assert_eq!((clock.date().as_str(), said.as_str()), ("2027-03-01", ""));
    assert!(clocks.evidence().hardware.is_some());
}

#[test]
fn build_dates_in_both_forms() {
    assert_eq!(parse_build_date("1788220800\n"), parse_build_date("2026-09-01T00:00:00Z"));
    assert_eq!(parse_build_date("soon"), None);
    let mut events: Vec<Event> = Vec::new();
    assert_eq!(floor(Path::new("/nonexistent"), &mut events).to_string(), OLDEST);
}

/// A time server on the loopback that says `seconds` since 1970 to everybody.
fn time_server(seconds: i64) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut packet = [0; 48];
        while let Ok((_, from)) = socket.recv_from(&mut packet) {
            let mut answer = [0; 48];
            answer[0] = 4 << 3 | 4;
            answer[1] = 1;
            answer[24..32].copy_from_slice(&packet[40..48]);
            let ntp = ((seconds + 2_208_988_800) as u64) << 32;
            answer[32..40].copy_from_slice(&ntp.to_be_bytes());
            answer[40..48].copy_from_slice(&ntp.to_be_bytes());
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

fn seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

#[test]
fn the_network_sets_a_clock_from_1970() {
    let clock = Fake::at("1970-01-01T00:00:00Z");
    let (mut clocks, _) = start(&clock);
    let mut events: Vec<Event> = Vec::new();
    let server = time_server(seconds("2026-11-23T14:00:00Z"));
    clocks.ask_network(&[server], Duration::from_secs(10), &clock, &mut events);
    assert_eq!(clock.date(), "2026-11-23");
    assert!(events[0].description.contains("says 2026-11-23T14:00:00Z; the clock was"), "{}", events[0].description);
}

#[test]
fn an_impossible_server_is_passed_over_by_name() {
    let clock = Fake::at("2026-10-01T00:00:00Z");
    let (mut clocks, _) = start(&clock);
    let mut events: Vec<Event> = Vec::new();
    let servers = [time_server(seconds("2024-01-01T00:00:00Z")), time_server(seconds("2026-10-02T00:00:00Z"))];
    clocks.ask_network(&servers, Duration::from_secs(10), &clock, &mut events);
    let said = &events[0].description;
    assert!(said.starts_with(&format!("the time server {} says 2024-01-01T00:00:00", servers[0])), "{said}");
    assert!(said.ends_with("which is impossible"), "{said}");
    assert_eq!(clock.date(), "2026-10-02");
}

#[test]
fn a_lying_server_is_undone_by_the_signed_window() {
    let clock = Fake::at("2026-10-01T00:00:00Z");
    let (mut clocks, _) = start(&clock);
    let mut events: Vec<Event> = Vec::new();
    clocks.ask_network(&[time_server(seconds("2036-10-01T00:00:00Z"))], Duration::from_secs(10), &clock, &mut events);
    assert_eq!(clock.date(), "2036-10-01");
    let verdict = ClockVerdict {
        now: clocks.evidence().hardware.unwrap(),
        source: ClockSource::Hardware,
        network_rejected: true,
    };
    let window = Window {
        not_before: "2026-09-01T00:00:00Z".parse().unwrap(),
        not_after: "2026-11-01T00:00:00Z".parse().unwrap(),
    };
    clocks.adopt(window, &verdict, &clock, &mut events);
    assert_eq!(clock.date(), "2026-10-01");
    assert!(events.iter().any(|event| event.description.contains("are not believed")));
    clocks.ask_network(&[time_server(seconds("2027-10-01T00:00:00Z"))], Duration::from_secs(5), &clock, &mut events);
    assert_eq!((clock.date().as_str(), clocks.is_synchronised()), ("2026-10-01", false), "nor is a later one");
}

#[test]
fn silence_leaves_the_clock_alone() {
    let clock = Fake::at("2026-10-01T00:00:00Z");
    let (mut clocks, _) = start(&clock);
    let mut events: Vec<Event> = Vec::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    clocks.ask_network(&[server], Duration::from_millis(300), &clock, &mut events);
    assert_eq!(
        (clock.date().as_str(), events[0].description.as_str()),
        ("2026-10-01", "no time server answered in 0 s")
    );
    assert_eq!(clocks.evidence().network, None);
}

fn ntp(servers: &[String], required: bool) -> Ntp {
    let boot_timeout = castiron_engine::config::values::Span(Duration::from_secs(10));
    Ntp { servers: servers.to_vec(), required, boot_timeout, ..Ntp::default() }
}

#[test]
fn the_servers_of_the_config_are_asked_when_no_other_has_answered() {
    let clock = Fake::at("2026-10-01T00:00:00Z");
    let (mut clocks, _) = start(&clock);
    let mut events: Vec<Event> = Vec::new();
    let first = ntp(&[time_server(seconds("2026-11-01T00:00:00Z"))], true);
    assert_eq!(clocks.synchronise(&first, true, &clock, &mut events), Ok(()));
    assert_eq!(clock.date(), "2026-11-01");
    let second = ntp(&[time_server(seconds("2027-01-01T00:00:00Z"))], true);
    assert_eq!(clocks.synchronise(&second, true, &clock, &mut events), Ok(()));
    assert_eq!(clock.date(), "2026-11-01", "one answer is enough");
}

#[test]
fn a_config_may_insist_on_the_time() {
    let clock = Fake::at("2026-10-01T00:00:00Z");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = Ntp {
        boot_timeout: castiron_engine::config::values::Span(Duration::from_millis(300)),
        ..ntp(&[silent.local_addr().unwrap().to_string()], true)
    };
    for (ntp, reachable, expected) in [
        (nobody.clone(), true, Err(NoTime)),
        (Ntp { required: false, ..nobody }, true, Ok(())),
        (ntp(&[time_server(seconds("2026-11-01T00:00:00Z"))], true), false, Err(NoTime)),
        (ntp(&[], true), true, Err(NoTime)),
    ] {
        let (mut clocks, _) = start(&clock);
        assert_eq!(clocks.synchronise(&ntp, reachable, &clock, &mut Vec::new()), expected);
        assert_eq!(clock.date(), "2026-10-01");
    }
}
