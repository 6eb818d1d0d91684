//! One link on its way: up, carrier, addresses, and then its lease for as long as the network is used.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, Level};

use super::dhcp4::{self, BoundWire, Client, Lease, RawWire, Renewal};
use super::netlink::{Route, Rtnetlink};
use super::worker6;
use super::{LeaseState, Link, LinkRequest, Method, NameServer, Progress, Shared, StaticAddress};

/// Routes of links found earlier win; the base leaves room for routes that must win over all.
const METRIC_BASE: u32 = 100;
const CARRIER_NOTICE_EVERY: Duration = Duration::from_secs(10);
const CARRIER_STEP: Duration = Duration::from_millis(100);

/// Everything the steps of one link need.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) wanted: LinkRequest,
}

pub(super) fn start(shared: Arc<Shared>, link: Link, wanted: LinkRequest) {
    let worker = Worker { shared, link, wanted };
    let name = worker.name();
    worker.shared.push(Event::start(&name, format!("bring up {} ({})", worker.link.name, worker.link.mac)));
    worker.spawn("link", Worker::run);
}

impl Worker {
    pub(super) fn name(&self) -> String {
        format!("network/{}", self.link.name)
    }

    pub(super) fn spawn(&self, what: &str, work: impl FnOnce(&Self) + Send + 'static) {
        let worker = self.clone();
        let spawned = thread::Builder::new().name(format!("{what} {}", self.link.name)).spawn(move || work(&worker));
        if let Err(error) = spawned {
            self.fail_all(&format!("cannot start a thread: {error}"));
        }
    }

    fn run(&self) {
        if let Err(error) = self.raise() {
            return self.fail_all(&format!("cannot be set up: {error}"));
        }
        if !self.wait_for_carrier() {
            return self.fail_all(&format!("no carrier in {} s", self.shared.request.link_wait.as_secs()));
        }
        match self.wanted.method {
            Method::Auto => {
                self.spawn_ipv6();
                self.run_dhcp4();
            }
            Method::Dhcp4 => self.run_dhcp4(),
            Method::Auto6 | Method::Dhcp6 | Method::Link6 => self.spawn_ipv6(),
            Method::Static(wanted) => self.run_static(wanted),
            Method::Off => {}
        }
    }

    fn spawn_ipv6(&self) {
        match worker6::is_there(&self.shared.request.roots.proc) {
            true => self.spawn("ipv6", Self::run_ipv6),
            false => {
                let reason = "this kernel has no IPv6".to_owned();
                self.shared.update(self.link.index, |state| state.v6 = Progress::Failed(reason));
            }
        }
    }

    /// Sets the link up unless it is: another program or the firmware may be using it.
    fn raise(&self) -> io::Result<()> {
        let mut kernel = Rtnetlink::open()?;
        if let Some(mtu) = self.wanted.mtu {
            kernel.set_mtu(self.link.index, mtu)?;
        }
        match self.link.is_up(&self.shared.request.roots.sys) {
            true => Ok(()),
            false => kernel.set_up(self.link.index),
        }
    }

    fn wait_for_carrier(&self) -> bool {
        let begun = Instant::now();
        let mut told = begun;
        while !self.link.has_carrier(&self.shared.request.roots.sys) {
            if begun.elapsed() >= self.shared.request.link_wait || self.shared.is_stopped() {
                return false;
            }
            if told.elapsed() >= CARRIER_NOTICE_EVERY {
                told = Instant::now();
                self.tell(Level::Warn, format!("waiting for a carrier on {}", self.link.name));
            }
            thread::sleep(CARRIER_STEP);
        }
        self.shared.update(self.link.index, |state| state.carrier = true);
        true
    }

    fn run_static(&self, wanted: StaticAddress) {
        if let Err(error) = self.apply_static(wanted) {
            return self.fail_all(&format!("cannot set {}/{}: {error}", wanted.address, wanted.prefix));
        }
        self.shared.update(self.link.index, |state| {
            state.addresses.push((wanted.address, wanted.prefix));
            state.gateways.extend(wanted.gateway);
            state.dns.extend(self.name_servers(self.wanted.nameservers.iter().copied()));
            state.hostname.clone_from(&self.wanted.hostname);
            *if wanted.address.is_ipv4() { &mut state.v4 } else { &mut state.v6 } = Progress::Ready;
        });
        self.ready(format!("{} has {}/{} as asked", self.link.name, wanted.address, wanted.prefix));
    }

    fn apply_static(&self, wanted: StaticAddress) -> io::Result<()> {
        let mut kernel = Rtnetlink::open()?;
        kernel.add_address(self.link.index, wanted.address, wanted.prefix, wanted.peer)?;
        if let Some(via) = wanted.gateway {
            kernel.add_route(&self.default_route(via))?;
        }
        self.add_extra_routes(&mut kernel)
    }

    pub(super) fn default_route(&self, via: IpAddr) -> Route {
        let to = if via.is_ipv4() { "0.0.0.0" } else { "::" };
        Route {
            to: to.parse().expect("an address"),
            prefix: 0,
            via: Some(via),
            link: self.link.index,
            metric: self.metric(),
            mtu: None,
        }
    }

    fn metric(&self) -> u32 {
        METRIC_BASE + self.link.index
    }

    /// The routes of the command line that name this link, or none.
    fn add_extra_routes(&self, kernel: &mut Rtnetlink) -> io::Result<()> {
        let routes = &self.shared.request.routes;
        for extra in routes.iter().filter(|extra| extra.link.as_ref().is_none_or(|name| *name == self.link.name)) {
            kernel.add_route(&Route {
                to: extra.to,
                prefix: extra.prefix,
                via: Some(extra.via),
                link: self.link.index,
                metric: self.metric(),
                mtu: None,
            })?;
        }
        Ok(())
    }

    pub(super) fn name_servers<'a>(
        &'a self,
        addresses: impl IntoIterator<Item = IpAddr> + 'a,
    ) -> impl Iterator<Item = NameServer> + 'a {
        addresses.into_iter().map(|address| NameServer { address, link: Some(self.link.name.clone()) })
    }

    fn run_dhcp4(&self) {
        let client = Client { mac: self.link.mac.0, hostname: self.wanted.hostname.clone() };
        let mut lease = match self.acquire(&client, None, self.shared.request.configure_wait) {
            Ok(lease) => lease,
            Err(reason) => {
                self.shared.update(self.link.index, |state| state.v4 = Progress::Failed(reason.clone()));
                return self.shared.finish(&self.name(), format!("{}: {reason}", self.link.name), EventResult::Warn);
            }
        };
        self.ready(format!("{} has {}/{} from {}", self.link.name, lease.address, lease.prefix, lease.server));
        // What follows runs until the network is dropped or the process ends.
        while let Some(next) = self.keep(&client, &lease) {
            lease = next;
        }
    }

    /// Asks for an address and sets it.
    fn acquire(&self, client: &Client, wanted: Option<Ipv4Addr>, patience: Duration) -> Result<Lease, String> {
        let acquired = RawWire::open(self.link.index)
            .map_err(dhcp4::DhcpError::from)
            .and_then(|mut wire| dhcp4::acquire(client, &mut wire, wanted, patience))
            .map_err(|error| describe(&error))?;
        for rival in &acquired.rivals {
            self.tell(
                Level::Warn,
                format!("{}: {rival} also offered an address; {} was first", self.link.name, acquired.lease.server),
            );
        }
        self.apply(&acquired.lease).map_err(|error| format!("cannot set {}: {error}", acquired.lease.address))?;
        Ok(acquired.lease)
    }

    fn apply(&self, lease: &Lease) -> io::Result<()> {
        let mut kernel = Rtnetlink::open()?;
        kernel.add_address(self.link.index, lease.address.into(), lease.prefix, None)?;
        // Routes on the link itself first: the others may go through them.
        let mut routes = lease.routes.clone();
        routes.sort_by_key(|route| !route.via.is_unspecified());
        for route in &routes {
            kernel.add_route(&Route {
                to: route.to.into(),
                prefix: route.prefix,
                via: (!route.via.is_unspecified()).then_some(route.via.into()),
                link: self.link.index,
                metric: self.metric(),
                // On the route and not on the link: some NICs lose their carrier when their MTU changes.
                mtu: lease.mtu,
            })?;
        }
        self.add_extra_routes(&mut kernel)?;
        self.shared.update(self.link.index, |state| {
            state.addresses.retain(|(address, _)| !address.is_ipv4());
            state.addresses.push((lease.address.into(), lease.prefix));
            state.gateways.retain(|gateway| !gateway.is_ipv4());
            let defaults = lease.routes.iter().filter(|route| route.prefix == 0);
            state.gateways.extend(defaults.map(|route| IpAddr::from(route.via)));
            state.dns.retain(|server| !server.address.is_ipv4());
            let servers = self.wanted.nameservers.iter().copied().chain(lease.dns.iter().copied().map(IpAddr::from));
            state.dns.extend(self.name_servers(servers));
            state
                .search
                .extend(lease.search.iter().filter(|name| !state.search.contains(name)).cloned().collect::<Vec<_>>());
            state.ntp = lease.ntp.iter().copied().map(IpAddr::from).collect();
            state.hostname = self.wanted.hostname.clone().or_else(|| lease.hostname.clone());
            state.config_url.clone_from(&lease.config_url);
            state.lease = Some(LeaseState {
                server: lease.server.into(),
                obtained: Instant::now(),
                duration: lease.duration,
                renewals: state.lease.as_ref().map_or(0, |lease| lease.renewals + 1),
            });
            state.v4 = Progress::Ready;
        });
        Ok(())
    }

    /// Holds a lease until it has been extended or replaced. `None`: the network is given up.
    fn keep(&self, client: &Client, lease: &Lease) -> Option<Lease> {
        let obtained = Instant::now();
        let at = |after: Duration| obtained.checked_add(after);
        if !self.shared.sleep_until(at(lease.renew_after)) {
            return None;
        }
        let expires = at(lease.duration.unwrap_or(Duration::MAX));
        loop {
            let now = Instant::now();
            if expires.is_some_and(|expires| now >= expires) {
                return self.replace(client, lease);
            }
            let rebinding = at(lease.rebind_after).is_some_and(|time| now >= time);
            let step_ends = if rebinding { expires } else { at(lease.rebind_after) };
            let until = next_try(now, step_ends.unwrap_or(now));
            let server = (!rebinding).then_some(lease.server);
            let renewal = BoundWire::open(&self.link.name, server)
                .map_err(dhcp4::DhcpError::from)
                .and_then(|mut wire| dhcp4::renew(client, &mut wire, lease, until));
            match renewal {
                Ok(Renewal::Extended(extended)) => match self.apply(&extended) {
                    Ok(()) => return Some(extended),
                    Err(error) => self.tell(Level::Warn, format!("cannot set {} again: {error}", extended.address)),
                },
                Ok(Renewal::Lost(reason)) => {
                    let text = format!("{}: the lease of {} ended: {reason}", self.link.name, lease.address);
                    self.tell(Level::Warn, text);
                    self.drop_address(lease);
                    return self.replace(client, lease);
                }
                Ok(Renewal::Silence) => {
                    tracing::debug!(link = self.link.name, rebinding, "the DHCP server is silent");
                }
                // The link may be down for a moment.
                Err(error) => tracing::debug!(link = self.link.name, error = describe(&error), "cannot renew"),
            }
            if !self.shared.sleep_until(Some(until)) {
                return None;
            }
        }
    }

    /// Asks from the start until somebody lends an address. An address that has merely expired is used
    /// meanwhile: losing it for certain would be worse than sharing it perhaps.
    fn replace(&self, client: &Client, lease: &Lease) -> Option<Lease> {
        self.tell(Level::Warn, format!("{}: asking for a new lease", self.link.name));
        loop {
            match self.acquire(client, Some(lease.address), self.shared.request.configure_wait) {
                Ok(new) => {
                    if (new.address, new.prefix) != (lease.address, lease.prefix) {
                        self.remove_address(lease);
                    }
                    self.tell(Level::Info, format!("{} has {}/{} now", self.link.name, new.address, new.prefix));
                    return Some(new);
                }
                Err(reason) => self.tell(Level::Warn, format!("{}: {reason}", self.link.name)),
            }
            if self.shared.is_stopped() {
                return None;
            }
        }
    }

    fn drop_address(&self, lease: &Lease) {
        self.remove_address(lease);
        self.shared.update(self.link.index, |state| {
            state.addresses.retain(|(address, _)| !address.is_ipv4());
            state.v4 = Progress::Waiting;
        });
    }

    fn remove_address(&self, lease: &Lease) {
        let removed = Rtnetlink::open()
            .and_then(|mut kernel| kernel.remove_address(self.link.index, lease.address.into(), lease.prefix));
        if let Err(error) = removed {
            tracing::debug!(%error, address = %lease.address, "cannot remove the address");
        }
    }

    pub(super) fn ready(&self, text: String) {
        self.tell(Level::Info, text.clone());
        self.shared.finish(&self.name(), text, EventResult::Success);
    }

    pub(super) fn tell(&self, level: Level, text: String) {
        self.shared.notice(&self.name(), level, text);
    }

    fn fail_all(&self, reason: &str) {
        self.shared.update(self.link.index, |state| {
            for side in [&mut state.v4, &mut state.v6] {
                if matches!(side, Progress::Waiting | Progress::Promised) {
                    *side = Progress::Failed(reason.to_owned());
                }
            }
        });
        self.shared.finish(&self.name(), format!("{}: {reason}", self.link.name), EventResult::Warn);
    }
}

/// Half of the time that is left until `end`, and at least the smaller of that and five seconds.
fn next_try(now: Instant, end: Instant) -> Instant {
    let left = end.saturating_duration_since(now);
    now + (left / 2).max(left.min(Duration::from_secs(5))).max(Duration::from_millis(100))
}

/// An error with its causes, on one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_closer_towards_the_end_but_not_too_close() {
        let now = Instant::now();
        for (left, next) in [(3600, 1800), (60, 30), (8, 5), (3, 3)] {
            let found = next_try(now, now + Duration::from_secs(left));
            assert_eq!(found - now, Duration::from_secs(next), "{left} s left");
        }
        assert!(next_try(now, now) > now, "never a busy loop");
    }
}
