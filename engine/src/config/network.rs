//! The target's network as written: the part of Netplan v2 that this version takes.
//!
//! What the installer itself uses comes from the kernel command line; see `castiron-init`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{EnvironmentName, Glob, Later};

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Netplan's version: 2.
    pub version: Option<NetworkVersion>,
    #[serde(default)]
    pub ethernets: BTreeMap<EnvironmentName, Ethernet>,
    pub renderer: Option<Later>,
    pub wifis: Option<Later>,
    pub bonds: Option<Later>,
    pub bridges: Option<Later>,
    pub vlans: Option<Later>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "u32", extend("const" = 2))]
pub struct NetworkVersion;

impl<'de> Deserialize<'de> for NetworkVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            2 => Ok(Self),
            other => Err(serde::de::Error::custom(format!("network version {other} is not known, write 2"))),
        }
    }
}

/// One wired link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ethernet {
    /// Which link; without it, the one whose name is this entry's key.
    pub r#match: Option<LinkMatch>,
    #[serde(default)]
    pub dhcp4: bool,
    #[serde(default)]
    pub dhcp6: bool,
    #[serde(rename = "accept-ra")]
    pub accept_ra: Option<bool>,
    /// `192.0.2.17/24`, `2001:db8::17/64`
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub routes: Vec<Route>,
    pub nameservers: Option<Nameservers>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Do not wait for this link at boot.
    #[serde(default)]
    pub optional: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkMatch {
    pub macaddress: Option<String>,
    pub name: Option<Glob>,
    pub driver: Option<Glob>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `default`, or a network such as `198.51.100.0/24`
    pub to: String,
    pub via: Option<String>,
    pub metric: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nameservers {
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub search: Vec<String>,
}
