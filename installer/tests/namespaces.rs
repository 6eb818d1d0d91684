//! The network code against real servers, links and kernels: each test makes two network namespaces
//! joined by a virtual cable, with servers in one and the appliance's code in the other.
//!
//! Needs root, `ip` and `dnsmasq`. Everything made is removed at the end of the test, even a failed one.

#![allow(clippy::disallowed_methods, reason = "the laboratory starts servers and the ip tool")]

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use castiron_engine::event::Event;
use castiron_engine::units::Bytes;
use castiron_init::net::{self, NetArguments, NetRequest};

/// Two namespaces and the cable between `srv` in the first and `cli` in the second.
struct Lab {
    server: String,
    client: String,
    folder: tempfile::TempDir,
    running: Vec<Child>,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self {
            server: format!("castiron-s-{id}"),
            client: format!("castiron-c-{id}"),
            folder: tempfile::tempdir().unwrap(),
            running: Vec::new(),
        };
        let (server, client) = (&lab.server, &lab.client);
        ip(&format!("netns add {server}"));
        ip(&format!("netns add {client}"));
        ip(&format!("link add srv netns {server} address 02:00:00:00:00:01 type veth peer name cli netns {client}"));
        ip(&format!("-n {client} link set cli address 52:54:00:12:34:56"));
        ip(&format!("-n {client} link set lo up"));
        ip(&format!("-n {server} link set lo up"));
        ip(&format!("-n {server} link set srv up"));
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a program in the server's namespace.
    fn serve(&mut self, program: &str, arguments: &[&str]) -> usize {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.server, program])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start ip: {error}"));
        self.running.push(child);
        self.running.len() - 1
    }

    fn stop(&mut self, index: usize) {
        self.running[index].kill().unwrap();
        self.running[index].wait().unwrap();
    }

    fn dnsmasq(&mut self, options: &str) -> usize {
        let config = self.path(&format!("dnsmasq-{}.conf", self.running.len()));
        let leases = self.path("leases");
        let base = format!(
            "port=0\ninterface=srv\nbind-interfaces\nleasefile-ro\nuser=root\ndhcp-leasefile={}\nlog-dhcp\n{options}\n",
            leases.display()
        );
        std::fs::write(&config, base).unwrap();
        self.serve("dnsmasq", &["--no-daemon", "--pid-file=", &format!("--conf-file={}", config.display())])
    }

    /// Runs `inside` in the client's namespace.
    fn client(&self, arguments: &str, stay_seconds: u32) -> String {
        let output = self.client_command(arguments, stay_seconds).output().unwrap();
        text(&output)
    }

    fn client_command(&self, arguments: &str, stay_seconds: u32) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.client])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "inside", "--ignored", "--nocapture", "--quiet"])
            .env("LAB_ARGUMENTS", arguments)
            .env("LAB_STAY_SECONDS", stay_seconds.to_string())
            .env("LAB_FOLDER", self.folder.path());
        command
    }

    fn in_client(&self, command: &str) -> String {
        text(&Command::new("ip").args(["netns", "exec", &self.client]).args(command.split(' ')).output().unwrap())
    }

    fn resolv_conf(&self) -> String {
        std::fs::read_to_string(self.path("resolv.conf")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
            let mut said = String::new();
            if std::thread::panicking()
                && child.stderr.take().is_some_and(|mut pipe| pipe.read_to_string(&mut said).is_ok())
            {
                eprintln!("{said}");
            }
        }
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the ip tool");
    assert!(output.status.success(), "ip {arguments} (as root?): {}", text(&output));
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Not a test of its own: the other tests start it inside the client's namespace.
#[test]
#[ignore = "started by the other tests of this file, inside a namespace"]
fn inside() {
    let arguments = std::env::var("LAB_ARGUMENTS").expect("started by a test of this file");
    let words: Vec<(&str, &str)> = arguments.split(' ').filter_map(|word| word.split_once('=')).collect();
    let all = |name: &'static str| all_texts(&words, name).collect();
    let parsed = NetRequest::parse(&NetArguments {
        ip: all("ip"),
        nameserver: all("nameserver"),
        bootif: words.iter().find(|(word, _)| *word == "BOOTIF").map(|(_, value)| *value),
        route: all("rd.route"),
        ..NetArguments::default()
    });
    let mut request = parsed.unwrap();
    let seconds = |name: &str, usual| {
        words.iter().find(|(word, _)| *word == name).map_or(usual, |(_, value)| value.parse().unwrap())
    };
    request.link_wait = Duration::from_secs(seconds("link_wait", 10));
    request.configure_wait = Duration::from_secs(seconds("configure_wait", 20));
    request.roots.resolv_conf = PathBuf::from(std::env::var("LAB_FOLDER").unwrap()).join("resolv.conf");
    let stay: u64 = std::env::var("LAB_STAY_SECONDS").unwrap().parse().unwrap();

    let begun = Instant::now();
    let mut events: Vec<Event> = Vec::new();
    let result = net::bring_up(&request, &mut events);
    println!("after {:.1} s", begun.elapsed().as_secs_f64());
    match &result {
        Ok(_) => std::thread::sleep(Duration::from_secs(stay)),
        Err(error) => println!("error: {error}"),
    }
    if let Ok(state) = &result {
        state.report(&mut events);
        for link in state.links() {
            let mut line = format!("link {} v4 {:?} v6 {:?}", link.name, link.v4, link.v6);
            for (address, prefix) in &link.addresses {
                write!(line, " address {address}/{prefix}").unwrap();
            }
            link.gateways.iter().for_each(|gateway| write!(line, " via {gateway}").unwrap());
            link.dns.iter().for_each(|server| write!(line, " dns {server}").unwrap());
            link.search.iter().for_each(|name| write!(line, " search {name}").unwrap());
            link.ntp.iter().for_each(|server| write!(line, " ntp {server}").unwrap());
            link.hostname.iter().for_each(|name| write!(line, " as {name}").unwrap());
            link.config_url.iter().for_each(|url| write!(line, " config {url}").unwrap());
            link.lease.iter().for_each(|lease| write!(line, " renewals {}", lease.renewals).unwrap());
            println!("{line}");
        }
    }
    for url in all_texts(&words, "tftp") {
        match net::tftp::get(url, Bytes::mib(1)) {
            Ok(content) => println!("{url}: {} bytes", content.len()),
            Err(error) => println!("error: {error}"),
        }
    }
    for event in &events {
        println!("event {:?} {:?} {}: {}", event.event_type, event.level, event.name, event.description);
    }
}

fn all_texts<'a>(words: &'a [(&str, &'a str)], name: &'static str) -> impl Iterator<Item = &'a str> {
    words.iter().filter(move |(word, _)| *word == name).map(|(_, value)| *value)
}

#[track_caller]
fn contains(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn dhcp_gives_address_routes_names_and_time() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    lab.dnsmasq(
        "dhcp-range=10.77.0.50,10.77.0.50,1h\ndhcp-option=option:router,10.77.0.1\ndhcp-option=option:dns-server,10.77.0.53\n\
         dhcp-option=option:ntp-server,10.77.0.123\ndhcp-option=option:domain-search,one.example,two.example\n\
         dhcp-option=option:classless-static-route,0.0.0.0/0,10.77.0.2,192.0.2.0/24,10.77.0.3\n\
         dhcp-host=52:54:00:12:34:56,node7\ndhcp-option=224,http://10.77.0.1/node7.yaml\ndhcp-option=option:mtu,1400",
    );
    let said = lab.client("ip=cli:dhcp", 0);
    contains(
        &said,
        &[
            "v4 Ready v6 Off address 10.77.0.50/24 via 10.77.0.2 dns 10.77.0.53 search one.example search two.example",
            "ntp 10.77.0.123 as node7 config http://10.77.0.1/node7.yaml",
            "cli has 10.77.0.50/24 from 10.77.0.1",
        ],
    );
    assert_eq!(
        lab.resolv_conf(),
        "nameserver 10.77.0.53\nsearch one.example two.example\noptions timeout:2 attempts:3\n"
    );
    contains(
        &lab.in_client("ip route"),
        &["default via 10.77.0.2 dev cli proto dhcp metric", "192.0.2.0/24 via 10.77.0.3", "mtu 1400"],
    );
}

#[test]
fn a_static_address_needs_no_server() {
    let lab = Lab::new();
    let said = lab
        .client("ip=10.77.0.9::10.77.0.1:255.255.255.0:node9:cli:none:10.77.0.53 rd.route=192.0.2.0/24:10.77.0.4", 0);
    contains(&said, &["v4 Ready v6 Off address 10.77.0.9/24 via 10.77.0.1 dns 10.77.0.53 as node9"]);
    contains(&lab.in_client("ip route"), &["default via 10.77.0.1", "192.0.2.0/24 via 10.77.0.4"]);
    assert_eq!(lab.resolv_conf(), "nameserver 10.77.0.53\noptions timeout:2 attempts:3\n");
}

#[test]
fn a_cable_that_comes_late_is_waited_for() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    ip(&format!("-n {} link set srv down", lab.server));
    lab.dnsmasq("dhcp-range=10.77.0.50,10.77.0.50,1h");
    let client = lab.client_command("ip=cli:dhcp", 0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    ip(&format!("-n {} link set srv up", lab.server));
    contains(&text(&client.wait_with_output().unwrap()), &["v4 Ready", "10.77.0.50/24"]);
}

#[test]
fn no_carrier_and_no_server_are_told_apart() {
    let lab = Lab::new();
    contains(
        &lab.client("ip=cli:dhcp configure_wait=3", 0),
        &["error: no link became usable: cli: no DHCP server answered in 3 s"],
    );
    ip(&format!("-n {} link set srv down", lab.server));
    contains(&lab.client("ip=cli:dhcp link_wait=2", 0), &["error: no link became usable: cli: no carrier in 2 s"]);
    contains(&lab.client("ip=dhcp link_wait=1", 0), &["error: this machine has no network link that could be used"]);
}

/// T1 of two seconds; the server forgets us in the middle and another one offers another address.
const SHORT_LEASE: &str = "dhcp-authoritative\ndhcp-option-force=option:T1,2\ndhcp-option-force=option:T2,4";

#[test]
fn a_lease_is_renewed_while_the_install_runs() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    lab.dnsmasq(&format!("dhcp-range=10.77.0.50,10.77.0.50,2m\n{SHORT_LEASE}"));
    let said = lab.client("ip=cli:dhcp", 7);
    contains(&said, &["v4 Ready v6 Off address 10.77.0.50/24"]);
    assert!(said.contains("renewals 2") || said.contains("renewals 3"), "{said}");
}

#[test]
fn a_lease_that_is_refused_is_replaced() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    let first = lab.dnsmasq(&format!("dhcp-range=10.77.0.50,10.77.0.50,2m\n{SHORT_LEASE}"));
    let client = lab.client_command("ip=cli:dhcp", 9).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !lab.in_client("ip addr show dev cli").contains("10.77.0.50") {
        assert!(begun.elapsed() < Duration::from_secs(10), "no first address");
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.stop(first);
    lab.dnsmasq(&format!("dhcp-range=10.77.0.60,10.77.0.60,2m\n{SHORT_LEASE}"));
    let said = text(&client.wait_with_output().unwrap());
    contains(
        &said,
        &["the lease of 10.77.0.50 ended", "v4 Ready v6 Off address 10.77.0.60/24", "cli has 10.77.0.60/24 now"],
    );
    assert!(!lab.in_client("ip addr show dev cli").contains("10.77.0.50"), "the old address is gone");
}

#[test]
fn ipv6_only_with_name_servers_from_the_router() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 2001:db8:77::1/64 dev srv nodad", lab.server));
    lab.dnsmasq(
        "enable-ra\ndhcp-range=2001:db8:77::,ra-only,64,1h\ndhcp-option=option6:dns-server,[2001:db8:77::53]\n\
         dhcp-option=option6:domain-search,example.org\nra-param=srv,4,600",
    );
    let said = lab.client("ip=auto6", 0);
    contains(&said, &["error: this machine has no network link that could be used"]);
    let said = lab.client("ip=cli:auto6", 0);
    contains(
        &said,
        &[
            "v4 Off v6 Ready address 2001:db8:77:0:5054:ff:fe12:3456/64 via fe80::",
            "dns 2001:db8:77::53",
            "search example.org",
        ],
    );
    assert_eq!(lab.resolv_conf(), "nameserver 2001:db8:77::53\nsearch example.org\noptions timeout:2 attempts:3\n");
    contains(&lab.in_client("ip -6 route"), &["default via fe80::"]);
}

#[test]
fn ipv6_addresses_and_name_servers_from_dhcp() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 2001:db8:77::1/64 dev srv nodad", lab.server));
    lab.dnsmasq(
        "enable-ra\ndhcp-range=2001:db8:77::500,2001:db8:77::500,64,1h\ndhcp-option=option6:dns-server,[2001:db8:77::53]\n\
         dhcp-option=option6:ntp-server,[2001:db8:77::123]\nra-param=srv,4,600",
    );
    let said = lab.client("ip=cli:auto6", 0);
    contains(&said, &["v6 Ready address 2001:db8:77::500/128", "dns 2001:db8:77::53", "ntp 2001:db8:77::123"]);
}

#[test]
fn both_families_side_by_side() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    ip(&format!("-n {} addr add 2001:db8:77::1/64 dev srv nodad", lab.server));
    lab.dnsmasq(
        "dhcp-range=10.77.0.50,10.77.0.50,1h\nenable-ra\ndhcp-range=2001:db8:77::,ra-only,64,1h\nra-param=srv,4,600",
    );
    contains(
        &lab.client("ip=cli:auto", 4),
        &["v4 Ready v6 Ready", "10.77.0.50/24", "2001:db8:77:0:5054:ff:fe12:3456/64"],
    );
}

#[test]
fn a_config_over_tftp() {
    let mut lab = Lab::new();
    ip(&format!("-n {} addr add 10.77.0.1/24 dev srv", lab.server));
    let folder = lab.path("tftp");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("node7.yaml"), "iron ".repeat(10_000)).unwrap();
    lab.dnsmasq(&format!("dhcp-range=10.77.0.50,10.77.0.50,1h\nenable-tftp\ntftp-root={}", folder.display()));
    let said = lab.client("ip=cli:dhcp tftp=tftp://10.77.0.1/node7.yaml tftp=tftp://10.77.0.1/none.yaml", 0);
    contains(
        &said,
        &["tftp://10.77.0.1/node7.yaml: 50000 bytes", "error: tftp://10.77.0.1/none.yaml: the server has no such file"],
    );
}
