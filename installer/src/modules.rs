//! Kernel modules: what devices ask for is loaded, with all it needs, however often it is asked for.
//!
//! In: `/lib/modules/RELEASE`, `/etc/modprobe.d`, device aliases below `/sys/devices`. Out: modules in the kernel.
//! Invariant: a module that cannot be loaded is reported once and never stops the boot.

pub mod pattern;
pub mod tables;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use castiron_engine::units::Bytes;
use thiserror::Error;

use crate::cmdline::{Boot, module_name};
use tables::{Load, Tables};

/// `MODULE_INIT_COMPRESSED_FILE` of `finit_module(2)`, since Linux 5.17.
const COMPRESSED_FILE: libc::c_int = 4;
/// No module is near this size; a damaged file must not eat the memory.
const MODULE_SIZE_MAX: Bytes = Bytes::mib(256);
/// Drivers wait for their devices while they load; this many may do so side by side.
const LOADERS: usize = 4;

#[derive(Debug, Error)]
pub enum ModuleError {
    #[error("there is no module or alias `{name}` below {folder}")]
    Unknown { name: String, folder: PathBuf },
    #[error("cannot read module {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot load module {path}")]
    Insert { path: PathBuf, source: io::Error },
}

impl ModuleError {
    /// A driver that finds nothing of its kind on this machine.
    pub fn is_no_device(&self) -> bool {
        matches!(self, Self::Insert { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
    }
}

/// Loads modules of one kernel. Shared by the walk over present devices and the listener for new ones.
pub struct Loader {
    folder: PathBuf,
    sysfs: PathBuf,
    tables: Tables,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    aliases: BTreeSet<String>,
    modules: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Drivers of present devices whose files this appliance does not carry.
    absent: BTreeSet<String>,
}

impl Loader {
    /// Reads the tables below `root`; a missing one is an empty one. What the command line says comes last and wins.
    pub fn open(root: &Path, release: &str, boot: &Boot) -> Self {
        let folder = root.join("lib/modules").join(release);
        let text = |name: &str| fs::read(folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut tables = Tables::default();
        tables.add_dependencies(&text("modules.dep").unwrap_or_default());
        tables.add_builtin(&text("modules.builtin").unwrap_or_default());
        for name in ["modules.alias", "modules.softdep"] {
            tables.add_directives(&text(name).unwrap_or_default());
        }
        for file in ["lib/modprobe.d", "etc/modprobe.d"].iter().flat_map(|folder| files_in(&root.join(folder))) {
            tables.add_directives(&fs::read_to_string(file).unwrap_or_default());
        }
        tables.blacklist(boot.module_blacklist.iter().cloned());
        for (module, options) in &boot.module_parameters {
            tables.add_options(module, options);
        }
        Self { folder, sysfs: root.join("sys"), tables, done: Mutex::default() }
    }

    /// Whether this system has modules at all; a kernel with everything built in needs none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Loads a module by name or alias, black list or not, because somebody asked for it by name.
    pub fn load(&self, name: &str) -> Result<(), ModuleError> {
        let name = module_name(name);
        if self.tables.is_builtin(&name) || self.is_present(&name) {
            return Ok(());
        }
        let names = match self.tables.knows(&name) {
            true => vec![name.as_str()],
            false => self.tables.modules_for(&name),
        };
        if names.is_empty() {
            return Err(ModuleError::Unknown { name, folder: self.folder.clone() });
        }
        names.into_iter().try_for_each(|name| self.load_known(name))
    }

    /// Loads what `aliases` ask for, each alias once in the life of this loader. Failures are logged.
    pub fn load_for(&self, aliases: impl IntoIterator<Item = String>) -> usize {
        let new: Vec<String> = {
            let mut done = self.done();
            aliases.into_iter().filter(|alias| done.aliases.insert(alias.clone())).collect()
        };
        let mut modules: Vec<&str> = Vec::new();
        for module in new.iter().flat_map(|alias| self.tables.modules_for(alias)) {
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(module) = modules.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.load_known(module) {
                    self.report(module, &error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..LOADERS.min(modules.len()) {
                scope.spawn(work);
            }
            work();
        });
        modules.len()
    }

    /// One walk over all devices; true when it met aliases not seen before.
    pub fn cold_plug(&self) -> bool {
        let mut aliases = Vec::new();
        collect_aliases(&self.sysfs.join("devices"), &mut aliases);
        let before = self.done().aliases.len();
        self.load_for(aliases);
        self.done().aliases.len() > before
    }

    /// Names of all modules this loader has loaded, in alphabetical order.
    pub fn loaded(&self) -> Vec<String> {
        self.done().modules.iter().cloned().collect()
    }

    fn load_known(&self, name: &str) -> Result<(), ModuleError> {
        for load in self.tables.load_order(name) {
            if self.done().modules.contains(&load.name) || self.is_present(&load.name) {
                continue;
            }
            match self.insert(&load) {
                Ok(()) => {
                    tracing::debug!("module {} loaded", load.name);
                    self.done().modules.insert(load.name);
                }
                Err(error) if load.required => return Err(error),
                Err(error) => self.report(&load.name, &error),
            }
        }
        Ok(())
    }

    /// Modules that devices asked for and that are not on board.
    pub fn absent(&self) -> Vec<String> {
        self.done().absent.iter().cloned().collect()
    }

    fn report(&self, module: &str, error: &ModuleError) {
        let mut done = self.done();
        if done.failed.insert(module.to_owned()) {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            match error {
                // Common for aliases of platforms.
                error if error.is_no_device() => tracing::debug!("module {module}: no device"),
                ModuleError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    done.absent.insert(module.to_owned());
                }
                _ => tracing::warn!("{error}: {cause}"),
            }
        }
    }

    fn is_present(&self, name: &str) -> bool {
        let folder = self.sysfs.join("module").join(name);
        match fs::read_to_string(folder.join("initstate")) {
            Ok(state) => state.trim() == "live",
            // Built in, or not there.
            Err(_) => self.tables.is_builtin(name) && folder.exists(),
        }
    }

    fn insert(&self, load: &Load) -> Result<(), ModuleError> {
        let path = self.folder.join(&load.path);
        let file = File::open(&path).map_err(|source| ModuleError::Read { path: path.clone(), source })?;
        let options = CString::new(self.tables.options(&load.name)).unwrap_or_default();
        let compressed = Compression::of(&load.path);
        let flags = if compressed == Compression::None { 0 } else { COMPRESSED_FILE };
        let result = match rustix::system::finit_module(&file, &options, flags) {
            Err(cause) if flags != 0 && cause != rustix::io::Errno::EXIST => {
                // This kernel cannot unpack it (or cannot load it at all, which the second attempt will say).
                let image =
                    compressed.unpack(&file).map_err(|source| ModuleError::Read { path: path.clone(), source })?;
                rustix::system::init_module(&image, &options)
            }
            result => result,
        };
        match result {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(cause) => Err(ModuleError::Insert { path, source: cause.into() }),
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Xz,
    Zstd,
}

impl Compression {
    fn of(path: &str) -> Self {
        match path.rsplit('.').next() {
            Some("xz") => Self::Xz,
            Some("zst") => Self::Zstd,
            _ => Self::None,
        }
    }

    fn unpack(self, file: &File) -> io::Result<Vec<u8>> {
        let mut image = Vec::new();
        let limit = MODULE_SIZE_MAX.0 + 1;
        match self {
            Self::None => file.take(limit).read_to_end(&mut image)?,
            Self::Xz => liblzma::read::XzDecoder::new(file).take(limit).read_to_end(&mut image)?,
            Self::Zstd => zstd::Decoder::new(file)?.take(limit).read_to_end(&mut image)?,
        };
        if image.len() as u64 > MODULE_SIZE_MAX.0 {
            return Err(io::Error::other(format!("it unpacks to more than {MODULE_SIZE_MAX}")));
        }
        Ok(image)
    }
}

/// The aliases of all devices below `folder`; links are not followed.
fn collect_aliases(folder: &Path, aliases: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_aliases(&entry.path(), aliases);
        } else if kind.is_file() && entry.file_name() == "modalias" {
            let alias = fs::read_to_string(entry.path()).unwrap_or_default();
            aliases.extend(Some(alias.trim().to_owned()).filter(|alias| !alias.is_empty()));
        }
    }
}

/// Files of a folder in the order of their names; none where there is no folder.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// Names in a list such as `/etc/castiron/modules-load`: one a line, `#` begins a comment (modules-load.d(5)).
pub fn parse_list(text: &str) -> Vec<String> {
    let names = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default().trim());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Firmware files that drivers asked for and did not get, from the kernel's log: driver's device and file.
pub fn missing_firmware(kernel_log: &str) -> BTreeSet<(String, String)> {
    const MARK: &str = "Direct firmware load for ";
    kernel_log
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(MARK)?;
            let (file, _) = after.split_once(" failed with error")?;
            let device = before.rsplit("] ").next().unwrap_or_default();
            Some((device.trim_end_matches([' ', ':']).to_owned(), file.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn devices_are_walked_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("pci0000:00/0000:00:03.0");
        fs::create_dir_all(device.join("virtio0")).unwrap();
        fs::write(device.join("modalias"), "pci:v00001AF4\n").unwrap();
        fs::write(device.join("virtio0/modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        fs::write(root.path().join("modalias"), "\n").unwrap();
        std::os::unix::fs::symlink(root.path(), device.join("subsystem")).unwrap();
        let mut aliases = Vec::new();
        collect_aliases(root.path(), &mut aliases);
        aliases.sort();
        assert_eq!(aliases, ["pci:v00001AF4", "virtio:d00000001v00001AF4"]);
    }

    #[test]
    fn compressed_modules_are_unpacked() {
        let image = b"\x7fELF module".repeat(500);
        let unpack = |path: &str, bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            Compression::of(path).unpack(&file)
        };
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&image).unwrap();
        assert_eq!(unpack("a.ko", &image).unwrap(), image);
        assert_eq!(unpack("a.ko.xz", &xz.finish().unwrap()).unwrap(), image);
        assert_eq!(unpack("a.ko.zst", &zstd::encode_all(&image[..], 1).unwrap()).unwrap(), image);
        assert!(unpack("a.ko.zst", b"damaged").is_err());
    }

    #[test]
    fn missing_firmware_is_found_in_the_kernels_log() {
        let log = "<6>[    1.5] e100: Intel\n\
            <4>[    2.123456] tg3 0000:02:00.0: Direct firmware load for tigon/tg3_tso.bin failed with error -2\n\
            <3>[    2.2] bnx2 0000:03:00.0: firmware: failed to load bnx2/x.fw (-2)\n";
        let expected = ("tg3 0000:02:00.0".to_owned(), "tigon/tg3_tso.bin".to_owned());
        assert_eq!(missing_firmware(log).into_iter().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn lists_have_comments() {
        assert_eq!(parse_list("# board\next4\n vfat # boot\n\n"), ["ext4", "vfat"]);
    }

    #[test]
    fn an_unknown_module_is_named() {
        let root = tempfile::tempdir().unwrap();
        let loader = Loader::open(root.path(), "6.1.0", &Boot::default());
        let error = loader.load("warp-drive").unwrap_err().to_string();
        assert!(error.starts_with("there is no module or alias `warp_drive` below "), "{error}");
        assert!(loader.is_empty());
    }
}
