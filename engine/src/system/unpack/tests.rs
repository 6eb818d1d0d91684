//! Packages made here, some of them hostile, unpacked from `file:` URLs into a temporary root.

mod made;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use expect_test::expect;

use made::*;

#[test]
fn a_package_becomes_files_and_a_database() {
    let ground = Ground::new();
    let tool = Package {
        fields: "Multi-Arch: same\n",
        control: vec![
            ("./conffiles", "/etc/tool.conf\n"),
            ("./postinst", "#!/bin/sh\n"),
            ("./triggers", "interest-noawait /usr/share/tool\ninterest toolish\nactivate-noawait ldconfig\n"),
        ],
        ..package(
            "tool",
            vec![
                directory("./"),
                directory("./bin/"),
                member("./bin/tool", b'0', 0o4755, "", b"run"),
                directory("./etc/"),
                file("./etc/tool.conf", "quiet\n"),
                member("./bin/same", b'1', 0o755, "./bin/tool", b""),
                member("./bin/link", b'2', 0o777, "tool", b""),
            ],
        )
    };
    ground.unpack(&[tool]).unwrap();
    let root = ground.root();
    assert_eq!(fs::read_link(root.join("bin")).unwrap().to_str(), Some("usr/bin"));
    let found = fs::metadata(root.join("usr/bin/tool")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime(), found.nlink()), (0o4755, 1_000_000_000, 2));
    assert_eq!(ground.read("bin/link"), "run");
    expect![[r#"
        Package: tool
        Status: install ok unpacked
        Version: 1
        Architecture: amd64
        Multi-Arch: same
        Description: a
         b
        Conffiles:
         /etc/tool.conf 0ce1f32b0f8656a29d90577cb14e01e8

    "#]]
    .assert_eq(&ground.read("var/lib/dpkg/status"));
    assert_eq!(
        ground.read("var/lib/dpkg/info/tool:amd64.list"),
        "/.\n/bin\n/bin/tool\n/etc\n/etc/tool.conf\n/bin/same\n/bin/link\n"
    );
    assert_eq!(ground.read("var/lib/dpkg/info/tool:amd64.md5sums"), "a53108f7543b75adbb34afc035d4cdf6  bin/tool\n");
    assert_eq!(ground.read("var/lib/dpkg/triggers/File"), "/usr/share/tool tool:amd64/noawait\n");
    assert_eq!(ground.read("var/lib/dpkg/triggers/toolish"), "tool:amd64\n");
    assert!(!root.join("var/lib/dpkg/triggers/ldconfig").exists());
}

#[test]
fn long_names_survive() {
    let ground = Ground::new();
    let long = format!("./{}/{}", "d".repeat(90), "f".repeat(150));
    let data = vec![
        pax(&record("path", &long)),
        file("short", "pax"),
        member("././@LongLink", b'L', 0o644, "", format!("{long}2\0").as_bytes()),
        file("short", "gnu"),
        with(file("end", "ustar"), PREFIX, b"./front"),
        // What stands before an entry concerns that entry alone.
        file("./after", "plain"),
        pax(&record("linkpath", &long)),
        link("./from-pax", "short"),
        member("././@LongLink", b'K', 0o644, "", format!("{long}\0").as_bytes()),
        link("./from-gnu", "short"),
        pax(&(record("comment", "nothing to us") + &record("mtime", "77.25"))),
        file("./dated", "x"),
    ];
    ground.unpack(&[package("long", data)]).unwrap();
    assert_eq!((ground.read(&long).as_str(), ground.read(&format!("{long}2")).as_str()), ("pax", "gnu"));
    assert_eq!((ground.read("front/end").as_str(), ground.read("after").as_str()), ("ustar", "plain"));
    for name in ["from-pax", "from-gnu"] {
        assert_eq!(fs::read_link(ground.root().join(name)).unwrap().to_str(), Some(long.as_str()));
    }
    assert_eq!(fs::metadata(ground.root().join("dated")).unwrap().mtime(), 77);
}

#[test]
fn every_packing_gives_the_same_files() {
    let body = "0123456789".repeat(40_000);
    for packing in ["", ".gz", ".xz", ".zst", ".bz2"] {
        let ground = Ground::new();
        let packed = Package { packing, ..package("packed", vec![file("./large", &body), file("./empty", "")]) };
        ground.unpack(&[packed]).unwrap();
        assert!(ground.read("large") == body && ground.read("empty").is_empty(), "{packing}");
    }
    let unknown = ar(&[("debian-binary", b"2.0\n"), ("control.tar.lz4", b""), ("data.tar", b"")]);
    let refused = |deb: Vec<u8>| Ground::new().unpack_debs(&[package("packed", Vec::new())], &[deb]).err();
    assert!(format!("{:?}", refused(unknown).unwrap()).contains(".lz4"));
}

/// A package that ends anywhere before its end is refused, whatever packs it.
#[test]
fn a_package_cut_short_is_refused() {
    for packing in ["", ".gz", ".xz", ".zst", ".bz2"] {
        let cut = || Package { packing, ..package("cut", vec![file("./a", "first"), file("./b", "second")]) };
        let deb = cut().deb();
        // Of a tar without packing the second block of zeros says nothing any more.
        let end = deb.len() - if packing.is_empty() { 512 } else { 10 };
        for length in (0..end).step_by(61).chain([end - 1]) {
            let error = Ground::new().unpack_debs(&[cut()], &[deb[..length].to_vec()]).err();
            assert_eq!(error.map(|error| error.rule()), Some("packages.unpack"), "{packing:?} to {length}");
        }
    }
}

#[test]
fn owners_modes_and_times_are_the_packages() {
    let ground = Ground::new();
    let mut data = vec![
        member("./tmp/", b'5', 0o1777, "", b""),
        member("./private/", b'5', 0o700, "", b""),
        member("./shared/", b'5', 0o2775, "", b""),
        // A directory that nobody may write is filled all the same.
        member("./shut/", b'5', 0o555, "", b""),
        file("./shut/in", "x"),
        member("./secret", b'0', 0o600, "", b"x"),
        member("./open", b'0', 0o666, "", b"x"),
        member("./set", b'0', 0o6755, "", b"x"),
        // A number of 12 bytes in base 256, as GNU writes those before 1970.
        with(file("./before", "x"), MTIME, &[&[0xff; 4][..], &(-5i64).to_be_bytes()].concat()),
        with(file("./late", "x"), MTIME, b"40000000000"),
    ];
    let rooted = rustix::process::geteuid().is_root();
    if rooted {
        data.push(with(with(member("./owned", b'0', 0o4711, "", b"x"), UID, b"0001750"), GID, b"0000062"));
        data.push(with(link("./owned-link", "nowhere"), UID, b"0001750"));
        data.push(with(directory("./owned-folder/"), GID, b"0000062"));
    }
    ground.unpack(&[package("modes", data)]).unwrap();
    let root = ground.root();
    let mode = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().mode() & 0o7777;
    let modes = ["tmp", "private", "shared", "shut", "shut/in", "secret", "open", "set"].map(mode);
    assert_eq!(modes, [0o1777, 0o700, 0o2775, 0o555, 0o644, 0o600, 0o666, 0o6755]);
    let date = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().mtime();
    assert_eq!(
        ["tmp", "shut", "secret", "before", "late"].map(date),
        [1_000_000_000, 1_000_000_000, 1_000_000_000, -5, 1 << 32]
    );
    if rooted {
        let owner = |path: &str| fs::symlink_metadata(root.join(path)).map(|found| (found.uid(), found.gid())).unwrap();
        assert_eq!(
            ["owned", "owned-link", "owned-folder", "open"].map(owner),
            [(1000, 50), (1000, 0), (0, 50), (0, 0)]
        );
        assert_eq!(mode("owned"), 0o4711, "a new owner takes the special bits away");
    }
}

#[test]
fn special_files_are_made() {
    let ground = Ground::new();
    ground.unpack(&[package("special", vec![member("./pipe", b'6', 0o620, "", b"")])]).unwrap();
    let pipe = fs::metadata(ground.root().join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo() && pipe.permissions().mode() & 0o777 == 0o620);
    if rustix::process::geteuid().is_root() {
        ground.unpack(&[package("node", vec![member("./null", b'3', 0o666, "", b"")])]).unwrap();
        let node = fs::metadata(ground.root().join("null")).unwrap();
        assert!(node.file_type().is_char_device() && node.rdev() == rustix::fs::makedev(1, 3));
    }
}

#[test]
fn nothing_leads_out_of_the_root() {
    for path in ["../out", "./a/../../out", "./a/.."] {
        let error = Ground::new().unpack(&[package("evil", vec![file(path, "x")])]).err().expect(path);
        assert_eq!(error.rule(), "packages.unpack", "{path}");
    }
    let ground = Ground::new();
    let outside = ground.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let up = format!("../../../../../../../..{}", outside.display());
    fs::write(outside.join("file"), "theirs").unwrap();
    // Links that lead out: what goes through them lands inside, below the root, or nowhere.
    for (place, link) in [("absolute", outside.to_str().unwrap()), ("relative", up.as_str())] {
        let through = |last: Vec<u8>| vec![self::link(&format!("./{place}"), link), last];
        for last in [
            file(&format!("./{place}/file"), "x"),
            directory(&format!("./{place}/folder/")),
            self::link(&format!("./{place}/link"), "file"),
            member(&format!("./{place}/pipe"), b'6', 0o666, "", b""),
            member(&format!("./{place}/file"), b'0', 0o4777, "", b""),
            // A name of our own for what lies outside.
            member("./hard", b'1', 0o644, &format!("./{place}/file"), b""),
        ] {
            drop(ground.unpack(&[package("evil", through(last))]));
        }
    }
    for hard in ["/etc/passwd", "../../../../../../etc/passwd", "./absolute/file", "./relative/file"] {
        drop(ground.unpack(&[package("evil", vec![member("./hard", b'1', 0o644, hard, b"")])]));
        assert!(!ground.root().join("hard").exists(), "{hard}");
    }
    drop(ground.unpack(&[package("evil", vec![file("/outside-absolute", "x")])]));
    drop(
        ground.unpack(&[package("evil", vec![member("./link", b'2', 0o644, "/etc/passwd", b""), file("./link", "x")])]),
    );
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
    let theirs = fs::metadata(outside.join("file")).unwrap();
    assert_eq!((theirs.nlink(), theirs.mode() & 0o7777), (1, 0o644));
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "theirs");
    assert!(!std::path::Path::new("/outside-absolute").exists());
    assert_eq!(fs::metadata("/etc/passwd").unwrap().nlink(), 1);
}

#[test]
fn damage_is_refused() {
    let tool = || package("tool", vec![file("./tool", "run")]);
    let refused = |deb: Vec<u8>| Ground::new().unpack_debs(&[tool()], &[deb]).err().map(|error| error.rule());
    let good = tool().deb();
    assert_eq!(refused(good.clone()), None);
    assert_eq!(refused(good[..good.len() - 30].to_vec()), Some("packages.unpack"), "cut short");
    assert_eq!(refused(Package { whole: false, ..tool() }.deb()), Some("packages.unpack"), "a tar without its end");
    assert_eq!(refused(b"<!DOCTYPE html>".to_vec()), Some("packages.unpack"), "no package at all");
    assert_eq!(refused(package("other", Vec::new()).deb()), Some("packages.stranger"), "another package");
    let mut header = file("./tool", "run");
    header[0] ^= 1;
    assert_eq!(refused(package("tool", vec![header]).deb()), Some("packages.unpack"), "a header's checksum");
    let unpack = |data: Vec<Vec<u8>>| refused(package("tool", data).deb());
    let sparse = [record("GNU.sparse.major", "1"), record("GNU.sparse.realsize", "9")];
    let sizes = ["-1", "99999", "9223372036854775807", "18446744073709551615", "18446744073709551616", "x"];
    let sizes = sizes.map(|size| record("size", size));
    let owners = [record("uid", "4294967296"), record("gid", "-1"), record("mtime", "then")];
    let broken = ["8 path=x\n", "x", "0 a=b\n", "99 a=b\n", "6 a=b", "5 ab\n"].map(str::to_owned);
    for records in sparse.into_iter().chain(sizes).chain(owners).chain(broken) {
        assert_eq!(unpack(vec![pax(&records), file("./tool", "x")]), Some("packages.unpack"), "{records:?}");
    }
    // GNU's numbers of 64 bits and more: negative, larger than any file, an owner that would be cut to root.
    let gnu = |top: u8, rest: u64| [&[top, 0, 0, 0][..], &rest.to_be_bytes()].concat();
    for size in [gnu(0xff, 1), gnu(0x80, u64::MAX), gnu(0x80, 1 << 62), gnu(0x80, (1 << 63) - 1), b"9".to_vec()] {
        assert_eq!(unpack(vec![with(file("./tool", "x"), SIZE, &size)]), Some("packages.unpack"), "size {size:?}");
    }
    let owner = [0x80, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(unpack(vec![with(file("./tool", "x"), UID, &owner)]), Some("packages.unpack"), "an owner");
    assert_eq!(unpack(vec![member("./tool", b'S', 0o644, "", b"x")]), Some("packages.unpack"), "GNU's sparse file");
    assert_eq!(unpack(vec![member("./tool", b'Z', 0o644, "", b"x")]), Some("packages.unpack"), "an unknown type");
    assert_eq!(
        unpack(vec![member("./tool", b'1', 0o644, "./none", b"")]),
        Some("packages.unpack"),
        "a link to nothing"
    );
    assert_eq!(unpack(vec![file("./a\nb", "x")]), Some("packages.unpack"), "a name that would be two");
    assert_eq!(unpack(vec![file("./", "x")]), Some("packages.unpack"), "a file without a name");
    assert_eq!(
        unpack(vec![file("./tool", "x"), file("./tool/in", "x")]),
        Some("packages.unpack"),
        "a file as a folder"
    );
    assert_eq!(unpack(vec![file("./tool", "x"), directory("./tool/")]), Some("packages.unpack"), "a folder on a file");
    let member = |name: &str| ar(&[("debian-binary", b"2.0\n"), (name, b"x"), ("control.tar", b""), ("data.tar", b"")]);
    assert_eq!(refused(member("stray")), Some("packages.unpack"), "a member that is not for us");
    let swapped = ar(&[("debian-binary", b"3.0\n"), ("control.tar", b""), ("data.tar", b"")]);
    assert_eq!(refused(swapped), Some("packages.unpack"), "a format to come");
    let slash = Package { control: vec![("./../../x", "y")], ..tool() };
    assert_eq!(refused(slash.deb()), Some("packages.unpack"), "a control file's name");
}

/// Links into a merged `/usr` are there before anything goes through them, whoever comes first.
#[test]
fn a_merged_usr_is_followed() {
    let ground = Ground::new();
    let old =
        package("old", vec![member("./lib/", b'5', 0o700, "", b""), directory("./lib/x/"), file("./lib/x/a", "old")]);
    let new = package("new", vec![directory("./usr/lib/"), directory("./usr/lib/x/"), file("./usr/lib/x/b", "new")]);
    ground.unpack(&[old, new]).unwrap();
    let root = ground.root();
    assert_eq!(fs::read_link(root.join("lib")).unwrap().to_str(), Some("usr/lib"));
    assert_eq!((ground.read("usr/lib/x/a"), ground.read("lib/x/b")), ("old".to_owned(), "new".to_owned()));
    // The list names what the package says, as dpkg's does.
    assert_eq!(ground.read("var/lib/dpkg/info/old.list"), "/lib\n/lib/x\n/lib/x/a\n");
    assert_eq!(
        fs::metadata(root.join("usr/lib")).unwrap().mode() & 0o7777,
        0o755,
        "the link's mode is not the folder's"
    );

    let mut split = Ground::new();
    split.merged_usr = false;
    split.unpack(&[package("old", vec![directory("./lib/"), file("./lib/a", "old")])]).unwrap();
    assert!(fs::symlink_metadata(split.root().join("lib")).unwrap().is_dir() && !split.root().join("usr").exists());
}

/// Debian policy 6.6: a link to a folder serves as that folder, and a folder stays where a link would take its place.
#[test]
fn links_to_folders_and_folders_stay() {
    let ground = Ground::new();
    let data = vec![
        directory("./srv/"),
        directory("./srv/data/"),
        link("./srv/www", "data"),
        link("./abs", "/srv/data"),
        directory("./srv/www/"),
        file("./srv/www/a", "relative"),
        file("./abs/b", "absolute"),
        link("./srv/data", "elsewhere"),
    ];
    ground.unpack(&[package("links", data)]).unwrap();
    assert_eq!((ground.read("srv/data/a"), ground.read("srv/data/b")), ("relative".to_owned(), "absolute".to_owned()));
    assert_eq!(fs::read_link(ground.root().join("srv/www")).unwrap().to_str(), Some("data"));
    assert!(fs::symlink_metadata(ground.root().join("srv/data")).unwrap().is_dir());
    let names = fs::read_dir(ground.root().join("srv")).unwrap().count();
    assert_eq!(names, 2, "nothing is left aside");
}

#[test]
fn the_same_file_by_two_names_is_a_clash() {
    let pair = |fields| {
        let here = Package { fields, ..package("here", vec![file("./bin/sh", "here")]) };
        [here, package("there", vec![file("./usr/bin/sh", "there")])]
    };
    assert_eq!(Ground::new().unpack(&pair("")).err().unwrap().rule(), "packages.clash");
    let ground = Ground::new();
    ground.unpack(&pair("Replaces: there\n")).unwrap();
    assert_eq!(ground.read("usr/bin/sh"), "here");
    assert_eq!(fs::read_dir(ground.root().join("usr/bin")).unwrap().count(), 1);
}

#[test]
fn of_two_packages_the_one_that_replaces_wins() {
    // Whichever comes first: sizes decide about the order.
    for padding in ["", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"] {
        let ground = Ground::new();
        let new = Package {
            fields: "Replaces: old (<< 2)\n",
            ..package("new", vec![file("./usr/shared", "new"), file("./n", padding)])
        };
        let old = package("old", vec![file("./usr/shared", "old"), file("./o", "0")]);
        ground.unpack(&[new, old]).unwrap();
        assert_eq!(ground.read("usr/shared"), "new");
        assert_eq!(ground.read("var/lib/dpkg/info/old.list"), "/o\n");
        assert_eq!(fs::read_dir(ground.root().join("usr")).unwrap().count(), 1, "nothing is left aside");
    }
    let clash = Ground::new()
        .unpack(&[package("a", vec![file("./x", "a")]), package("b", vec![file("./x", "b")])])
        .err()
        .unwrap();
    assert_eq!(clash.rule(), "packages.clash");
    assert!(clash.to_string().contains("/x"), "{clash}");
}

#[test]
fn a_package_that_diverts_is_left_to_dpkg() {
    let ground = Ground::new();
    let script = "#!/bin/sh\ndpkg-divert --package div --add --rename /bin/sh\n";
    let divert = Package { control: vec![("./preinst", script)], ..package("div", vec![file("./bin/sh", "x")]) };
    let undo = Package {
        control: vec![("./preinst", "dpkg-divert --remove /x\n")],
        ..package("undo", vec![file("./u", "x")])
    };
    // dpkg cannot put in place what it cannot run without.
    let base = Package {
        control: vec![("./preinst", script)],
        foundation: true,
        ..package("base", vec![file("./usr/bin/base", "x")])
    };
    let unpacked = ground.unpack(&[divert, undo, base]).unwrap();
    assert_eq!(unpacked.iter().map(|package| package.postponed).collect::<Vec<_>>(), [true, false, false]);
    assert!(
        ground.root().join("var/lib/dpkg/castiron/div_amd64.deb").exists() && !ground.root().join("bin/sh").exists()
    );
    assert!(!ground.read("var/lib/dpkg/status").contains("div"));
}
