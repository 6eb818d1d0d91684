//! A small root file system with the distribution's own tools, in which the boot medium is made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::appliance::libraries;
use castiron_engine::appliance::medium::{self, Workshop};
use castiron_engine::appliance::overlay::{Kind, MERGED, Overlay};
use castiron_engine::catalogue::Board;
use castiron_engine::system::chroot::InTarget;

use super::cache::Cache;
use crate::commands::Report;

/// The bytes of the boot medium.
pub fn make_medium(work: &Workshop, board: &Board, overlay: &Overlay, cache: &Cache) -> Result<Vec<u8>, Report> {
    let scratch = cache.scratch()?;
    let root = Utf8Path::from_path(scratch.path())
        .ok_or_else(|| Report::failure(format!("error: {} is not UTF-8", scratch.path().display())))?;
    furnish(root, work, board, overlay)?;
    for argv in &work.make_grub {
        run(root, work, argv)?;
    }
    if let Some(efi) = &board.efi {
        let program = fs::read(inside(root, medium::EFI_CORE))?;
        fs::write(inside(root, medium::EFI_IMAGE), medium::efi_image(&efi.removable, &program)?)?;
    }
    run(root, work, &work.make_image)?;
    Ok(fs::read(inside(root, medium::IMAGE))?)
}

fn inside(root: &Utf8Path, path: &str) -> Utf8PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn run(root: &Utf8Path, work: &Workshop, argv: &[String]) -> Result<(), Report> {
    let mut target = InTarget::new(root);
    target.env.clone_from(&work.env);
    Ok(target.run(argv, &mut |line| tracing::debug!("{line}"))?)
}

/// Lays the tools and what they work on.
fn furnish(root: &Utf8Path, work: &Workshop, board: &Board, overlay: &Overlay) -> Result<(), Report> {
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for name in ["dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    let mut paths: BTreeSet<String> = libraries::closure(overlay, medium::PROGRAMS, &board.multiarch)?;
    paths.extend(work.folders.iter().flat_map(|folder| overlay.below(folder)).map(|(path, _)| path.to_owned()));
    for path in paths {
        let found = overlay.get(&path)?;
        for (link, item) in &found.links {
            if let Kind::Link { target } = &item.kind {
                let link = inside(root, link);
                make_parent(link.as_std_path())?;
                if link.symlink_metadata().is_err() {
                    symlink(target, link)?;
                }
            }
        }
        let place = inside(root, &found.path);
        make_parent(place.as_std_path())?;
        fs::copy(&found.item.host, place)?;
    }
    for (path, content) in &work.files {
        let path = inside(root, path);
        make_parent(path.as_std_path())?;
        fs::write(path, content)?;
    }
    Ok(())
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}
