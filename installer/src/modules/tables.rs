//! What depmod and modprobe files say, as tables: dependencies, aliases, soft dependencies, built-in modules, options.
//!
//! In: texts of `modules.dep`, `modules.alias`, `modules.softdep`, `modules.builtin` (kmod's depmod(8)) and
//! `modprobe.d/*.conf` (modprobe.d(5)). Out: the order in which files are loaded. Invariant: no I/O. `modules.order`
//! is not read, because depmod has sorted `modules.alias` by it already.

use std::collections::{BTreeMap, BTreeSet};

use crate::cmdline::module_name;
use crate::modules::pattern;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By name: path below the module folder, and the paths of all it needs, last one first to be loaded.
    files: BTreeMap<String, (String, Vec<String>)>,
    /// By the literal head of the pattern: pattern and module, in the order of the file.
    aliases: BTreeMap<String, Vec<(String, String)>>,
    soft: BTreeMap<String, Soft>,
    builtin: BTreeSet<String>,
    blacklist: BTreeSet<String>,
    options: BTreeMap<String, Vec<String>>,
    /// The longest literal head: no need to look further.
    head_bytes_max: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// A module to load: its name and its path below the module folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: String,
    pub path: String,
    /// Whether a failure concerns the module that was asked for; soft dependencies may fail.
    pub required: bool,
}

impl Tables {
    /// `kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz`
    pub fn add_dependencies(&mut self, text: &str) {
        for (path, needs) in text.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            self.files.insert(name_of_path(path), (path.to_owned(), needs));
        }
    }

    /// `kernel/arch/x86/kernel/msr.ko`, one a line.
    pub fn add_builtin(&mut self, text: &str) {
        self.builtin.extend(text.lines().filter(|line| !line.trim().is_empty()).map(name_of_path));
    }

    /// Lines of `modules.alias`, `modules.softdep` and modprobe.d: `alias`, `softdep`, `options`, `blacklist`.
    /// Other commands (`install`, `remove`) run programs and are not obeyed.
    pub fn add_directives(&mut self, text: &str) {
        for line in text.replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("alias"), Some(alias)) => {
                    if let Some(module) = words.next() {
                        self.add_alias(alias, module);
                    }
                }
                (Some("softdep"), Some(module)) => self.add_soft(module, words),
                (Some("options"), Some(module)) => {
                    self.options.entry(module_name(module)).or_default().extend(words.map(str::to_owned));
                }
                (Some("blacklist"), Some(module)) => {
                    self.blacklist.insert(module_name(module));
                }
                _ => {}
            }
        }
    }

    fn add_alias(&mut self, alias: &str, module: &str) {
        let alias = normalise_pattern(alias);
        let head = pattern::literal_head(&alias).to_owned();
        self.head_bytes_max = self.head_bytes_max.max(head.len());
        self.aliases.entry(head).or_default().push((alias, module_name(module)));
    }

    fn add_soft<'a>(&mut self, module: &str, words: impl Iterator<Item = &'a str>) {
        let soft = self.soft.entry(module_name(module)).or_default();
        let mut target = None;
        for word in words {
            match (word, &mut target) {
                ("pre:", target) => *target = Some(false),
                ("post:", target) => *target = Some(true),
                (name, Some(false)) => soft.before.push(module_name(name)),
                (name, Some(true)) => soft.after.push(module_name(name)),
                (_, None) => {}
            }
        }
    }

    pub fn blacklist(&mut self, names: impl IntoIterator<Item = String>) {
        self.blacklist.extend(names);
    }

    pub fn add_options(&mut self, module: &str, options: &[String]) {
        self.options.entry(module_name(module)).or_default().extend_from_slice(options);
    }

    /// The parameters for `finit_module(2)`.
    pub fn options(&self, name: &str) -> String {
        self.options.get(name).map(|options| options.join(" ")).unwrap_or_default()
    }

    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    pub fn knows(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.builtin.contains(name)
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Modules for a device's modalias or for an alias such as `fs-ext4`, without those on the black list.
    pub fn modules_for(&self, alias: &str) -> Vec<&str> {
        let alias = module_name(alias);
        let mut found: Vec<&str> = Vec::new();
        for end in (0..=alias.len().min(self.head_bytes_max)).filter(|end| alias.is_char_boundary(*end)) {
            for (pattern, module) in self.aliases.get(&alias[..end]).into_iter().flatten() {
                let new = !found.contains(&module.as_str()) && !self.blacklist.contains(module);
                if new && pattern::matches(pattern, &alias) {
                    found.push(module);
                }
            }
        }
        found
    }

    /// Everything to load for module `name`, in order: soft dependencies before, hard dependencies, itself, soft
    /// dependencies after. Built-in modules and unknown soft ones are left out.
    pub fn load_order(&self, name: &str) -> Vec<Load> {
        let mut order = Vec::new();
        self.visit(&module_name(name), true, &mut BTreeSet::new(), &mut order);
        order
    }

    fn visit(&self, name: &str, required: bool, under_way: &mut BTreeSet<String>, order: &mut Vec<Load>) {
        let Some((path, needs)) = self.files.get(name) else {
            // A soft dependency may be an alias, as `pre: crypto-crc32c`.
            let modules: Vec<String> = self.modules_for(name).into_iter().map(str::to_owned).collect();
            for module in modules.iter().filter(|module| self.files.contains_key(*module)) {
                self.visit(module, required, under_way, order);
            }
            return;
        };
        if !under_way.insert(name.to_owned()) {
            return;
        }
        let soft = self.soft.get(name);
        for before in soft.into_iter().flat_map(|soft| &soft.before) {
            self.visit(before, false, under_way, order);
        }
        for need in needs.iter().rev() {
            self.visit(&name_of_path(need), required, under_way, order);
        }
        order.push(Load { name: name.to_owned(), path: path.clone(), required });
        for after in soft.into_iter().flat_map(|soft| &soft.after) {
            self.visit(after, false, under_way, order);
        }
    }
}

/// A pattern with `_` for `-`, as the texts it is compared with, except in ranges such as `[0-9]`.
fn normalise_pattern(pattern: &str) -> String {
    let mut inside = false;
    let one = |c| {
        inside = (inside || c == '[') && c != ']';
        if c == '-' && !inside { '_' } else { c }
    };
    pattern.chars().map(one).collect()
}

/// `kernel/drivers/net/virtio-net.ko.xz` is module `virtio_net`.
pub fn name_of_path(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    module_name(file.split_once(".ko").map_or(file, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let mut tables = Tables::default();
        tables.add_dependencies(
            "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko\n\
             kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\n\
             kernel/lib/crc16.ko:\nkernel/fs/mbcache.ko:\n\
             kernel/crypto/crc32c_generic.ko:\nkernel/arch/x86/crypto/crc32c-intel.ko:\n\
             kernel/drivers/net/virtio_net.ko.zst: kernel/net/core/failover.ko\nkernel/net/core/failover.ko:\n\
             kernel/drivers/net/e1000.ko:\nkernel/drivers/net/e1000e.ko:\nkernel/ring-a.ko:\nkernel/ring-b.ko:\n",
        );
        tables.add_builtin("kernel/drivers/virtio/virtio-pci.ko\n\n");
        tables.add_directives(
            "# Aliases extracted from modules themselves.\n\
             alias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n\
             alias pci:v00008086d*sv*sd*bc*sc*i* e1000\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n\
             alias usb:v0123p*d[0-9]* usb-thing\nalias input:b0003-e0* pad\n\
             softdep ext4 pre: crypto-crc32c absent\nsoftdep ring-a post: ring-b\nsoftdep ring-b pre: ring-a\n\
             options e1000e IntMode=1 \\\n  debug=2\nblacklist e1000\ninstall ext4 /bin/evil\n",
        );
        tables
    }

    fn names(loads: &[Load]) -> Vec<&str> {
        loads.iter().map(|load| load.name.as_str()).collect()
    }

    #[test]
    fn what_is_needed_comes_first() {
        let order = tables().load_order("ext4");
        assert_eq!(names(&order), ["crc32c_generic", "crc32c_intel", "mbcache", "crc16", "jbd2", "ext4"]);
        assert_eq!(order[5].path, "kernel/fs/ext4/ext4.ko.xz");
        assert!(!order[0].required && order[4].required);
        assert_eq!(names(&tables().load_order("virtio-net")), ["failover", "virtio_net"]);
        assert!(tables().load_order("virtio_pci").is_empty() && tables().is_builtin("virtio_pci"));
        assert!(tables().load_order("nothing").is_empty() && !tables().knows("nothing"));
    }

    #[test]
    fn rings_of_soft_dependencies_end() {
        assert_eq!(names(&tables().load_order("ring-a")), ["ring_a", "ring_b"]);
        assert_eq!(names(&tables().load_order("ring-b")), ["ring_a", "ring_b"]);
    }

    #[test]
    fn devices_find_their_modules() {
        let tables = tables();
        for (alias, modules) in [
            ("virtio:d00000001v00001AF4", vec!["virtio_net"]),
            ("fs-ext4", vec!["ext4"]),
            ("pci:v00008086d000010D3sv0sd0bc02sc00i00", vec!["e1000e"]),
            ("pci:v00008086d00000001sv0sd0bc02sc00i00", vec![]),
            ("crypto-crc32c", vec!["crc32c_generic", "crc32c_intel"]),
            ("usb:v0123p1d7x", vec!["usb_thing"]),
            ("input:b0003-e0,1", vec!["pad"]),
            ("", vec![]),
            ("ä", vec![]),
        ] {
            assert_eq!(tables.modules_for(alias), modules, "{alias}");
        }
    }

    #[test]
    fn options_are_joined() {
        let mut tables = tables();
        tables.add_options("e1000e", &["debug=16".to_owned()]);
        assert_eq!(tables.options("e1000e"), "IntMode=1 debug=2 debug=16");
        assert_eq!(tables.options("ext4"), "");
    }

    #[test]
    fn names_come_from_paths() {
        for (path, name) in
            [("kernel/fs/a-b.ko", "a_b"), ("kernel/fs/a.ko.xz", "a"), ("c.ko.zst\n", "c"), ("kernel/odd", "odd")]
        {
            assert_eq!(name_of_path(path), name);
        }
    }
}
