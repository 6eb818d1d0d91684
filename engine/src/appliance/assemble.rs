//! The whole appliance but for the boot medium, which needs programs to be run.
//!
//! In: a [`Request`]. Out: the files to boot from, by name, and the manifest of what is in them.

use std::io;

use thiserror::Error;

use super::contents::{self, Compress, ContentsError, Layer, Own, Program};
use super::manifest::{self, Manifest, Output, Totals};
use super::overlay::{Overlay, OverlayError};
use super::texts;
use super::uki::{self, Section, UkiError};
use crate::catalogue::Board;
use crate::units::Bytes;

pub const KERNEL: &str = "vmlinuz";
pub const INITRAMFS: &str = "initramfs.img";
pub const UKI: &str = "castiron.efi";
pub const IPXE: &str = "boot.ipxe";
pub const ISO: &str = "castiron.iso";
pub const MANIFEST: &str = "manifest.json";

/// What to build.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub board: &'a Board,
    pub overlay: &'a Overlay,
    /// The programs that plans can call.
    pub programs: &'a [Program],
    pub own: Own<'a>,
    /// Words for the kernel command line behind the board's.
    pub cmdline: &'a [String],
    /// The version of castiron.
    pub version: &'a str,
}

#[derive(Debug, Error)]
pub enum AssembleError {
    #[error(transparent)]
    Contents(#[from] ContentsError),
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error("cannot pack the initramfs")]
    Pack(#[from] io::Error),
    #[error("cannot make the unified kernel image")]
    Uki(#[from] UkiError),
    #[error("the date {0} cannot be written into an initramfs (1970 to 2106)")]
    Date(i64),
}

/// The files to boot from, in the order they are written, and what is in them.
#[derive(Clone, Debug)]
pub struct Appliance {
    pub files: Vec<(String, Vec<u8>)>,
    pub cmdline: String,
    pub manifest: Manifest,
}

impl Appliance {
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(known, _)| known == name).map(|(_, content)| content.as_slice())
    }

    /// Adds a file, and its line in the manifest.
    pub fn add(&mut self, name: &str, content: Vec<u8>) {
        self.manifest.outputs.push(Output::new(name, &content));
        self.files.push((name.to_owned(), content));
    }
}

/// Builds. `compress_file` packs one module, `compress_layer` an archive of many files.
pub fn assemble(
    request: &Request,
    compress_file: Compress,
    compress_layer: Compress,
) -> Result<Appliance, AssembleError> {
    let Request { board, overlay, own, .. } = request;
    let date = u32::try_from(own.date).map_err(|_| AssembleError::Date(own.date))?;
    let release = contents::kernel_release(overlay)?;
    let (modules, report) = contents::modules(overlay, board, &release, compress_file)?;
    let tools = contents::tools(overlay, request.programs, &board.multiarch)?;
    let own_files = contents::own(overlay, board, own)?;
    let kernel = overlay.get(&format!("boot/vmlinuz-{release}"))?;
    let cmdline = [board.cmdline(), request.cmdline.to_vec()].concat().join(" ");

    // Links such as `lib` come with the own files and must be there before anything below them, so these go first.
    let layers: [&Layer; 3] = [&own_files, &modules, &tools];
    let initramfs = [
        compress_layer(&own_files.archive.to_newc(date)?)?,
        modules.archive.to_newc(date)?, // its files are packed already, and unpacking it again would cost time
        compress_layer(&tools.archive.to_newc(date)?)?,
    ];
    let initramfs = join(&initramfs);

    let mut used = vec![kernel.item.package];
    let mut appliance = Appliance {
        files: Vec::new(),
        cmdline: cmdline.clone(),
        manifest: Manifest {
            schema: 1,
            castiron: request.version.to_owned(),
            board: board.name.clone(),
            arch: board.arch.clone(),
            kernel: release.clone(),
            cmdline: cmdline.clone(),
            date: own.date,
            totals: Totals::default(),
            outputs: Vec::new(),
            packages: Vec::new(),
            files: manifest::files(overlay, &layers),
            absent_modules: report.absent,
            missing_firmware: report.missing_firmware,
        },
    };
    let vmlinuz = kernel.item.read()?;
    if let Some(efi) = &board.efi {
        let stub = overlay.get(&efi.stub.path)?.item;
        used.push(stub.package);
        let day =
            jiff::Timestamp::from_second(own.date).map(|time| time.strftime("%Y%m%d").to_string()).unwrap_or_default();
        let os_release = texts::os_release(request.version, &day, &release);
        // The kernel last: newer stubs unpack it in place, beyond its end.
        let sections = [
            Section { name: ".osrel", content: os_release.as_bytes() },
            Section { name: ".cmdline", content: cmdline.as_bytes() },
            Section { name: ".uname", content: release.as_bytes() },
            Section { name: ".initrd", content: &initramfs },
            Section { name: ".linux", content: &vmlinuz },
        ];
        let image = uki::assemble(&stub.read()?, &sections)?;
        appliance.add(UKI, image);
    }
    appliance.manifest.totals = Totals {
        packages: 0,
        files: appliance.manifest.files.len(),
        modules: report.modules,
        unpacked: Bytes(layers.iter().map(|layer| layer.content_bytes()).sum()),
        packed: Bytes(initramfs.len() as u64),
    };
    appliance.manifest.packages = manifest::packages(overlay, &layers, &used);
    appliance.manifest.totals.packages = appliance.manifest.packages.len();
    appliance.add(KERNEL, vmlinuz);
    appliance.add(INITRAMFS, initramfs);
    appliance.add(IPXE, texts::ipxe(KERNEL, INITRAMFS, &cmdline).into_bytes());
    Ok(appliance)
}

/// Archives one after the other, each on a multiple of four bytes, as the kernel wants those that are not compressed.
fn join(archives: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(archives.iter().map(|archive| archive.len() + 4).sum());
    for archive in archives {
        joined.resize(joined.len().next_multiple_of(4), 0);
        joined.extend_from_slice(archive);
    }
    joined.resize(joined.len().next_multiple_of(4), 0);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_joined_at_words() {
        assert_eq!(join(&[vec![1; 3], vec![2; 4]]), [1, 1, 1, 0, 2, 2, 2, 2]);
    }
}
