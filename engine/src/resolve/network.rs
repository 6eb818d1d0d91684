//! The target's network as files of systemd-networkd (systemd.network(5)).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use camino::Utf8PathBuf;

use super::Context;
use crate::config::network::{Ethernet, Network};
use crate::diagnostic::Diagnostic;
use crate::spec::{Content, FileSpec};
use crate::units::Mode;

const FOLDER: &str = "/etc/systemd/network";

/// One file a link; DHCP and router advertisements on every wired link if the config says nothing.
pub fn files(context: &mut Context<'_>) -> Vec<FileSpec> {
    if !has_daemon(context) {
        return Vec::new();
    }
    let Some(network) = &context.config.network else {
        let text = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseDomains=yes\n";
        return vec![file("80-castiron.network", text.to_owned())];
    };
    check(network, context);
    network.ethernets.iter().map(|(name, link)| file(&format!("10-{}.network", name.0), text(&name.0, link))).collect()
}

/// What makes the daemon start at boot.
pub fn enable(context: &Context<'_>) -> Vec<Vec<String>> {
    if has_daemon(context) { context.distribution.network.enable.clone() } else { Vec::new() }
}

fn has_daemon(context: &Context<'_>) -> bool {
    context.packages.is_none_or(|packages| packages.get(&context.distribution.network.daemon).is_some())
}

fn file(name: &str, text: String) -> FileSpec {
    FileSpec {
        path: Utf8PathBuf::from(FOLDER).join(name),
        mode: Mode(0o644),
        user: "root".to_owned(),
        group: "root".to_owned(),
        content: Content::Text(text),
        append: false,
    }
}

fn text(name: &str, link: &Ethernet) -> String {
    let mut out = String::from("[Match]\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{key}={value}");
    };
    match &link.r#match {
        Some(wanted) => {
            let wanted_by = [
                ("MACAddress", wanted.macaddress.as_deref()),
                ("Name", wanted.name.as_ref().map(|glob| glob.as_str())),
                ("Driver", wanted.driver.as_ref().map(|glob| glob.as_str())),
            ];
            wanted_by.into_iter().for_each(|(key, value)| value.into_iter().for_each(|value| line(key, value)));
        }
        None => line("Name", name),
    }
    out.push_str("\n[Link]\n");
    if let Some(mtu) = link.mtu {
        let _ = writeln!(out, "MTUBytes={mtu}");
    }
    let _ = writeln!(out, "RequiredForOnline={}", if link.optional { "no" } else { "yes" });
    let dhcp = match (link.dhcp4, link.dhcp6) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    let _ = writeln!(out, "\n[Network]\nDHCP={dhcp}");
    if let Some(accept) = link.accept_ra {
        let _ = writeln!(out, "IPv6AcceptRA={}", if accept { "yes" } else { "no" });
    }
    for address in &link.addresses {
        let _ = writeln!(out, "Address={address}");
    }
    if let Some(nameservers) = &link.nameservers {
        nameservers.addresses.iter().for_each(|address| _ = writeln!(out, "DNS={address}"));
        if !nameservers.search.is_empty() {
            let _ = writeln!(out, "Domains={}", nameservers.search.join(" "));
        }
    }
    for route in &link.routes {
        out.push_str("\n[Route]\n");
        if route.to != "default" {
            let _ = writeln!(out, "Destination={}", route.to);
        }
        if let Some(via) = &route.via {
            let _ = writeln!(out, "Gateway={via}");
        }
        if let Some(metric) = route.metric {
            let _ = writeln!(out, "Metric={metric}");
        }
    }
    out
}

fn check(network: &Network, context: &mut Context<'_>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (name, link) in &network.ethernets {
        let path = format!("network.ethernets.{}", name.0);
        for (index, address) in link.addresses.iter().enumerate() {
            check_prefix(context, &format!("{path}.addresses[{index}]"), address);
            if !seen.insert(address.clone()) {
                let wrong = Diagnostic::error("network.address", format!("{address} is given twice"));
                context.refuse(&format!("{path}.addresses[{index}]"), wrong.hint("leave one of them out"));
            }
        }
        for (index, route) in link.routes.iter().enumerate() {
            let path = format!("{path}.routes[{index}]");
            if route.to != "default" {
                check_prefix(context, &format!("{path}.to"), &route.to);
            }
            match &route.via {
                Some(via) => check_ip(context, &format!("{path}.via"), via),
                None if route.to == "default" => {
                    let wrong = Diagnostic::error("network.route", "a default route needs `via`");
                    context.refuse(&path, wrong.hint("write the address of the router"));
                }
                None => {}
            }
        }
        for (index, server) in link.nameservers.iter().flat_map(|servers| &servers.addresses).enumerate() {
            check_ip(context, &format!("{path}.nameservers.addresses[{index}]"), server);
        }
        for (index, domain) in link.nameservers.iter().flat_map(|servers| &servers.search).enumerate() {
            if !crate::config::values::HostName::is_valid(domain) {
                let wrong = Diagnostic::error("network.search", format!("`{}` is not a domain", domain.escape_debug()));
                context.refuse(&format!("{path}.nameservers.search[{index}]"), wrong.hint("write such as example.org"));
            }
        }
        let mac = link.r#match.as_ref().and_then(|wanted| wanted.macaddress.as_ref());
        if let Some(mac) = mac.filter(|mac| !is_mac(mac)) {
            let wrong = Diagnostic::error("network.mac", format!("`{}` is not a hardware address", mac.escape_debug()));
            context.refuse(
                &format!("{path}.match.macaddress"),
                wrong.hint("write such as \"52:54:00:12:34:56\", in quotes"),
            );
        }
        let texts = link.r#match.iter().flat_map(|wanted| [&wanted.name, &wanted.driver]).flatten();
        if texts.into_iter().any(|glob| glob.as_str().contains(|c: char| c.is_whitespace() || c.is_control())) {
            let wrong = Diagnostic::error("network.match", "a pattern has a blank");
            context.refuse(&format!("{path}.match"), wrong.hint("one pattern without blanks"));
        }
    }
}

fn is_mac(text: &str) -> bool {
    text.len() == 17
        && text.split(':').count() == 6
        && text.split(':').all(|byte| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn check_prefix(context: &mut Context<'_>, path: &str, text: &str) {
    let parsed =
        text.split_once('/').and_then(|(ip, prefix)| Some((ip.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?)));
    let valid = parsed.is_some_and(|(ip, prefix)| prefix <= if ip.is_ipv4() { 32 } else { 128 });
    if !valid {
        let wrong =
            Diagnostic::error("network.address", format!("`{}` is not an address with a prefix", text.escape_debug()));
        context.refuse(path, wrong.hint("write such as 192.0.2.17/24 or 2001:db8::17/64"));
    }
}

fn check_ip(context: &mut Context<'_>, path: &str, text: &str) {
    if text.parse::<IpAddr>().is_err() {
        let wrong = Diagnostic::error("network.address", format!("`{}` is not an address", text.escape_debug()));
        context.refuse(path, wrong.hint("write such as 192.0.2.1 or 2001:db8::1"));
    }
}
