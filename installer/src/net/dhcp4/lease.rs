//! What a DHCPv4 server may decide for us. In: the bytes of its answer. Out: [`Reply`].
//!
//! Only the options named here are looked at; a value that cannot be used is left out, never guessed.
//! The options are walked by ours and not by dhcproto, which stops at the first one it cannot read and
//! knows neither overloading (RFC 2132, 9.3) nor options in several pieces (RFC 3396).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::net::names;
use crate::net::request::prefix_of_mask;

/// An answer to our transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Offer(Lease),
    Ack(Lease),
    Nak { server: Option<Ipv4Addr>, message: String },
}

/// An address on loan and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub server: Ipv4Addr,
    /// How long the address is ours; `None`: for ever.
    pub duration: Option<Duration>,
    pub renew_after: Duration,
    pub rebind_after: Duration,
    pub routes: Vec<ClasslessRoute>,
    pub dns: Vec<Ipv4Addr>,
    pub search: Vec<String>,
    pub ntp: Vec<Ipv4Addr>,
    pub hostname: Option<String>,
    /// Largest packet in bytes, if smaller than usual.
    pub mtu: Option<u32>,
    /// A place to look for a config; only a signed one counts.
    pub config_url: Option<String>,
}

/// `via` 0.0.0.0: on the link itself (RFC 3442).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClasslessRoute {
    pub to: Ipv4Addr,
    pub prefix: u8,
    pub via: Ipv4Addr,
}

pub mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const NTP: u8 = 42;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const SEARCH: u8 = 119;
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// Of the range for private use (RFC 3942): where castiron's config is.
    pub const CONFIG_URL: u8 = 224;
}

const FIXED_HEADER: usize = 236;
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REPLY: u8 = 2;
const NAMES_MAX: usize = 8;
/// Shorter leases would only make us ask all the time.
const LEASE_MIN: Duration = Duration::from_secs(10);

/// The answer to transaction `xid` of `mac`, or why these bytes are none.
pub fn parse_reply(bytes: &[u8], xid: u32, mac: [u8; 6]) -> Result<Reply, &'static str> {
    let header = bytes.get(..FIXED_HEADER).ok_or("shorter than a DHCP message")?;
    if header[0] != BOOT_REPLY {
        return Err("not a reply");
    }
    if header[4..8] != xid.to_be_bytes() || header[28..34] != mac {
        return Err("for another client");
    }
    let options = bytes.get(FIXED_HEADER..).and_then(|rest| rest.strip_prefix(&MAGIC_COOKIE)).ok_or("plain BOOTP")?;
    let options = Options::read(options, &header[108..236], &header[44..108]);
    let server = options.address(code::SERVER_ID);
    let address = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    match options.single(code::MESSAGE_TYPE) {
        Some(2) => lease(address, server, &options).map(Reply::Offer),
        Some(5) => lease(address, server, &options).map(Reply::Ack),
        Some(6) => Ok(Reply::Nak { server, message: options.text(code::MESSAGE).unwrap_or_default() }),
        Some(_) => Err("a message for servers"),
        None => Err("no message type"),
    }
}

fn lease(address: Ipv4Addr, server: Option<Ipv4Addr>, options: &Options) -> Result<Lease, &'static str> {
    let server = server.ok_or("no server identifier")?;
    if !is_host(address) {
        return Err("the address offered is not one for a host");
    }
    let prefix = options.address(code::SUBNET_MASK).and_then(prefix_of_mask).unwrap_or_else(|| class_prefix(address));
    let duration = match options.seconds(code::LEASE_TIME) {
        Some(u32::MAX) => None,
        Some(seconds) => Some(Duration::from_secs(u64::from(seconds)).max(LEASE_MIN)),
        None => return Err("no lease time"),
    };
    let (renew_after, rebind_after) = timers(duration, options);
    let domain = options.text(code::DOMAIN).into_iter().flat_map(|text| {
        text.split_ascii_whitespace().filter(|name| names::is_valid(name)).map(str::to_owned).collect::<Vec<_>>()
    });
    let mut search = options.0.get(&code::SEARCH).map(|bytes| names::parse_list(bytes)).unwrap_or_default();
    search.extend(domain);
    let mut seen = std::collections::BTreeSet::new();
    search.retain(|name| seen.insert(name.clone()));
    search.truncate(NAMES_MAX);
    Ok(Lease {
        address,
        prefix,
        server,
        duration,
        renew_after,
        rebind_after,
        routes: routes(options),
        dns: options.hosts(code::DNS),
        search,
        ntp: options.hosts(code::NTP),
        hostname: options.text(code::HOSTNAME).filter(|name| names::is_valid(name)),
        mtu: options.short(code::MTU).map(u32::from).filter(|mtu| (576..1500).contains(mtu)),
        config_url: options.text(code::CONFIG_URL).filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())),
    })
}

/// T1 and T2 (RFC 2131, 4.4.5): as sent if they make sense, else one half and seven eighths of the lease.
fn timers(duration: Option<Duration>, options: &Options) -> (Duration, Duration) {
    let Some(duration) = duration else { return (Duration::MAX, Duration::MAX) };
    let sent = |code| options.seconds(code).map(|seconds| Duration::from_secs(u64::from(seconds)));
    let rebind = sent(code::REBINDING).filter(|time| *time < duration).unwrap_or(duration.mul_f64(0.875));
    let renew = sent(code::RENEWAL).filter(|time| *time < rebind && !time.is_zero()).unwrap_or(duration / 2);
    (renew.min(rebind), rebind)
}

/// Classless routes replace the router option (RFC 3442).
fn routes(options: &Options) -> Vec<ClasslessRoute> {
    let classless = options.0.get(&code::CLASSLESS_ROUTES).map(|bytes| classless_routes(bytes)).unwrap_or_default();
    if !classless.is_empty() {
        return classless;
    }
    let routers = options.hosts(code::ROUTER);
    let default = |via| ClasslessRoute { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via };
    routers.first().map(|via| default(*via)).into_iter().collect()
}

/// Prefix length, as many bytes of destination as it needs, gateway; again and again. A list with a
/// mistake in it is not used at all.
fn classless_routes(mut bytes: &[u8]) -> Vec<ClasslessRoute> {
    let mut routes = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first() {
        let significant = usize::from(*prefix).div_ceil(8);
        if *prefix > 32 || rest.len() < significant + 4 {
            return Vec::new();
        }
        let mut to = [0; 4];
        to[..significant].copy_from_slice(&rest[..significant]);
        let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
        let via = &rest[significant..significant + 4];
        routes.push(ClasslessRoute {
            to: Ipv4Addr::from(u32::from_be_bytes(to) & mask),
            prefix: *prefix,
            via: Ipv4Addr::new(via[0], via[1], via[2], via[3]),
        });
        bytes = &rest[significant + 4..];
    }
    routes
}

/// An address that one machine can have.
fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified()
        && !address.is_broadcast()
        && !address.is_multicast()
        && !address.is_loopback()
        && address.octets()[0] != 0
        && address.octets()[0] < 240
}

/// What the address meant before netmasks, for servers that send none.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

/// Options by code; pieces of one option are put together.
struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    fn read(options: &[u8], file: &[u8], sname: &[u8]) -> Self {
        let mut found = Self(BTreeMap::new());
        found.walk(options);
        let overload = found.single(code::OVERLOAD).unwrap_or(0);
        if overload & 1 != 0 {
            found.walk(file);
        }
        if overload & 2 != 0 {
            found.walk(sname);
        }
        found
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while let Some((code, rest)) = bytes.split_first() {
            match code {
                0 => bytes = rest,
                255 => return,
                _ => {
                    let Some((length, rest)) = rest.split_first() else { return };
                    let Some(value) = rest.get(..usize::from(*length)) else { return };
                    self.0.entry(*code).or_default().extend(value);
                    bytes = &rest[value.len()..];
                }
            }
        }
    }

    fn exact<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.0.get(&code)?.as_slice().try_into().ok()
    }

    fn single(&self, code: u8) -> Option<u8> {
        self.exact::<1>(code).map(|[byte]| byte)
    }

    fn short(&self, code: u8) -> Option<u16> {
        self.exact(code).map(u16::from_be_bytes)
    }

    fn seconds(&self, code: u8) -> Option<u32> {
        self.exact(code).map(u32::from_be_bytes)
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.exact::<4>(code).map(Ipv4Addr::from)
    }

    fn hosts(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.0.get(&code).map_or(&[][..], Vec::as_slice);
        let all = bytes.chunks_exact(4).map(|four| Ipv4Addr::new(four[0], four[1], four[2], four[3]));
        all.filter(|address| is_host(*address)).take(NAMES_MAX).collect()
    }

    /// Text without the zero that some servers put at its end, and without control characters at all.
    fn text(&self, code: u8) -> Option<String> {
        let bytes = self.0.get(&code)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests;
