//! FAT file systems without a kernel driver, by the `lamfat` crate: made and filled in a region of a disk or file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use camino::Utf8Path;
use lamfat::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, StdIoWrapper, Time, TimeProvider};
use rustix::fs::FileType;

use super::tree::Tree;
use crate::system::{Context, EffectError, Region};
use crate::units::Bytes;

/// A part of a file or device as a file of its own.
pub struct Window {
    file: File,
    start: u64,
    length: u64,
    position: u64,
}

impl Window {
    pub fn new(file: File, region: &Region) -> Self {
        Self { file, start: region.offset.0, length: region.length.0, position: 0 }
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.length.saturating_sub(self.position);
        let length = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.file.seek(SeekFrom::Start(self.start + self.position))?;
        let read = self.file.read(&mut buffer[..length])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Window {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let rest = self.length.saturating_sub(self.position);
        let length = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.file.seek(SeekFrom::Start(self.start + self.position))?;
        let written = self.file.write(&buffer[..length])?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// Every file gets the same time, the earliest that FAT knows, so that equal content gives equal bytes.
#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date::new(1980, 1, 1)
    }
    fn get_current_date_time(&self) -> DateTime {
        DateTime::new(self.get_current_date(), Time::new(0, 0, 0, 0))
    }
}

/// Below this a FAT32 would have too few clusters to be one; UEFI firmware reads FAT16 as well.
const FAT32_MIN: Bytes = Bytes::mib(260);

pub fn format(file: File, region: &Region, label: Option<&str>, volume_id: u32) -> Result<(), EffectError> {
    let mut name = *b"NO NAME    ";
    if let Some(label) = label {
        name = [b' '; 11];
        for (place, byte) in name.iter_mut().zip(label.to_ascii_uppercase().bytes()) {
            *place = byte;
        }
    }
    let kind = if region.length < FAT32_MIN { FatType::Fat16 } else { FatType::Fat32 };
    let options = FormatVolumeOptions::new().fat_type(kind).volume_id(volume_id).volume_label(name);
    let mut window = Window::new(file, region);
    // Stale bytes of the region's start must not survive: readers look for signatures there.
    window.write_all(&vec![0; 1 << 20]).context("cannot write the file system")?;
    window.rewind().context("cannot write the file system")?;
    let mut storage = StdIoWrapper::new(window);
    lamfat::format_volume(&mut storage, options).map_err(io::Error::from).context("cannot make a FAT file system")
}

/// Copies the folders and files below `from` into the file system.
pub fn fill(file: File, region: &Region, tree: &Tree, from: &Utf8Path) -> Result<u64, EffectError> {
    let window = Window::new(file, region);
    let options = FsOptions::new().time_provider(FixedTime);
    let system =
        FileSystem::new(window, options).map_err(io::Error::from).context("cannot open the FAT file system")?;
    let copied = {
        let root = system.root_dir();
        copy(&root, tree, from)?
    };
    system.unmount().map_err(io::Error::from).context("cannot finish the FAT file system")?;
    Ok(copied)
}

type FatDir<'a> = lamfat::Dir<'a, StdIoWrapper<Window>, FixedTime, lamfat::LossyOemCpConverter>;

fn copy(into: &FatDir<'_>, tree: &Tree, from: &Utf8Path) -> Result<u64, EffectError> {
    let mut copied = 0;
    for (name, kind) in tree.list(from)? {
        let path = from.join(&name);
        let what = || format!("cannot write {path} to the FAT file system");
        match kind {
            FileType::Directory => {
                let folder = into.create_dir(&name).map_err(io::Error::from).context(what())?;
                copied += copy(&folder, tree, &path)?;
            }
            FileType::RegularFile => {
                let mut made = into.create_file(&name).map_err(io::Error::from).context(what())?;
                made.truncate().map_err(io::Error::from).context(what())?;
                let mut source = BufReader::with_capacity(1 << 20, tree.open_file(&path)?);
                copied += io::copy(&mut source, &mut made).context(what())?;
            }
            _ => return Err(EffectError::new(format!("{path} is neither folder nor file, FAT holds nothing else"))),
        }
    }
    Ok(copied)
}
