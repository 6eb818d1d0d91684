//! What the kernel command line asks of the network. In: dracut's words (`dracut.cmdline(7)`).
//! Out: [`NetRequest`], or every mistake at once. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use castiron_engine::diagnostic::{Diagnostic, Diagnostics};

/// The network words of the command line, as written.
#[derive(Clone, Debug, Default)]
pub struct NetArguments<'a> {
    /// Every `ip=`.
    pub ip: Vec<&'a str>,
    /// Every `nameserver=`.
    pub nameserver: Vec<&'a str>,
    /// `BOOTIF=`, as iPXE and pxelinux hand it over.
    pub bootif: Option<&'a str>,
    /// Every `rd.route=`.
    pub route: Vec<&'a str>,
    /// Every `vlan=`.
    pub vlan: Vec<&'a str>,
    /// Every `bond=`.
    pub bond: Vec<&'a str>,
}

/// How the network is to be brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetRequest {
    /// Links that are named. If there are none, `others` holds for every real NIC.
    pub links: Vec<LinkRequest>,
    /// For real NICs that are not named; `Off` leaves them alone.
    pub others: Method,
    pub bootif: Option<Mac>,
    pub nameservers: Vec<IpAddr>,
    pub routes: Vec<ExtraRoute>,
    /// How long a link may take to find its carrier.
    pub link_wait: Duration,
    /// How long a link with a carrier may take to be configured. Spanning tree holds frames back for 30 to 50 s.
    pub configure_wait: Duration,
    /// Where things are: `/sys`, `/proc` and `/etc/resolv.conf` of the running system.
    pub roots: Roots,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub resolv_conf: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRequest {
    /// A name or a MAC address; `None`: the link with the boot NIC's address, else the first with a carrier.
    pub link: Option<LinkName>,
    pub method: Method,
    pub hostname: Option<String>,
    pub mtu: Option<u32>,
    pub nameservers: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkName {
    Name(String),
    Mac(Mac),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// DHCPv4 and IPv6 autoconfiguration side by side.
    Auto,
    Dhcp4,
    /// IPv6 autoconfiguration, and DHCPv6 where the router's flags say so.
    Auto6,
    /// DHCPv6 whatever the router's flags say.
    Dhcp6,
    /// Up, with a link-local IPv6 address only.
    Link6,
    Static(StaticAddress),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    pub address: IpAddr,
    pub prefix: u8,
    pub peer: Option<IpAddr>,
    pub gateway: Option<IpAddr>,
}

/// `rd.route=NET/PREFIX:GATEWAY[:LINK]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraRoute {
    pub to: IpAddr,
    pub prefix: u8,
    pub via: IpAddr,
    pub link: Option<String>,
}

/// An Ethernet address, shown in lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = ();
    /// Six pairs with colons or dashes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut pairs = text.trim().split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(pair, 16).map_err(drop)?;
        }
        pairs.next().is_none().then_some(Self(bytes)).ok_or(())
    }
}

impl Default for NetRequest {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            others: Method::Auto,
            bootif: None,
            nameservers: Vec::new(),
            routes: Vec::new(),
            link_wait: Duration::from_secs(60),
            configure_wait: Duration::from_secs(90),
            roots: Roots::default(),
        }
    }
}

impl NetRequest {
    /// Reads all words and reports all mistakes.
    pub fn parse(arguments: &NetArguments<'_>) -> Result<Self, Diagnostics> {
        let mut request = Self::default();
        let mut mistakes = Diagnostics::default();
        let mut others = None;
        for text in &arguments.ip {
            match parse_ip(text) {
                Ok(Ip::Others(method)) => others = Some(method),
                Ok(Ip::Link(link)) => request.links.push(link),
                Err((what, hint)) => mistakes.push(mistake("net.ip", format!("ip={text}: {what}"), hint)),
            }
        }
        request.others = match (others, request.links.is_empty()) {
            (Some(method), _) => method,
            (None, true) => Method::Auto,
            (None, false) => Method::Off,
        };
        for text in &arguments.nameserver {
            match parse_address(text) {
                Some(address) => request.nameservers.push(address),
                None => mistakes.push(mistake(
                    "net.nameserver",
                    format!("nameserver={text} is not an address"),
                    "write 192.0.2.53 or [2001:db8::53]",
                )),
            }
        }
        if let Some(text) = arguments.bootif {
            match parse_bootif(text) {
                Some(mac) => request.bootif = Some(mac),
                None => mistakes.push(mistake(
                    "net.bootif",
                    format!("BOOTIF={text} is not a hardware address"),
                    "write 01-52-54-00-12-34-56, as iPXE's ${netX/mac:hexhyp} with 01- before it",
                )),
            }
        }
        for text in &arguments.route {
            match parse_route(text) {
                Some(route) => request.routes.push(route),
                None => mistakes.push(mistake(
                    "net.route",
                    format!("rd.route={text} is not a route"),
                    "write rd.route=192.0.2.0/24:10.0.0.1 and perhaps :LINK after it",
                )),
            }
        }
        for (word, values) in [("vlan", &arguments.vlan), ("bond", &arguments.bond)] {
            for text in values {
                mistakes.push(mistake(
                    "net.unsupported",
                    format!("{word}={text}: this appliance cannot make such links"),
                    "boot from an untagged port of a single link",
                ));
            }
        }
        if mistakes.has_errors() { Err(mistakes) } else { Ok(request) }
    }
}

fn mistake(rule: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic::error(rule, message).hint(hint)
}

enum Ip {
    Others(Method),
    Link(LinkRequest),
}

type Mistake = (String, &'static str);

const FORMS: &str =
    "write ip=dhcp, ip=LINK:dhcp, ip=auto6, ip=off or ip=ADDRESS::GATEWAY:NETMASK:HOSTNAME:LINK:none[:DNS[:DNS]]";

fn parse_ip(text: &str) -> Result<Ip, Mistake> {
    let fields = split_outside_brackets(text);
    let first = fields[0].as_str();
    match (fields.len(), parse_address(first)) {
        (1, None) => parse_method(first).map(Ip::Others),
        (_, None) if !first.is_empty() => {
            let method = parse_method(&fields[1])?;
            let (mtu, link) = parse_mtu_and_mac(&fields[2..], first)?;
            Ok(Ip::Link(LinkRequest { link: Some(link), method, hostname: None, mtu, nameservers: Vec::new() }))
        }
        (_, address) => parse_long_form(&fields, address).map(Ip::Link),
    }
}

/// `[CLIENT]:[PEER]:[GATEWAY]:[NETMASK]:[HOSTNAME]:[LINK]:METHOD` and then `[MTU][:MAC]` or `[DNS1][:DNS2]`.
fn parse_long_form(fields: &[String], client: Option<IpAddr>) -> Result<LinkRequest, Mistake> {
    let field = |index: usize| fields.get(index).map(String::as_str).filter(|text| !text.is_empty());
    let address = |index: usize, what: &str| match field(index) {
        None => Ok(None),
        Some(text) => parse_address(text).map(Some).ok_or_else(|| (format!("`{text}` is no {what}"), FORMS)),
    };
    let (peer, gateway) = (address(1, "peer address")?, address(2, "gateway")?);
    let method = match (field(6).unwrap_or("none"), client) {
        ("none" | "off" | "static", Some(address)) => {
            let mask = field(3).ok_or((
                "the netmask is missing".to_owned(),
                "write it as 255.255.255.0 or as a prefix length such as 24",
            ))?;
            let prefix = parse_mask(mask, address)
                .ok_or_else(|| (format!("`{mask}` is no netmask for {address}"), "write 255.255.255.0 or 24"))?;
            for other in [peer, gateway].into_iter().flatten() {
                if other.is_ipv4() != address.is_ipv4() {
                    return Err((format!("{other} and {address} are of different families"), FORMS));
                }
            }
            Method::Static(StaticAddress { address, prefix, peer, gateway })
        }
        ("none" | "static", None) => return Err(("a static link needs an address".to_owned(), FORMS)),
        (method, _) => parse_method(method)?,
    };
    let mut request = LinkRequest {
        link: field(5).map(|name| LinkName::Name(name.to_owned())),
        method,
        hostname: field(4).map(str::to_owned),
        mtu: None,
        nameservers: Vec::new(),
    };
    match field(7) {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let (mtu, link) = parse_mtu_and_mac(&fields[7..], field(5).unwrap_or_default())?;
            request.mtu = mtu;
            if matches!(link, LinkName::Mac(_)) || field(5).is_some() {
                request.link = Some(link);
            }
        }
        _ => {
            for index in 7..fields.len().min(9) {
                request.nameservers.extend(address(index, "name server")?);
            }
        }
    }
    Ok(request)
}

/// `[MTU][:MAC]`; the MAC address's own colons have been split. A MAC names the link better than its name.
fn parse_mtu_and_mac(fields: &[String], name: &str) -> Result<(Option<u32>, LinkName), Mistake> {
    let mtu = match fields.first().map(String::as_str).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let mtu = text.parse().ok().filter(|mtu| (576..=65535).contains(mtu));
            Some(mtu.ok_or_else(|| (format!("`{text}` is no MTU"), "write a number from 576 to 65535"))?)
        }
    };
    let link = match fields.get(1..).filter(|rest| !rest.is_empty()) {
        None => LinkName::Name(name.to_owned()),
        Some(rest) => {
            let text = rest.join(":");
            LinkName::Mac(text.parse().map_err(|()| (format!("`{text}` is no hardware address"), FORMS))?)
        }
    };
    Ok((mtu, link))
}

fn parse_method(text: &str) -> Result<Method, Mistake> {
    match text {
        "auto" => Ok(Method::Auto),
        "dhcp" | "on" | "any" | "single-dhcp" | "dhcp4" => Ok(Method::Dhcp4),
        "auto6" | "either6" => Ok(Method::Auto6),
        "dhcp6" => Ok(Method::Dhcp6),
        "link6" => Ok(Method::Link6),
        "off" | "none" => Ok(Method::Off),
        "ibft" => Err(("the iSCSI boot firmware table is not read".to_owned(), FORMS)),
        _ => Err((format!("`{text}` is no way to get an address"), FORMS)),
    }
}

fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            ':' if !inside => fields.push(String::new()),
            _ => {
                inside = (inside || c == '[') && c != ']';
                fields.last_mut().expect("never empty").push(c);
            }
        }
    }
    fields
}

/// An address, IPv6 with or without brackets.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn parse_mask(text: &str, address: IpAddr) -> Option<u8> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match text.parse::<u8>() {
        Ok(prefix) => (1..=longest).contains(&prefix).then_some(prefix),
        Err(_) => text.parse::<Ipv4Addr>().ok().filter(|_| address.is_ipv4()).and_then(prefix_of_mask),
    }
}

/// The prefix length of a netmask without holes.
pub fn prefix_of_mask(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() == 32 && bits != 0).then_some(bits.leading_ones() as u8)
}

/// The hardware type (01: Ethernet) before the address is optional.
fn parse_bootif(text: &str) -> Option<Mac> {
    let rest = match text.get(..3) {
        Some("01-" | "01:") if text.len() == 20 => &text[3..],
        _ => text,
    };
    rest.parse().ok()
}

fn parse_route(text: &str) -> Option<ExtraRoute> {
    let fields = split_outside_brackets(text);
    let (to, prefix) = fields.first()?.trim_matches(['[', ']']).split_once('/')?;
    let to: IpAddr = to.trim_matches(['[', ']']).parse().ok()?;
    let via = parse_address(fields.get(1)?)?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= if to.is_ipv4() { 32 } else { 128 })?;
    (to.is_ipv4() == via.is_ipv4()).then(|| ExtraRoute {
        to,
        prefix,
        via,
        link: fields.get(2).filter(|name| !name.is_empty()).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line for an `ip=`: `LINK METHOD …`, or the mistake.
    fn check(text: &str, expected: &str) {
        let arguments = NetArguments { ip: vec![text], ..NetArguments::default() };
        let found = match NetRequest::parse(&arguments) {
            Err(mistakes) => mistakes.0[0].message.clone(),
            Ok(request) => match request.links.as_slice() {
                [] => format!("others {:?}", request.others),
                [link] => show(link),
                _ => panic!("{text} gave several links"),
            },
        };
        assert_eq!(found, expected, "ip={text}");
    }

    fn show(link: &LinkRequest) -> String {
        let mut words = vec![match &link.link {
            None => "any".to_owned(),
            Some(LinkName::Name(name)) => name.clone(),
            Some(LinkName::Mac(mac)) => mac.to_string(),
        }];
        words.push(match link.method {
            Method::Static(StaticAddress { address, prefix, peer, gateway }) => format!(
                "{address}/{prefix}{}{}",
                peer.map(|peer| format!(" peer {peer}")).unwrap_or_default(),
                gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default()
            ),
            other => format!("{other:?}"),
        });
        words.extend(link.hostname.iter().map(|name| format!("as {name}")));
        words.extend(link.mtu.map(|mtu| format!("mtu {mtu}")));
        words.extend(link.nameservers.iter().map(|address| format!("dns {address}")));
        words.join(" ")
    }

    #[test]
    fn short_forms_hold_for_every_link() {
        check("dhcp", "others Dhcp4");
        check("on", "others Dhcp4");
        check("auto6", "others Auto6");
        check("either6", "others Auto6");
        check("dhcp6", "others Dhcp6");
        check("off", "others Off");
        check("auto", "others Auto");
    }

    #[test]
    fn a_link_may_be_named() {
        check("eth0:dhcp", "eth0 Dhcp4");
        check("enp1s0:auto6", "enp1s0 Auto6");
        check("eth0:dhcp:1400", "eth0 Dhcp4 mtu 1400");
        check("eth0:dhcp::52:54:00:12:34:56", "52:54:00:12:34:56 Dhcp4");
        check("eth0:dhcp:9000:52:54:00:12:34:56", "52:54:00:12:34:56 Dhcp4 mtu 9000");
    }

    #[test]
    fn static_forms() {
        check("10.0.2.15::10.0.2.2:255.255.255.0:node7:eth0:none", "eth0 10.0.2.15/24 via 10.0.2.2 as node7");
        check("10.0.2.15::10.0.2.2:24::eth0:none:10.0.2.3", "eth0 10.0.2.15/24 via 10.0.2.2 dns 10.0.2.3");
        check(
            "10.0.2.15::10.0.2.2:24::eth0:none:10.0.2.3:9.9.9.9",
            "eth0 10.0.2.15/24 via 10.0.2.2 dns 10.0.2.3 dns 9.9.9.9",
        );
        check("10.0.2.15::10.0.2.2:24:::none", "any 10.0.2.15/24 via 10.0.2.2");
        check("10.0.2.15:::24", "any 10.0.2.15/24");
        check("10.0.2.15:10.0.2.1::32::eth0:off", "eth0 10.0.2.15/32 peer 10.0.2.1");
        check(
            "[2001:db8::7]::[2001:db8::1]:64:node7:eth0:none:[2001:db8::53]",
            "eth0 2001:db8::7/64 via 2001:db8::1 as node7 dns 2001:db8::53",
        );
        check("10.0.2.15::10.0.2.2:24::eth0:none:1400", "eth0 10.0.2.15/24 via 10.0.2.2 mtu 1400");
        check(
            "10.0.2.15::10.0.2.2:24::eth0:none:1400:52:54:00:12:34:56",
            "52:54:00:12:34:56 10.0.2.15/24 via 10.0.2.2 mtu 1400",
        );
    }

    #[test]
    fn the_kernels_own_form_asks_for_dhcp() {
        check(":::::eth0:dhcp", "eth0 Dhcp4");
        check("::::node7:eth0:dhcp", "eth0 Dhcp4 as node7");
    }

    #[test]
    fn mistakes_are_named() {
        check("dchp", "ip=dchp: `dchp` is no way to get an address");
        check("eth0:dchp", "ip=eth0:dchp: `dchp` is no way to get an address");
        check("10.0.2.15", "ip=10.0.2.15: the netmask is missing");
        check("10.0.2.15:::255.0.255.0", "ip=10.0.2.15:::255.0.255.0: `255.0.255.0` is no netmask for 10.0.2.15");
        check("10.0.2.15::2001:24", "ip=10.0.2.15::2001:24: `2001` is no gateway");
        check("10.0.2.15::[fe80::1]:24", "ip=10.0.2.15::[fe80::1]:24: fe80::1 and 10.0.2.15 are of different families");
        check("eth0:dhcp:12", "ip=eth0:dhcp:12: `12` is no MTU");
        check("eth0:dhcp::52:54", "ip=eth0:dhcp::52:54: `52:54` is no hardware address");
        check(":::::eth0:none", "ip=:::::eth0:none: a static link needs an address");
        check("ibft", "ip=ibft: the iSCSI boot firmware table is not read");
        check("", "ip=: `` is no way to get an address");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let arguments = NetArguments {
            ip: vec!["dchp"],
            nameserver: vec!["example.org"],
            bootif: Some("52-54"),
            route: vec!["10.0.0.0:1"],
            vlan: vec!["eth0.5:eth0"],
            bond: vec!["bond0:eth0,eth1"],
        };
        let rules: Vec<String> =
            NetRequest::parse(&arguments).unwrap_err().0.into_iter().map(|mistake| mistake.rule).collect();
        assert_eq!(
            rules,
            ["net.ip", "net.nameserver", "net.bootif", "net.route", "net.unsupported", "net.unsupported"]
        );
    }

    #[test]
    fn bootif_is_read_in_every_usual_form() {
        for text in ["01-52-54-00-12-34-56", "01:52:54:00:12:34:56", "52:54:00:12:34:56", "01-52-54-00-AB-CD-EF"] {
            assert!(parse_bootif(text).is_some(), "{text}");
        }
        assert_eq!(parse_bootif("01-02-03-04-05-06").map(|mac| mac.to_string()), Some("01:02:03:04:05:06".into()));
        assert_eq!(parse_bootif("01-52-54-00-12-34"), Some(Mac([1, 0x52, 0x54, 0, 0x12, 0x34])));
        assert_eq!(parse_bootif("01-52-54-00-12-34-56-78"), None);
    }

    #[test]
    fn routes_of_both_families() {
        let route = parse_route("192.0.2.0/24:10.0.0.1:eth1").unwrap();
        assert_eq!((route.to.to_string(), route.prefix, route.link.as_deref()), ("192.0.2.0".into(), 24, Some("eth1")));
        assert!(parse_route("[2001:db8:1::/48]:[fe80::1]").is_some());
        assert!(parse_route("10.0.0.0/40:10.0.0.1").is_none());
        assert!(parse_route("10.0.0.0/8:[fe80::1]").is_none());
    }

    #[test]
    fn naming_a_link_leaves_the_others_alone() {
        let parse = |ip: Vec<&str>| NetRequest::parse(&NetArguments { ip, ..NetArguments::default() }).unwrap();
        assert_eq!(parse(vec![]).others, Method::Auto);
        assert_eq!(parse(vec!["eth0:dhcp"]).others, Method::Off);
        assert_eq!(parse(vec!["eth0:dhcp", "auto6"]).others, Method::Auto6);
    }
}
