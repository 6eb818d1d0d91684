//! The IPv6 side of a link: the kernel makes addresses and routes from what routers say; ours is to ask,
//! to wait until an address has passed duplicate detection, and to find name servers.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use castiron_engine::event::EventResult;

use super::dhcp6::{self, MulticastWire};
use super::netlink::Rtnetlink;
use super::router::{Advertisement, RouterSocket};
use super::worker::{Worker, describe};
use super::{Method, Progress};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const DHCP6_PATIENCE: Duration = Duration::from_secs(15);
/// How long name servers from another router are waited for.
const NAME_SERVER_WAIT: Duration = Duration::from_secs(2);

/// Whether other machines beyond the link can be reached with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Link,
    /// Site-local addresses count: some virtual networks still use them (RFC 3879 only discourages).
    Beyond,
}

impl Worker {
    pub(super) fn run_ipv6(&self) {
        match self.configure_ipv6() {
            Ok(text) => {
                self.shared.update(self.link.index, |state| state.v6 = Progress::Ready);
                self.ready(text);
            }
            Err(reason) => {
                self.shared.update(self.link.index, |state| state.v6 = Progress::Failed(reason.clone()));
                // With both families a network without IPv6 is nothing to report.
                if self.wanted.method != Method::Auto {
                    self.shared.finish(&self.name(), format!("{}: {reason}", self.link.name), EventResult::Warn);
                }
            }
        }
    }

    fn configure_ipv6(&self) -> Result<String, String> {
        self.allow_ipv6();
        let deadline = Instant::now() + self.shared.request.configure_wait;
        if self.wanted.method == Method::Link6 {
            let addresses = self.wait_for_address(Reach::Link, deadline)?;
            return Ok(self.adopt(&Advertisement::default(), addresses, Vec::new()));
        }
        let socket = RouterSocket::open(&self.link.name, self.link.index, self.link.mac.0)
            .map_err(|error| format!("cannot hear routers: {error}"))?;
        let (routers, said) = self.hear_routers(&socket, deadline)?;
        let managed = self.wanted.method == Method::Dhcp6 || (said.managed && !said.autonomous);
        let addresses = match managed {
            true => self.ask_for_address(deadline)?,
            false => self.wait_for_address(Reach::Beyond, deadline)?,
        };
        let text = self.adopt(&said, addresses, routers);
        if said.dns.is_empty() && !managed && (said.other || said.managed) {
            self.ask_for_name_servers();
        }
        Ok(text)
    }

    /// The kernel's own switches, which a distribution's kernel may have off.
    fn allow_ipv6(&self) {
        let folder = self.shared.request.roots.proc.join("sys/net/ipv6/conf").join(&self.link.name);
        for (name, off, on) in [("disable_ipv6", "1", "0"), ("accept_ra", "0", "1"), ("autoconf", "0", "1")] {
            let path = folder.join(name);
            if fs::read_to_string(&path).is_ok_and(|text| text.trim() == off)
                && let Err(error) = fs::write(&path, on)
            {
                tracing::warn!(path = %path.display(), %error, "cannot switch on");
            }
        }
    }

    /// Asks until a router has spoken, and listens a little longer if it named no name server.
    fn hear_routers(&self, socket: &RouterSocket, deadline: Instant) -> Result<(Vec<IpAddr>, Advertisement), String> {
        let mut said = Advertisement::default();
        let mut routers: Vec<IpAddr> = Vec::new();
        let mut pause = Duration::from_secs(1);
        let mut ask_at = Instant::now();
        let mut end = deadline;
        while Instant::now() < end && !self.shared.is_stopped() {
            if Instant::now() >= ask_at {
                // Fails until the link-local address is ready; the kernel asks by itself, too.
                if let Err(error) = socket.solicit() {
                    tracing::debug!(link = self.link.name, %error, "cannot ask routers");
                    ask_at = Instant::now() + LOOK_EVERY;
                } else {
                    ask_at = Instant::now() + pause;
                    pause = (pause * 2).min(Duration::from_secs(8));
                }
            }
            let heard = socket.receive(ask_at.min(end)).map_err(|error| format!("cannot hear routers: {error}"))?;
            let Some((from, advertisement)) = heard else { continue };
            if advertisement.is_router && !routers.contains(&from.into()) {
                routers.push(from.into());
            }
            said.merge(advertisement);
            if said.autonomous || said.managed {
                self.shared.update(self.link.index, |state| state.v6 = Progress::Promised);
            }
            if !routers.is_empty() && (said.autonomous || said.managed || self.wanted.method == Method::Dhcp6) {
                let complete = !said.dns.is_empty() || said.other || said.managed;
                end = if complete { Instant::now() } else { end.min(Instant::now() + NAME_SERVER_WAIT) };
            }
        }
        match routers.is_empty() {
            true => Err(format!("no IPv6 router spoke in {} s", self.shared.request.configure_wait.as_secs())),
            false => Ok((routers, said)),
        }
    }

    fn wait_for_address(&self, reach: Reach, deadline: Instant) -> Result<Vec<(IpAddr, u8)>, String> {
        loop {
            let text = fs::read_to_string(self.shared.request.roots.proc.join("net/if_inet6"))
                .map_err(|error| format!("cannot read the IPv6 addresses: {error}"))?;
            let usable = usable_addresses(&text, &self.link.name, reach);
            if !usable.is_empty() {
                return Ok(usable);
            }
            if Instant::now() >= deadline || self.shared.is_stopped() {
                return Err("no IPv6 address became usable".to_owned());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// DHCPv6 for an address. Its prefix is the router's to announce, so it stands alone (RFC 5942).
    fn ask_for_address(&self, deadline: Instant) -> Result<Vec<(IpAddr, u8)>, String> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let ask = || -> io::Result<Option<dhcp6::Reply>> {
            let reply = dhcp6::acquire(self.link.mac.0, &mut self.multicast()?, patience)?;
            if let Some(address) = reply.as_ref().and_then(|reply| reply.address) {
                Rtnetlink::open()?.add_address(self.link.index, address.into(), 128, None)?;
            }
            Ok(reply)
        };
        let reply = ask().map_err(|error| describe(&error))?;
        let reply = reply.ok_or_else(|| "no DHCPv6 server lent an address".to_owned())?;
        let address = reply.address.map(|address| (address.into(), 128));
        self.add_servers(reply);
        Ok(address.into_iter().collect())
    }

    fn ask_for_name_servers(&self) {
        let ask = || dhcp6::inform(self.link.mac.0, &mut self.multicast()?, DHCP6_PATIENCE);
        match ask() {
            Ok(Some(reply)) => self.add_servers(reply),
            Ok(None) => tracing::debug!(link = self.link.name, "no DHCPv6 server answered"),
            Err(error) => tracing::debug!(link = self.link.name, %error, "cannot speak DHCPv6"),
        }
    }

    fn multicast(&self) -> io::Result<MulticastWire> {
        MulticastWire::open(&self.link.name, self.link.index)
    }

    fn add_servers(&self, reply: dhcp6::Reply) {
        self.shared.update(self.link.index, |state| {
            state.dns.extend(self.name_servers(reply.dns.into_iter().map(IpAddr::from)));
            state.search.extend(reply.search);
            state.ntp.extend(reply.ntp.into_iter().map(IpAddr::from));
        });
    }

    /// Writes down what there is now and says it in one line.
    fn adopt(&self, said: &Advertisement, addresses: Vec<(IpAddr, u8)>, routers: Vec<IpAddr>) -> String {
        let shown: Vec<String> = addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
        let from = routers.first().map(|router| format!(" from {router}")).unwrap_or_default();
        self.shared.update(self.link.index, |state| {
            state.addresses.extend(addresses);
            state.gateways.extend(routers);
            let fixed = self.wanted.nameservers.iter().copied();
            state.dns.extend(self.name_servers(fixed.chain(said.dns.iter().copied().map(IpAddr::from))));
            state.search.extend(said.search.iter().cloned());
            if state.hostname.is_none() {
                state.hostname.clone_from(&self.wanted.hostname);
            }
        });
        format!("{} has {}{from}", self.link.name, shown.join(", "))
    }
}

/// `IFA_F_*` of addresses that cannot be used: duplicate, deprecated, still being checked.
const NOT_USABLE: u8 = 0x08 | 0x20 | 0x40;

/// The addresses of one link in `/proc/net/if_inet6`: address, index, prefix length, scope, flags, name.
fn usable_addresses(text: &str, link: &str, reach: Reach) -> Vec<(IpAddr, u8)> {
    let scopes: &[u8] = match reach {
        Reach::Link => &[0x20],
        Reach::Beyond => &[0x00, 0x40],
    };
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok().map(Ipv6Addr::from)?;
        let _index = words.next()?;
        let mut number = || u8::from_str_radix(words.next()?, 16).ok();
        let (prefix, scope, flags) = (number()?, number()?, number()?);
        let ours = words.next()? == link && scopes.contains(&scope) && flags & NOT_USABLE == 0;
        ours.then_some((IpAddr::from(address), prefix))
    };
    text.lines().filter_map(address).collect()
}

/// Whether this kernel has IPv6 at all.
pub(super) fn is_there(proc: &Path) -> bool {
    proc.join("net/if_inet6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_used() {
        let text = "\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000505400fffe123456 02 40 20 80     eth0
20010db8000000000000000000000007 02 40 00 00     eth0
20010db8000000000000000000000008 02 40 00 40     eth0
20010db8000000000000000000000009 02 40 00 08     eth0
fec0000000000000505400fffe123456 02 40 40 00     eth0
20010db800000000000000000000000a 03 40 00 00     eth1
rubbish
";
        let shown = |link, reach| -> Vec<String> {
            usable_addresses(text, link, reach).iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect()
        };
        assert_eq!(shown("eth0", Reach::Beyond), ["2001:db8::7/64", "fec0::5054:ff:fe12:3456/64"]);
        assert_eq!(shown("eth0", Reach::Link), ["fe80::5054:ff:fe12:3456/64"]);
        assert_eq!(shown("eth2", Reach::Beyond), Vec::<String>::new());
    }
}
