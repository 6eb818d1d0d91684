//! Kernel modules: which ones the appliance carries, and the index files its init reads.
//!
//! In: what each module says about itself (`.modinfo`) and the board's lists. Out: the modules with
//! all they depend on, the firmware they name, and `modules.{dep,alias,softdep}` for just these, in
//! the text format of kmod's depmod (man 5 modules.dep). Debian's kernel packages carry no such files:
//! they are made on installation, so they are computed here.
//! Invariant: the result depends on the input alone and is sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use thiserror::Error;

use super::elf::{Elf, ElfError};
use crate::catalogue::ModuleEntry;

/// What a module says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Names of modules whose symbols it uses.
    pub depends: Vec<String>,
    pub aliases: Vec<String>,
    /// Names or aliases to load before it.
    pub soft_before: Vec<String>,
    /// Names or aliases to load after it.
    pub soft_after: Vec<String>,
    /// Files below `lib/firmware/`.
    pub firmware: Vec<String>,
}

impl ModInfo {
    /// Reads the `.modinfo` section: `key=value` texts that end in a zero byte.
    pub fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for entry in section.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()) {
            let Some((key, value)) = entry.split_once('=') else { continue };
            match key {
                "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(normal)),
                "alias" => info.aliases.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                "softdep" => info.add_soft(value),
                _ => {}
            }
        }
        info
    }

    /// Reads a module file that is not compressed.
    pub fn of_module(bytes: &[u8]) -> Result<Self, ElfError> {
        Ok(Self::parse(Elf::parse(bytes)?.section(".modinfo")?.unwrap_or_default()))
    }

    fn add_soft(&mut self, value: &str) {
        let mut list = None;
        for word in value.split_whitespace() {
            match word {
                "pre:" => list = Some(&mut self.soft_before),
                "post:" => list = Some(&mut self.soft_after),
                name => {
                    if let Some(list) = list.as_mut() {
                        list.push(name.to_owned());
                    }
                }
            }
        }
    }
}

/// A module's name as the kernel knows it: `-` and `_` are the same.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of a module file: `kernel/fs/ext4/ext4.ko.xz` is `ext4`.
pub fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = ["", ".xz", ".zst", ".gz"].iter().find_map(|end| file.strip_suffix(&format!(".ko{end}")))?;
    Some(normal(stem))
}

/// All modules of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Index {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    by_alias: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug)]
struct Module {
    path: String,
    info: ModInfo,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ModuleError {
    #[error("the kernel has no module `{name}`, which the board requires")]
    Required { name: String },
    #[error("module `{name}` depends on `{missing}`, which the kernel does not have")]
    Dependency { name: String, missing: String },
    #[error("modules depend on each other in a ring: {0}")]
    Ring(String),
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Paths below `lib/modules/VERSION/`, sorted.
    pub paths: Vec<String>,
    /// Files below `lib/firmware/` that the chosen modules name, sorted.
    pub firmware: Vec<String>,
    /// Entries of the lists that this kernel neither has as a module nor built in, sorted.
    pub absent: Vec<String>,
    names: BTreeSet<String>,
}

impl Index {
    /// `modules` are paths below `lib/modules/VERSION/` with what each says; `builtin` is the text of `modules.builtin`.
    pub fn new(modules: impl IntoIterator<Item = (String, ModInfo)>, builtin: &str) -> Self {
        let modules: BTreeMap<_, _> =
            modules.into_iter().filter_map(|(path, info)| Some((name_of(&path)?, Module { path, info }))).collect();
        let mut by_alias: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, module) in &modules {
            for alias in module.info.aliases.iter().filter(|alias| !alias.contains(['*', '?', '['])) {
                by_alias.entry(normal(alias)).or_default().push(name.clone());
            }
        }
        Self { modules, builtin: builtin.lines().filter_map(name_of).collect(), by_alias }
    }

    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The listed modules with everything they need.
    pub fn select<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a ModuleEntry>,
        required: &[String],
    ) -> Result<Selection, ModuleError> {
        if let Some(name) = required.iter().find(|name| !self.has(name)) {
            return Err(ModuleError::Required { name: name.clone() });
        }
        let mut selection = Selection::default();
        let mut absent = BTreeSet::new();
        for entry in entries {
            let found = self.matches(entry);
            if found.is_empty() && !matches!(entry, ModuleEntry::Name(name) if self.builtin.contains(&normal(name))) {
                absent.insert(String::from(entry.clone()));
            }
            for name in found {
                self.add(name, &mut selection.names)?;
            }
        }
        let chosen = || selection.names.iter().map(|name| &self.modules[name]);
        selection.paths = chosen().map(|module| module.path.clone()).collect();
        selection.paths.sort();
        let firmware: BTreeSet<_> = chosen().flat_map(|module| module.info.firmware.iter().cloned()).collect();
        selection.firmware = firmware.into_iter().collect();
        selection.absent = absent.into_iter().collect();
        Ok(selection)
    }

    fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.modules.contains_key(&name) || self.builtin.contains(&name)
    }

    fn matches(&self, entry: &ModuleEntry) -> Vec<&str> {
        match entry {
            ModuleEntry::Name(name) => {
                self.modules.get_key_value(&normal(name)).map(|(name, _)| name.as_str()).into_iter().collect()
            }
            ModuleEntry::Folder(folder) => {
                let below = format!("kernel/{folder}");
                self.modules
                    .iter()
                    .filter(|(_, module)| module.path.starts_with(&below))
                    .map(|(name, _)| name.as_str())
                    .collect()
            }
        }
    }

    /// Modules that go by a name or an alias, as soft dependencies do.
    fn called(&self, name: &str) -> Vec<&str> {
        let name = normal(name);
        match self.modules.get_key_value(&name) {
            Some((name, _)) => vec![name],
            None => self.by_alias.get(&name).into_iter().flatten().map(String::as_str).collect(),
        }
    }

    fn add(&self, name: &str, chosen: &mut BTreeSet<String>) -> Result<(), ModuleError> {
        if !chosen.insert(name.to_owned()) {
            return Ok(());
        }
        let info = &self.modules[name].info;
        for needed in info.depends.iter().filter(|needed| !self.builtin.contains(*needed)) {
            if !self.modules.contains_key(needed) {
                return Err(ModuleError::Dependency { name: name.to_owned(), missing: needed.clone() });
            }
            self.add(needed, chosen)?;
        }
        for soft in info.soft_before.iter().chain(&info.soft_after).flat_map(|soft| self.called(soft)) {
            self.add(soft, chosen)?;
        }
        Ok(())
    }

    /// Everything `name` needs by symbol, the nearest first, so that loading from the end works.
    fn dependencies(&self, name: &str) -> Result<Vec<&str>, ModuleError> {
        fn visit<'a>(
            index: &'a Index,
            name: &str,
            trail: &mut Vec<String>,
            order: &mut Vec<&'a str>,
        ) -> Result<(), ModuleError> {
            if trail.iter().any(|earlier| earlier == name) {
                trail.push(name.to_owned());
                return Err(ModuleError::Ring(trail.join(" → ")));
            }
            trail.push(name.to_owned());
            for needed in &index.modules[name].info.depends {
                let Some((needed, _)) = index.modules.get_key_value(needed) else { continue };
                visit(index, needed, trail, order)?;
                if !order.contains(&needed.as_str()) {
                    order.push(needed);
                }
            }
            trail.pop();
            Ok(())
        }
        let mut order = Vec::new();
        visit(self, name, &mut Vec::new(), &mut order)?;
        order.reverse();
        Ok(order)
    }

    /// `modules.dep` of a selection: a module's path, a colon, and what it needs, to be loaded from the end. `suffix` is
    /// what the files' names have gained since, such as `.zst`.
    pub fn dep(&self, selection: &Selection, suffix: &str) -> Result<String, ModuleError> {
        let mut text = String::new();
        for path in &selection.paths {
            let name = name_of(path).unwrap_or_default();
            write!(text, "{path}{suffix}:").unwrap();
            for needed in self.dependencies(&name)? {
                write!(text, " {}{suffix}", self.modules[needed].path).unwrap();
            }
            text.push('\n');
        }
        Ok(text)
    }

    /// `modules.alias` of a selection.
    pub fn alias(&self, selection: &Selection) -> String {
        let mut text = String::from("# Aliases extracted from modules themselves.\n");
        for name in &selection.names {
            for alias in &self.modules[name].info.aliases {
                writeln!(text, "alias {alias} {name}").unwrap();
            }
        }
        text
    }

    /// `modules.softdep` of a selection.
    pub fn softdep(&self, selection: &Selection) -> String {
        let mut text = String::from("# Soft dependencies extracted from modules themselves.\n");
        for name in &selection.names {
            let info = &self.modules[name].info;
            let part = |label: &str, list: &[String]| match list.is_empty() {
                true => String::new(),
                false => format!(" {label}: {}", list.join(" ")),
            };
            let parts = part("pre", &info.soft_before) + &part("post", &info.soft_after);
            if !parts.is_empty() {
                writeln!(text, "softdep {name}{parts}").unwrap();
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> ModInfo {
        ModInfo::parse(text.replace('\n', "\0").as_bytes())
    }

    fn kernel() -> Index {
        let modules = [
            ("kernel/fs/ext4/ext4.ko", "depends=mbcache,jbd2\nsoftdep=pre: crc32c\nalias=fs-ext4"),
            ("kernel/fs/mbcache.ko", "depends="),
            ("kernel/fs/jbd2/jbd2.ko", "depends=crc16"),
            ("kernel/lib/crc16.ko", ""),
            ("kernel/crypto/crc32c_generic.ko", "alias=crc32c\nalias=crypto-crc32c"),
            ("kernel/drivers/net/virtio_net.ko", "depends=virtio,net-failover\nalias=virtio:d00000001v*"),
            ("kernel/drivers/net/net_failover.ko", ""),
            ("kernel/drivers/net/tg3.ko", "firmware=tigon/tg3.bin"),
        ];
        Index::new(modules.map(|(path, text)| (path.to_owned(), info(text))), "kernel/drivers/virtio/virtio.ko\n")
    }

    fn names(list: &[&str]) -> Vec<ModuleEntry> {
        list.iter().map(|name| ModuleEntry::from((*name).to_owned())).collect()
    }

    #[test]
    fn a_module_brings_what_it_needs() {
        let kernel = kernel();
        let selection = kernel.select(&names(&["ext4", "virtio-net", "virtio", "zfs"]), &["ext4".into()]).unwrap();
        expect_test::expect![[r#"
            kernel/crypto/crc32c_generic.ko.zst:
            kernel/drivers/net/net_failover.ko.zst:
            kernel/drivers/net/virtio_net.ko.zst: kernel/drivers/net/net_failover.ko.zst
            kernel/fs/ext4/ext4.ko.zst: kernel/fs/jbd2/jbd2.ko.zst kernel/lib/crc16.ko.zst kernel/fs/mbcache.ko.zst
            kernel/fs/jbd2/jbd2.ko.zst: kernel/lib/crc16.ko.zst
            kernel/fs/mbcache.ko.zst:
            kernel/lib/crc16.ko.zst:
        "#]]
        .assert_eq(&kernel.dep(&selection, ".zst").unwrap());
        assert_eq!(selection.absent, ["zfs"]);
        assert_eq!(
            kernel.alias(&selection).lines().skip(1).collect::<Vec<_>>(),
            [
                "alias crc32c crc32c_generic",
                "alias crypto-crc32c crc32c_generic",
                "alias fs-ext4 ext4",
                "alias virtio:d00000001v* virtio_net"
            ]
        );
        assert_eq!(kernel.softdep(&selection).lines().last(), Some("softdep ext4 pre: crc32c"));
    }

    #[test]
    fn a_folder_means_all_in_it() {
        let selection = kernel().select(&names(&["drivers/net/"]), &[]).unwrap();
        assert_eq!(selection.paths.len(), 3);
        assert_eq!(selection.firmware, ["tigon/tg3.bin"]);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let error = kernel().select(&[], &["nvme".into()]).unwrap_err();
        assert_eq!(error, ModuleError::Required { name: "nvme".into() });
        let broken = Index::new([("kernel/a.ko".to_owned(), info("depends=b"))], "");
        let error = broken.select(&names(&["a"]), &[]).unwrap_err();
        assert_eq!(error, ModuleError::Dependency { name: "a".into(), missing: "b".into() });
        let ring = Index::new(
            [("kernel/a.ko".to_owned(), info("depends=b")), ("kernel/b.ko".to_owned(), info("depends=a"))],
            "",
        );
        let selection = ring.select(&names(&["a"]), &[]).unwrap();
        assert_eq!(ring.dep(&selection, "").unwrap_err(), ModuleError::Ring("a → b → a".into()));
    }

    #[test]
    fn files_have_names() {
        for (path, name) in
            [("kernel/a/b-c.ko", Some("b_c")), ("x.ko.xz", Some("x")), ("x.ko.zst", Some("x")), ("modules.dep", None)]
        {
            assert_eq!(name_of(path).as_deref(), name);
        }
    }
}
