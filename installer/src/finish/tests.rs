use super::*;

fn policy(line: &str, outcome: &Outcome) -> (Ending, Option<u64>) {
    let policy = outcome.policy(&Boot::parse(line));
    (policy.ending, policy.reboot_after.map(|time| time.as_secs()))
}

#[test]
fn the_command_line_decides_then_the_config() {
    let wish = Wish { ending: Some(Ending::PowerOff), reboot_after: Some(Duration::from_secs(9)) };
    let done = Outcome::Done { wish: wish.clone(), kexec: None };
    let failed = Outcome::Failed { reason: "no disk".to_owned(), wish };
    for (line, outcome, expected) in [
        ("", &Outcome::done(), (Ending::Reboot, None)),
        ("", &done, (Ending::PowerOff, None)),
        ("castiron.on_success=wait", &done, (Ending::Wait, None)),
        ("", &Outcome::failed("x"), (Ending::Shell, None)),
        ("castiron.reboot_after=5m", &Outcome::failed("x"), (Ending::Shell, Some(300))),
        ("", &failed, (Ending::PowerOff, None)),
        ("castiron.on_error=reboot", &failed, (Ending::Reboot, Some(9))),
        ("castiron.on_error=reboot", &Outcome::failed("x"), (Ending::Reboot, Some(30))),
        ("castiron.on_error=wait", &Outcome::Panicked { message: String::new() }, (Ending::Wait, None)),
        ("castiron.on_error=wait", &Outcome::Stopped { request: Request::Halt }, (Ending::Halt, None)),
    ] {
        assert_eq!(policy(line, outcome), expected, "{line} {outcome:?}");
    }
}

#[test]
fn only_what_was_added_is_unmounted() {
    let mountinfo = "1 1 0:2 / / rw - rootfs rootfs rw\n21 1 0:5 / /proc rw - proc proc rw\n\
        22 1 0:6 / /dev/pts rw - devpts devpts rw\n30 1 8:1 / /target rw - ext4 /dev/sda1 rw\n\
        31 30 0:5 / /target/proc rw - proc proc rw\n32 1 8:2 / /mnt/my\\040disk rw - ext4 /dev/sdb1 rw\n";
    assert_eq!(mount_points(mountinfo), ["/mnt/my disk", "/target/proc", "/target"]);
}

#[test]
fn escapes_of_mountinfo_are_read() {
    for (field, text) in [("a\\040b", "a b"), ("\\134", "\\"), ("a\\0", "a\\0"), ("\\999", "\\999")] {
        assert_eq!(unescape(field), text);
    }
}
