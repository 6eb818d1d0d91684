//! Which network links there are. Reads below a given `/sys`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::request::Mac;

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    pub mac: Mac,
    /// A device stands behind it; bridges, tunnels and the like have none.
    pub physical: bool,
}

/// Hardware type of Ethernet in `/sys/class/net/*/type` (`ARPHRD_ETHER`).
const ETHERNET: &str = "1";
/// `IFF_UP` in `/sys/class/net/*/flags`.
const IFF_UP: u32 = 1;

/// Every Ethernet link except wireless ones, which cannot be used without keys, by name.
pub fn list(sys: &Path) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(sys.join("class/net"))? {
        let entry = entry?;
        let folder = entry.path();
        let wireless = folder.join("phy80211").exists() || folder.join("wireless").exists();
        if attribute(&folder, "type").as_deref() == Some(ETHERNET) && !wireless {
            // A link that vanishes between listing and reading is no link.
            links.extend(read(&folder, entry.file_name().to_string_lossy().into_owned()));
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

fn read(folder: &Path, name: String) -> Option<Link> {
    Some(Link {
        name,
        index: attribute(folder, "ifindex")?.parse().ok()?,
        mac: attribute(folder, "address")?.parse().ok()?,
        physical: folder.join("device").exists(),
    })
}

fn attribute(folder: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned())
}

impl Link {
    fn folder(&self, sys: &Path) -> PathBuf {
        sys.join("class/net").join(&self.name)
    }

    pub fn is_up(&self, sys: &Path) -> bool {
        let flags = attribute(&self.folder(sys), "flags").unwrap_or_default();
        u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & IFF_UP != 0)
    }

    /// The kernel refuses to say while the link is down, which means no.
    pub fn has_carrier(&self, sys: &Path) -> bool {
        attribute(&self.folder(sys), "carrier").as_deref() == Some("1")
    }

    /// Largest packet in bytes.
    pub fn mtu(&self, sys: &Path) -> Option<u32> {
        attribute(&self.folder(sys), "mtu")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_ethernet_links_are_listed() {
        let sys = tempfile::tempdir().unwrap();
        let link = |name: &str, kind: &str, extra: &str| {
            let folder = sys.path().join("class/net").join(name);
            fs::create_dir_all(folder.join(extra)).unwrap();
            for (file, text) in [
                ("type", kind),
                ("ifindex", "2"),
                ("address", "52:54:00:12:34:56"),
                ("flags", "0x1003"),
                ("mtu", "1500"),
            ] {
                fs::write(folder.join(file), format!("{text}\n")).unwrap();
            }
            fs::write(folder.join("carrier"), "0\n").unwrap();
        };
        link("lo", "772", "power");
        link("eth0", "1", "device");
        link("wlan0", "1", "phy80211");
        link("br0", "1", "power");
        let links = list(sys.path()).unwrap();
        let shown: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.physical)).collect();
        assert_eq!(shown, [("br0", false), ("eth0", true)]);
        assert!(links[1].is_up(sys.path()));
        assert!(!links[1].has_carrier(sys.path()));
        assert_eq!(links[1].mtu(sys.path()), Some(1500));
    }
}
