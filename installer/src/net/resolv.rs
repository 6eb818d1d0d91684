//! `/etc/resolv.conf` for the resolver of the C library (resolv.conf(5)).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The C library asks no more than three.
const SERVERS_MAX: usize = 3;

/// A name server; link-local IPv6 addresses need the link's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    pub address: IpAddr,
    pub link: Option<String>,
}

impl std::fmt::Display for NameServer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.link, self.address) {
            (Some(link), IpAddr::V6(address)) if address.is_unicast_link_local() => write!(out, "{address}%{link}"),
            _ => write!(out, "{}", self.address),
        }
    }
}

/// The file's text. Repeated entries are dropped, order is kept.
pub fn text(servers: &[NameServer], search: &[String]) -> String {
    let mut lines = Vec::new();
    for server in servers {
        let line = format!("nameserver {server}\n");
        if !lines.contains(&line) && lines.len() < SERVERS_MAX {
            lines.push(line);
        }
    }
    let mut domains: Vec<&str> = Vec::new();
    for domain in search {
        if !domains.contains(&domain.as_str()) {
            domains.push(domain);
        }
    }
    if !domains.is_empty() {
        lines.push(format!("search {}\n", domains.join(" ")));
    }
    lines.push("options timeout:2 attempts:3\n".to_owned());
    lines.concat()
}

/// Replaces the file in one go, so that no reader sees half of it.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("conf.new");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_search_domains() {
        let server =
            |text: &str, link: &str| NameServer { address: text.parse().unwrap(), link: Some(link.to_owned()) };
        let servers = [
            server("10.0.2.3", "eth0"),
            server("10.0.2.3", "eth1"),
            server("fe80::1", "eth0"),
            server("fec0::3", "eth0"),
            server("9.9.9.9", "eth0"),
        ];
        let search = ["example.org".to_owned(), "example.org".to_owned(), "example.net".to_owned()];
        assert_eq!(
            text(&servers, &search),
            "nameserver 10.0.2.3\nnameserver fe80::1%eth0\nnameserver fec0::3\n\
             search example.org example.net\noptions timeout:2 attempts:3\n"
        );
    }
}
