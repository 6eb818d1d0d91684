use super::*;
use std::io::Read as _;

fn pipe(capacity: Bytes) -> (fs::File, Outlet) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    (reader.into(), Outlet { path: None, file: writer, pending: VecDeque::new(), capacity, lost_lines: 0, dead: None })
}

#[test]
fn a_stopped_line_never_blocks_and_says_what_it_lost() {
    let (mut reader, mut outlet) = pipe(Bytes::kib(1));
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    for _ in 0..2000 {
        outlet.write(&line);
    }
    assert!(outlet.pending.len() <= 1024 && outlet.lost_lines > 0);
    let mut text = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(count) = reader.read(&mut buffer) {
        text.extend(&buffer[..count]);
    }
    let lost = outlet.lost_lines;
    outlet.write(b"after\n");
    while let Ok(count) = reader.read(&mut buffer) {
        text.extend(&buffer[..count]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with(&format!("\n({lost} lines were lost here: the line is slow)\nafter\n")));
    assert_eq!(text.lines().count() as u64 - 2 + lost, 2000);
}

#[test]
fn a_line_without_a_reader_is_given_up() {
    let (reader, mut outlet) = pipe(Bytes::kib(1));
    drop(reader);
    outlet.write(b"gone\n");
    assert!(outlet.pending.is_empty() && outlet.dead.is_some());
}

#[test]
fn terminals_are_not_commanded_by_foreign_text() {
    for (text, shown) in [
        ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
        ("tab\tstays, ä too", "tab\tstays, ä too"),
        ("cr\rnul\0", "cr\\rnul\\u{0}"),
        ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
        ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
    ] {
        assert_eq!(neutral(text), shown);
    }
}

#[test]
fn consoles_come_from_both_lists() {
    let active = "ttyS0                -W- (EC p a)    4:64\ntty0                 -WU (E  p  )    4:1\nnetcon0              -W- (E     )\n";
    let named = ["ttyS1".to_owned(), "tty0".to_owned(), "../../etc/x".to_owned()];
    assert_eq!(device_names(&named, active), ["ttyS1", "tty0", "ttyS0"]);
}

#[test]
fn the_event_port_is_found_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    for (port, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "castiron.events\n")] {
        let folder = root.path().join("sys/class/virtio-ports").join(port);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), name).unwrap();
    }
    assert_eq!(event_port(root.path()), Some(root.path().join("dev/vport1p2")));
    assert_eq!(event_port(&root.path().join("sys")), None);
}

#[test]
fn progress_reads_well() {
    for (done, total, unit, text) in [
        (98, Some(212), Unit::Packages, " 46 % (98/212 packages)"),
        (3 << 19, Some(3 << 20), Unit::Bytes, " 50 % (1.5 MiB/3 MiB)"),
        (7, None, Unit::Steps, "7 steps"),
        (7, Some(0), Unit::Seconds, "7 s"),
        (9, Some(3), Unit::Steps, "100 % (9/3 steps)"),
    ] {
        assert_eq!(progress_text(Progress { done, total, unit }), text);
    }
}

#[test]
fn events_wait_for_a_port_that_comes_later() {
    let root = tempfile::tempdir().unwrap();
    let mut outlets = Outlets::default();
    for number in 0..3 {
        outlets.send(root.path(), format!("{{\"seq\":{number}}}"));
    }
    let folder = root.path().join("dev/virtio-ports");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(EVENT_PORT), "").unwrap();
    outlets.looked = None;
    outlets.send(root.path(), "{\"seq\":3}".to_owned());
    let text = fs::read_to_string(folder.join(EVENT_PORT)).unwrap();
    assert_eq!(text, "{\"seq\":0}\n{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3}\n");
}

#[test]
fn events_that_nobody_takes_do_not_fill_the_memory() {
    let root = tempfile::tempdir().unwrap();
    let mut outlets = Outlets::default();
    let line = "x".repeat(1 << 10);
    for _ in 0..2 * (EVENTS_PENDING_MAX.0 >> 10) {
        outlets.send(root.path(), line.clone());
    }
    let kept: usize = outlets.unsent.take().iter().map(|line| line.len() + 1).sum();
    assert!((1..=EVENTS_PENDING_MAX.0 as usize).contains(&kept), "{kept} bytes");
}
