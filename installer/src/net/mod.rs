//! From links without addresses to a machine that can fetch.
//!
//! In: [`NetRequest`]. Out: [`NetState`], which also keeps leases alive in the background until it is
//! dropped. Every link is brought up side by side; the first one that is usable ends the wait, the
//! others may still join. Invariant: a link that is up is never taken down.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use castiron_engine::event::{Event, EventResult, EventSink, EventType, Level};
use thiserror::Error;

pub mod dhcp4;
mod dhcp6;
mod links;
pub mod names;
mod netlink;
mod packet;
mod request;
pub mod resolv;
mod router;
pub mod tftp;
mod worker;
mod worker6;

pub use links::Link;
pub use request::{
    ExtraRoute, LinkName, LinkRequest, Mac, Method, NetArguments, NetRequest, Roots, StaticAddress, parse_address,
};
pub use resolv::NameServer;

/// The addresses of this machine's NICs; none if they cannot be listed.
pub fn physical_links(sys: &Path) -> Vec<Mac> {
    let links = links::list(sys).unwrap_or_default();
    links.into_iter().filter(|link| link.physical).map(|link| link.mac).collect()
}

/// One link as it is now.
#[derive(Clone, Debug)]
pub struct LinkState {
    pub name: String,
    pub mac: Mac,
    pub index: u32,
    pub carrier: bool,
    /// Address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
    pub dns: Vec<NameServer>,
    pub search: Vec<String>,
    pub ntp: Vec<IpAddr>,
    pub hostname: Option<String>,
    /// Where a DHCP server says a config is. Only a signed one counts.
    pub config_url: Option<String>,
    pub lease: Option<LeaseState>,
    pub v4: Progress,
    pub v6: Progress,
}

/// A DHCPv4 lease in use.
#[derive(Clone, Debug)]
pub struct LeaseState {
    pub server: IpAddr,
    pub obtained: Instant,
    /// `None`: for ever.
    pub duration: Option<Duration>,
    pub renewals: u32,
}

/// How far one address family of a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not asked for.
    Off,
    Waiting,
    /// A router has spoken; an address is about to be ready.
    Promised,
    Ready,
    Failed(String),
}

impl LinkState {
    fn new(link: &Link, method: Method) -> Self {
        let (v4, v6) = match method {
            Method::Auto => (Progress::Waiting, Progress::Waiting),
            Method::Dhcp4 => (Progress::Waiting, Progress::Off),
            Method::Auto6 | Method::Dhcp6 | Method::Link6 => (Progress::Off, Progress::Waiting),
            Method::Static(wanted) if wanted.address.is_ipv4() => (Progress::Waiting, Progress::Off),
            Method::Static(_) => (Progress::Off, Progress::Waiting),
            Method::Off => (Progress::Off, Progress::Off),
        };
        Self {
            name: link.name.clone(),
            mac: link.mac,
            index: link.index,
            carrier: false,
            addresses: Vec::new(),
            gateways: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            ntp: Vec::new(),
            hostname: None,
            config_url: None,
            lease: None,
            v4,
            v6,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.v4 == Progress::Ready || self.v6 == Progress::Ready
    }

    fn is_waiting(&self) -> bool {
        [&self.v4, &self.v6].into_iter().any(|side| matches!(side, Progress::Waiting | Progress::Promised))
    }

    /// Why nothing came of it, for people.
    fn failure(&self) -> String {
        let reasons = [&self.v4, &self.v6].into_iter().filter_map(|side| match side {
            Progress::Failed(reason) => Some(reason.as_str()),
            Progress::Off | Progress::Waiting | Progress::Promised | Progress::Ready => None,
        });
        let reasons: BTreeSet<&str> = reasons.collect();
        format!("{}: {}", self.name, reasons.into_iter().collect::<Vec<_>>().join("; "))
    }
}

#[derive(Debug, Error)]
pub enum NetError {
    #[error("this machine has no network link that could be used")]
    NoLink,
    #[error("no link became usable: {}", reasons.join("; "))]
    NotUsable { reasons: Vec<String> },
    #[error("the network is switched off by ip=off")]
    Off,
    #[error("cannot read the network links")]
    Links(#[source] io::Error),
}

impl NetError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoLink => "the driver may be missing: name it with castiron.modules=, or build it into the appliance",
            Self::NotUsable { .. } => "check cable, switch port and DHCP server, or set an address with ip=",
            Self::Off => "remove ip=off, or boot with a config that needs no network",
            Self::Links(_) => "/sys must be mounted",
        }
    }
}

/// The network while it is up. Dropping it ends the renewal of leases; addresses stay.
pub struct NetState {
    shared: Arc<Shared>,
}

/// What the workers of all links and the front share.
pub(crate) struct Shared {
    request: NetRequest,
    links: Mutex<Vec<LinkState>>,
    notices: Mutex<Vec<Event>>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl Drop for NetState {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

/// How long a ready link waits for its other address family.
const OTHER_FAMILY_WAIT: Duration = Duration::from_secs(3);
/// How long to look for the NIC that BOOTIF names before all others are tried.
const BOOTIF_WAIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(100);

/// Brings the network up and returns as soon as one link is usable.
pub fn bring_up(request: &NetRequest, events: &mut dyn EventSink) -> Result<NetState, NetError> {
    if request.others == Method::Off && request.links.iter().all(|link| link.method == Method::Off) {
        return Err(NetError::Off);
    }
    let state = NetState {
        shared: Arc::new(Shared {
            request: request.clone(),
            links: Mutex::default(),
            notices: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        }),
    };
    let begun = Instant::now();
    let mut front = Front { started: BTreeSet::new(), claimed: vec![false; request.links.len()], all_since: begun };
    let mut ready_since = None;
    loop {
        front.start_new_links(&state.shared, begun)?;
        state.report(events);
        let links = state.links();
        if links.iter().any(LinkState::is_ready) {
            let since = *ready_since.get_or_insert_with(Instant::now);
            if settled(&links, since.elapsed()) {
                return Ok(state);
            }
        } else if begun.elapsed() >= request.link_wait && !links.iter().any(LinkState::is_waiting) {
            state.report(events);
            return Err(match links.is_empty() {
                true => NetError::NoLink,
                false => NetError::NotUsable { reasons: links.iter().map(LinkState::failure).collect() },
            });
        }
        state.shared.wait(STEP);
    }
}

/// Whether waiting longer than `ready_for` could make a ready link better.
fn settled(links: &[LinkState], ready_for: Duration) -> bool {
    let better_soon = |link: &LinkState| match (&link.v4, &link.v6) {
        (Progress::Ready, v6) => *v6 == Progress::Promised,
        (v4, Progress::Ready) => *v4 == Progress::Waiting,
        _ => false,
    };
    ready_for >= OTHER_FAMILY_WAIT || links.iter().any(|link| link.is_ready() && !better_soon(link))
}

/// Which links have a worker.
struct Front {
    started: BTreeSet<u32>,
    /// For each request, whether it has found its link.
    claimed: Vec<bool>,
    all_since: Instant,
}

impl Front {
    fn start_new_links(&mut self, shared: &Arc<Shared>, begun: Instant) -> Result<(), NetError> {
        let request = &shared.request;
        let links = links::list(&request.roots.sys).map_err(NetError::Links)?;
        let boot_link = links.iter().find(|link| Some(link.mac) == request.bootif && link.physical);
        for link in &links {
            if self.started.contains(&link.index) {
                continue;
            }
            if let Some(wanted) = self.claim(request, link, boot_link) {
                self.start(shared, link, wanted);
            } else if link.physical && self.wants_others(shared, link, boot_link, begun) {
                self.start(shared, link, &LinkRequest::plain(request.others));
            }
        }
        Ok(())
    }

    /// The request that names this link. One that names none takes the boot NIC or else the first link with a carrier.
    fn claim<'a>(&mut self, request: &'a NetRequest, link: &Link, boot_link: Option<&Link>) -> Option<&'a LinkRequest> {
        let fits = |wanted: &LinkRequest| match &wanted.link {
            Some(LinkName::Name(name)) => *name == link.name,
            Some(LinkName::Mac(mac)) => *mac == link.mac,
            None => match boot_link {
                Some(boot) => boot.index == link.index,
                None => link.physical && has_carrier_if_up(link, request),
            },
        };
        let index = (0..request.links.len()).find(|index| !self.claimed[*index] && fits(&request.links[*index]))?;
        self.claimed[index] = true;
        Some(&request.links[index])
    }

    /// Whether the request for all other links covers this one: with BOOTIF only the boot NIC, unless it does not exist.
    fn wants_others(&mut self, shared: &Shared, link: &Link, boot_link: Option<&Link>, begun: Instant) -> bool {
        if shared.request.others == Method::Off {
            return false;
        }
        match (shared.request.bootif, boot_link) {
            (None, _) => true,
            (Some(_), Some(boot)) => boot.index == link.index,
            (Some(mac), None) => {
                let tried = begun.elapsed() >= BOOTIF_WAIT;
                if tried && self.all_since == begun {
                    self.all_since = Instant::now();
                    shared.notice(
                        "network",
                        Level::Warn,
                        format!("no link has the address {mac} of BOOTIF=: trying all"),
                    );
                }
                tried
            }
        }
    }

    fn start(&mut self, shared: &Arc<Shared>, link: &Link, wanted: &LinkRequest) {
        self.started.insert(link.index);
        if wanted.method == Method::Off {
            return;
        }
        shared.lock().push(LinkState::new(link, wanted.method));
        worker::start(Arc::clone(shared), link.clone(), wanted.clone());
    }
}

fn has_carrier_if_up(link: &Link, request: &NetRequest) -> bool {
    if !link.is_up(&request.roots.sys) {
        // Failing to set it up shows as a carrier that never comes.
        let _ = netlink::Rtnetlink::open().and_then(|mut kernel| kernel.set_up(link.index));
    }
    link.has_carrier(&request.roots.sys)
}

impl LinkRequest {
    fn plain(method: Method) -> Self {
        Self { link: None, method, hostname: None, mtu: None, nameservers: Vec::new() }
    }
}

impl NetState {
    /// Every link that was asked for, in the order they were found.
    pub fn links(&self) -> Vec<LinkState> {
        self.shared.lock().clone()
    }

    /// Time servers of all links, those of the first usable link first.
    pub fn ntp(&self) -> Vec<IpAddr> {
        self.links().into_iter().flat_map(|link| link.ntp).collect()
    }

    /// The host name a server gave, for `${hostname}`.
    pub fn hostname(&self) -> Option<String> {
        self.links().into_iter().find_map(|link| link.hostname)
    }

    /// Config URLs from DHCP; only signed documents from there count.
    pub fn config_urls(&self) -> Vec<String> {
        self.links().into_iter().filter_map(|link| link.config_url).collect()
    }

    /// The link to name the machine by: the boot NIC, else the first usable one.
    pub fn boot_link(&self) -> Option<LinkState> {
        let links = self.links();
        let boot = links.iter().find(|link| Some(link.mac) == self.shared.request.bootif);
        boot.or_else(|| links.iter().find(|link| link.is_ready())).cloned()
    }

    /// What happened since the last call: renewed and lost leases, links that joined later.
    pub fn report(&self, events: &mut dyn EventSink) {
        let notices = std::mem::take(&mut *self.shared.notices.lock().unwrap_or_else(PoisonError::into_inner));
        notices.iter().for_each(|event| events.emit(event));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<LinkState>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a link and rewrites resolv.conf if name servers changed with it.
    fn update(&self, link: u32, change: impl FnOnce(&mut LinkState)) {
        let mut links = self.lock();
        let before = self.resolv_conf(&links);
        if let Some(state) = links.iter_mut().find(|state| state.index == link) {
            change(state);
        }
        let after = self.resolv_conf(&links);
        // Written under the lock, so that the file always shows the latest state.
        if let Some(text) = after.filter(|text| Some(text) != before.as_ref())
            && let Err(error) = resolv::write(&self.request.roots.resolv_conf, &text)
        {
            let path = self.request.roots.resolv_conf.display();
            self.notice("network", Level::Error, format!("cannot write {path}: {error}"));
        }
        drop(links);
        self.changed.notify_all();
    }

    /// Name servers of the command line first. `None` while there are none at all.
    fn resolv_conf(&self, links: &[LinkState]) -> Option<String> {
        let fixed = self.request.nameservers.iter().map(|address| NameServer { address: *address, link: None });
        let servers: Vec<NameServer> = fixed.chain(links.iter().flat_map(|link| link.dns.clone())).collect();
        let search: Vec<String> = links.iter().flat_map(|link| link.search.clone()).collect();
        let any_ready = links.iter().any(LinkState::is_ready);
        (any_ready && !servers.is_empty()).then(|| resolv::text(&servers, &search))
    }

    fn notice(&self, name: &str, level: Level, text: String) {
        self.push(Event { event_type: EventType::Progress, level, ..Event::start(name, text) });
    }

    fn finish(&self, name: &str, text: String, result: EventResult) {
        self.push(Event::finish(name, text, result));
    }

    fn push(&self, event: Event) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.changed.notify_all();
    }

    /// Waits for a change, at most `time`.
    fn wait(&self, time: Duration) {
        let links = self.lock();
        drop(self.changed.wait_timeout(links, time));
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Sleeps until `until`; false if the network was given up meanwhile.
    fn sleep_until(&self, until: Option<Instant>) -> bool {
        loop {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if self.is_stopped() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            self.wait(left.min(Duration::from_secs(3600)));
        }
    }
}
