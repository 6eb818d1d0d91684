//! Distributions as data. In: the text of a file in `distributions/`. Out: a [`Distribution`].

use serde::{Deserialize, Serialize};

/// What castiron must know of a distribution; see `distributions/debian.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    pub name: String,
    /// What its boot menu says.
    pub title: String,
    /// Its folder below `EFI/`.
    pub vendor: String,
    /// Where its own packages put the archive's keys.
    pub keyring: String,
    pub packages: Packages,
    pub network: NetworkDaemon,
}

/// Packages by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packages {
    pub system: Vec<String>,
    pub loader: Vec<String>,
    pub locale: Vec<String>,
    pub timezone: Vec<String>,
    pub keyboard: Vec<String>,
    pub sudo: Vec<String>,
    pub resolver: Vec<String>,
    /// For mirrors that the finished system reaches by https.
    pub https: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDaemon {
    pub daemon: String,
    /// Run in the target.
    pub enable: Vec<Vec<String>>,
}
