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

pub fn format(
    file: File,
    region: &Region,
    label: Option<&str>,
    volume_id: u32,
    sector_size: Bytes,
) -> Result<(), EffectError> {
    let bytes_per_sector =
        u16::try_from(sector_size.0).map_err(|_| EffectError::new(format!("FAT has no sectors of {sector_size}")))?;
    let mut name = *b"NO NAME    ";
    if let Some(label) = label {
        name = [b' '; 11];
        for (place, byte) in name.iter_mut().zip(label.to_ascii_uppercase().bytes()) {
            *place = byte;
        }
    }
    let options = FormatVolumeOptions::new().bytes_per_sector(bytes_per_sector);
    let options = options.volume_id(volume_id).volume_label(name);
    // Below it is FAT16, or FAT12 where there are too few clusters for that.
    let options = if region.length < FAT32_MIN { options } else { options.fat_type(FatType::Fat32) };
    let mut window = Window::new(file, region);
    // Stale bytes of the region's start must not survive: readers look for signatures there.
    window.write_all(&vec![0; region.length.0.min(1 << 20) as usize]).context("cannot write the file system")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(length: Bytes, sector: u64) -> (File, Region) {
        let file = tempfile::tempfile().unwrap();
        let offset = Bytes::mib(1);
        file.set_len(offset.0 + length.0).unwrap();
        let region = Region { path: "unused".into(), offset, length };
        format(file.try_clone().unwrap(), &region, Some("esp"), 0x1234_5678, Bytes(sector)).unwrap();
        (file, region)
    }

    /// Every size that `resolve` lets through, on both kinds of sectors; kernels refuse a FAT whose sectors are
    /// smaller than the drive's.
    #[test]
    fn a_fat_counts_in_the_sectors_of_its_disk() {
        for sector in [512, 4096] {
            for mib in [1, 2, 3, 4, 5, 8, 16, 17, 32, 64, 128, 256, 259, 260, 300, 512, 1024] {
                let (file, region) = formatted(Bytes::mib(mib), sector);
                let mut window = Window::new(file.try_clone().unwrap(), &region);
                let mut boot = [0; 512];
                window.read_exact(&mut boot).unwrap();
                assert_eq!(u64::from(u16::from_le_bytes([boot[11], boot[12]])), sector, "{mib} MiB");
                let system = FileSystem::new(Window::new(file, &region), FsOptions::new()).unwrap();
                let expected = match (mib, sector) {
                    (260.., _) => FatType::Fat32,
                    (..5, 512) | (..16, 4096) => FatType::Fat12,
                    _ => FatType::Fat16,
                };
                assert_eq!(system.fat_type(), expected, "{mib} MiB, sectors of {sector}");
                assert_eq!(system.volume_id(), 0x1234_5678);
                system.root_dir().create_file("a").unwrap().write_all(&[7; 9000]).unwrap();
            }
        }
    }

    #[test]
    fn a_fat_is_filled_with_the_files_of_a_folder() {
        let (file, region) = formatted(Bytes::mib(128), 4096);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("efi/EFI/BOOT")).unwrap();
        std::fs::write(folder.path().join("efi/EFI/BOOT/BOOTX64.EFI"), vec![9; 100_000]).unwrap();
        let tree = Tree::open(Utf8Path::from_path(folder.path()).unwrap()).unwrap();
        assert_eq!(fill(file.try_clone().unwrap(), &region, &tree, Utf8Path::new("/efi")).unwrap(), 100_000);
        let system = FileSystem::new(Window::new(file, &region), FsOptions::new()).unwrap();
        let mut read = Vec::new();
        system.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, vec![9; 100_000]);
    }
}
