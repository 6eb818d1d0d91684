//! The door: carries out effects on this machine. One arm for each effect; the work is in the files below.

#![allow(clippy::disallowed_methods, reason = "this is the door; programs are started here and nowhere else")]

mod disk;
mod efivars;
mod exec;
mod fat;
mod grub;
mod loopdev;
mod packages;
mod tree;

use std::fs::OpenOptions;

use camino::{Utf8Path, Utf8PathBuf};
use sys_mount::{MountFlags, UnmountFlags};

use super::door::{Context, EffectError, OnProgress, System};
use super::unpack::Unpacked;
use super::{Bindings, Region, Toolbox};
use crate::fetch::Fetcher;
use crate::plan::Effect;
use crate::spec::Secrets;
use crate::units::{Bytes, NodeId};

use tree::Tree;

/// Everything an effect may need that is not in the plan.
pub struct Linux<'a> {
    pub toolbox: Toolbox,
    pub fetcher: &'a Fetcher,
    pub secrets: Secrets,
    /// Where the last lines of programs go, for the log.
    pub on_line: Box<dyn FnMut(&str) + 'a>,
    unpacked: Vec<Unpacked>,
}

impl<'a> Linux<'a> {
    pub fn new(toolbox: Toolbox, fetcher: &'a Fetcher, secrets: Secrets, on_line: impl FnMut(&str) + 'a) -> Self {
        Self { toolbox, fetcher, secrets, on_line: Box::new(on_line), unpacked: Vec::new() }
    }
}

const EFIVARS: &str = "/sys/firmware/efi/efivars";

impl System for Linux<'_> {
    fn perform(
        &mut self,
        effect: &Effect,
        bindings: &Bindings,
        progress: &mut OnProgress<'_>,
    ) -> Result<Vec<(NodeId, Region)>, EffectError> {
        match effect {
            Effect::Verify { disk, identity } => return Ok(vec![(disk.clone(), disk::verify(identity)?)]),
            Effect::CreateFile { disk, path, size } => {
                return Ok(vec![(disk.clone(), create_file(path, *size)?)]);
            }
            Effect::ScanPartitions { disk, partitions } => {
                return disk::partitions(bound(bindings, disk)?, partitions);
            }
            Effect::RemoveFile { path } => tree::remove_own_file(path)?,
            Effect::Wipe { disk, wipe } => disk::wipe(bound(bindings, disk)?, *wipe, progress)?,
            Effect::WriteSectors { node, pieces, .. } => disk::write(bound(bindings, node)?, pieces)?,
            Effect::ClearTable { disk } => disk::clear_table(bound(bindings, disk)?)?,
            Effect::FormatFat { node, label, volume_id, sector_size } => {
                let region = bound(bindings, node)?;
                fat::format(disk::open(region)?, region, label.as_deref(), *volume_id, *sector_size)?;
            }
            Effect::Mount { node, kind, at, options } => mount(bound(bindings, node)?, kind.name(), at, options)?,
            Effect::Unmount { at } => unmount(at)?,
            Effect::MakeDirectory { root, path, mode } => Tree::open(root)?.make_folder(path, *mode)?,
            Effect::WriteFile { root, file } => Tree::open(root)?.write(file, &self.secrets)?,
            Effect::RemoveTargetFile { root, path } => Tree::open(root)?.remove_file(path)?,
            Effect::Symlink { root, path, to } => Tree::open(root)?.symlink(path, to)?,
            Effect::CopyFolder { root, from, to } => Tree::open(root)?.copy_folder(from, to)?,
            Effect::Unpack { root, packages } => self.unpack(root, packages, progress)?,
            Effect::Configure { root, packages, debconf } => self.configure(root, packages, debconf, progress)?,
            Effect::Exec(cmd) => self.exec(cmd, bindings)?,
            Effect::GrubConfig(config) => {
                grub::write_menu(&Tree::open(&config.root)?, config)?;
            }
            Effect::FillFat { node, root, from } => {
                let region = bound(bindings, node)?;
                let tree = Tree::open(root)?;
                let file = disk::open(region)?;
                let synced = file.try_clone().context("cannot hold the disk open")?;
                fat::fill(file, region, &tree, from)?;
                synced.sync_all().context("cannot write out the FAT file system")?;
                tree.empty_folder(from)?;
            }
            Effect::EmbedGrub { disk, root, boot_image, core_image, place } => {
                let tree = Tree::open(root)?;
                let (boot, core) = (grub::image(&tree, boot_image)?, grub::image(&tree, core_image)?);
                grub::embed(&disk::open(bound(bindings, disk)?)?, &boot, &core, place)?;
            }
            Effect::BootEntry(entry) => {
                if !show_efivars() || !efivars::set(Utf8Path::new(EFIVARS).as_std_path(), entry)? {
                    (self.on_line)(
                        "this machine was not started by UEFI: no boot entry is written, the removable path serves",
                    );
                }
            }
            Effect::KeepKernel { root, kernels, to } => grub::keep_kernel(&Tree::open(root)?, kernels, to)?,
            Effect::Sync { root } => Tree::open(root)?.sync()?,
        }
        Ok(Vec::new())
    }
}

/// The driver may have been loaded after the early mounts. False where the firmware gives no variables.
fn show_efivars() -> bool {
    let folder = Utf8Path::new(EFIVARS);
    let shown = || folder.read_dir_utf8().is_ok_and(|mut entries| entries.next().is_some());
    if folder.is_dir() && !shown() {
        let mounted = sys_mount::Mount::builder().fstype("efivarfs").mount("efivarfs", folder);
        if let Err(error) = mounted {
            tracing::warn!("cannot mount efivarfs: {error}");
        }
    }
    shown()
}

fn bound<'a>(bindings: &'a Bindings, node: &NodeId) -> Result<&'a Region, EffectError> {
    bindings.region(node).ok_or_else(|| EffectError::new(format!("`{node}` is used before it is made")))
}

fn create_file(path: &Utf8Path, size: Bytes) -> Result<Region, EffectError> {
    let what = || format!("cannot create {path}");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).context(what())?;
    file.set_len(size.0).context(what())?;
    Ok(Region { path: path.to_owned(), offset: Bytes::ZERO, length: size })
}

/// A region of a file is mounted by way of a loop device that goes away with the mount.
fn mount(region: &Region, kind: &str, at: &Utf8Path, options: &[String]) -> Result<(), EffectError> {
    let what = || format!("cannot mount {} at {at}", region.path);
    std::fs::create_dir_all(at).context(what())?;
    let (device, _attached) = device(region)?;
    let (flags, data) = mount_flags(options);
    let mounted = sys_mount::Mount::builder().fstype(kind).flags(flags).data(&data).mount(&device, at);
    mounted.map(drop).context(what())
}

/// The device node for a region, and what keeps it there.
fn device(region: &Region) -> Result<(Utf8PathBuf, Option<loopdev::Loop>), EffectError> {
    let whole_device = region.offset == Bytes::ZERO && region.path.starts_with("/dev");
    if whole_device {
        return Ok((region.path.clone(), None));
    }
    let attached = loopdev::attach(region)?;
    Ok((attached.path.clone(), Some(attached)))
}

/// mount(8)'s names for flags; everything else is the file system's own.
fn mount_flags(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodev" => flags |= MountFlags::NODEV,
            "nosuid" => flags |= MountFlags::NOSUID,
            "noexec" => flags |= MountFlags::NOEXEC,
            "defaults" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

fn unmount(at: &Utf8Path) -> Result<(), EffectError> {
    sys_mount::unmount(at, UnmountFlags::empty())
        .context(format!("cannot unmount {at}"))
        .map_err(|error| error.with_hint("a program of the target may still hold it open"))
}
