//! Unified kernel images: a stub program with kernel, initramfs and command line in PE sections.
//!
//! In: the stub's bytes and the sections. Out: one EFI program. UAPI.5 (Unified Kernel Image); Microsoft
//! PE/COFF specification, chapters 3 and 4.
//! Invariant: the stub's own sections stay at their addresses and are only moved inside the file.

use thiserror::Error;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UkiError {
    #[error("the stub is not a PE32+ program")]
    NotPe,
    #[error("the stub's headers leave no room for {0} more sections")]
    NoRoom(usize),
    #[error("the stub is signed; sections cannot be added to a signed program")]
    Signed,
    #[error("the image would be larger than 4 GiB")]
    TooLarge,
    #[error("`{0}` is no section name: eight bytes at most")]
    Name(String),
}

/// A section to add.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    pub name: &'a str,
    pub content: &'a [u8],
}

const SECTION_HEADER: usize = 40;
const READABLE_DATA: u32 = 0x4000_0040; // IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ

/// Offsets below the optional header (PE32+).
mod optional {
    pub const SIZE_OF_INITIALIZED_DATA: usize = 8;
    pub const SECTION_ALIGNMENT: usize = 32;
    pub const FILE_ALIGNMENT: usize = 36;
    pub const SIZE_OF_IMAGE: usize = 56;
    pub const SIZE_OF_HEADERS: usize = 60;
    pub const CHECKSUM: usize = 64;
    pub const CERTIFICATES: usize = 112 + 4 * 8;
    pub const DEBUG: usize = 112 + 6 * 8;
}

/// Appends the sections to the stub, in their order.
pub fn assemble(stub: &[u8], sections: &[Section]) -> Result<Vec<u8>, UkiError> {
    let pe = read_u32(stub, 0x3c)? as usize;
    let coff = pe + 4;
    let opt = coff + 20;
    if stub.get(..2) != Some(b"MZ") || stub.get(pe..coff) != Some(b"PE\0\0") || read_u16(stub, opt)? != 0x20b {
        return Err(UkiError::NotPe);
    }
    if read_u32(stub, opt + optional::CERTIFICATES + 4)? != 0 {
        return Err(UkiError::Signed);
    }
    let old_count = usize::from(read_u16(stub, coff + 2)?);
    let table = opt + usize::from(read_u16(stub, coff + 16)?);
    let file_alignment = read_u32(stub, opt + optional::FILE_ALIGNMENT)?.max(1);
    let alignment = read_u32(stub, opt + optional::SECTION_ALIGNMENT)?.max(1);
    let old_headers = read_u32(stub, opt + optional::SIZE_OF_HEADERS)?;
    let old: Vec<usize> = (0..old_count).map(|index| table + index * SECTION_HEADER).collect();

    let table_end = table + (old_count + sections.len()) * SECTION_HEADER;
    let headers = old_headers.max(up(table_end as u32, file_alignment)?);
    let shift = headers - old_headers;
    let first_address =
        old.iter().map(|at| read_u32(stub, at + 12)).try_fold(u32::MAX, |low, at| at.map(|at| low.min(at)))?;
    if headers > first_address || (shift > 0 && read_u32(stub, opt + optional::DEBUG + 4)? != 0) {
        return Err(UkiError::NoRoom(sections.len()));
    }

    // Headers, the stub's own sections moved by `shift`, nothing of a symbol table behind them.
    let table_of_old = table + old_count * SECTION_HEADER;
    let mut image = stub.get(..table_of_old).ok_or(UkiError::NotPe)?.to_vec();
    image.resize(headers as usize, 0);
    let mut next_address = 0;
    let mut added_data: u32 = 0;
    for at in &old {
        let (size, address) = (read_u32(stub, at + 8)?, read_u32(stub, at + 12)?);
        let (raw_size, raw_at) = (read_u32(stub, at + 16)?, read_u32(stub, at + 20)?);
        next_address = next_address.max(up(sum(address, size.max(raw_size))?, alignment)?);
        if raw_size > 0 {
            let raw = stub.get(raw_at as usize..sum(raw_at, raw_size)? as usize).ok_or(UkiError::NotPe)?;
            let moved = sum(raw_at, shift)?;
            let end = sum(moved, raw_size)? as usize;
            image.resize(image.len().max(end), 0);
            image[moved as usize..end].copy_from_slice(raw);
            write_u32(&mut image, at + 20, moved);
        }
    }
    for (index, section) in sections.iter().enumerate() {
        let mut name = [0; 8];
        name.get_mut(..section.name.len())
            .ok_or_else(|| UkiError::Name(section.name.to_owned()))?
            .copy_from_slice(section.name.as_bytes());
        let size = u32::try_from(section.content.len()).map_err(|_| UkiError::TooLarge)?;
        let raw_at = up(u32::try_from(image.len()).map_err(|_| UkiError::TooLarge)?, file_alignment)?;
        let raw_size = up(size, file_alignment)?;
        let end = sum(raw_at, raw_size)? as usize;
        image.resize(raw_at as usize, 0);
        image.extend_from_slice(section.content);
        image.resize(end, 0);
        let at = table_of_old + index * SECTION_HEADER;
        image[at..at + 8].copy_from_slice(&name);
        for (field, value) in [(8, size), (12, next_address), (16, raw_size), (20, raw_at), (36, READABLE_DATA)] {
            write_u32(&mut image, at + field, value);
        }
        next_address = up(sum(next_address, size)?, alignment)?;
        added_data = sum(added_data, raw_size)?;
    }

    image[coff + 2..coff + 4].copy_from_slice(&((old_count + sections.len()) as u16).to_le_bytes());
    write_u32(&mut image, coff + 8, 0); // the symbol table was left behind
    write_u32(&mut image, coff + 12, 0);
    let data = sum(read_u32(stub, opt + optional::SIZE_OF_INITIALIZED_DATA)?, added_data)?;
    write_u32(&mut image, opt + optional::SIZE_OF_INITIALIZED_DATA, data);
    write_u32(&mut image, opt + optional::SIZE_OF_IMAGE, next_address);
    write_u32(&mut image, opt + optional::SIZE_OF_HEADERS, headers);
    write_u32(&mut image, opt + optional::CHECKSUM, 0);
    let checksum = checksum(&image);
    write_u32(&mut image, opt + optional::CHECKSUM, checksum);
    Ok(image)
}

/// The PE checksum: 16-bit words added with end-around carry, plus the length; the field itself must be zero.
fn checksum(image: &[u8]) -> u32 {
    let mut total: u64 = 0;
    for pair in image.chunks(2) {
        total += u64::from(u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u32 + image.len() as u32
}

fn up(value: u32, unit: u32) -> Result<u32, UkiError> {
    value.checked_next_multiple_of(unit).ok_or(UkiError::TooLarge)
}

fn sum(a: u32, b: u32) -> Result<u32, UkiError> {
    a.checked_add(b).ok_or(UkiError::TooLarge)
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u16, UkiError> {
    bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]])).ok_or(UkiError::NotPe)
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, UkiError> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).ok_or(UkiError::NotPe)
}

fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE32+ program with one section of 0x300 bytes at 0x1000.
    fn stub(size_of_headers: u32) -> Vec<u8> {
        let mut stub = vec![0; size_of_headers as usize];
        stub[..2].copy_from_slice(b"MZ");
        stub[0x3c] = 0x40;
        stub[0x40..0x44].copy_from_slice(b"PE\0\0");
        stub[0x46] = 1; // sections
        stub[0x54] = 240; // size of the optional header
        let opt = 0x58;
        stub[opt..opt + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        for (field, value) in [
            (optional::SECTION_ALIGNMENT, 0x1000),
            (optional::FILE_ALIGNMENT, 0x200),
            (optional::SIZE_OF_IMAGE, 0x2000),
            (optional::SIZE_OF_HEADERS, size_of_headers),
        ] {
            write_u32(&mut stub, opt + field, value);
        }
        let section = opt + 240;
        stub[section..section + 5].copy_from_slice(b".text");
        for (field, value) in [(8, 0x300), (12, 0x1000), (16, 0x400), (20, size_of_headers)] {
            write_u32(&mut stub, section + field, value);
        }
        stub.extend([0xcc; 0x400]);
        stub
    }

    fn sections(image: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let count = usize::from(read_u16(image, 0x46).unwrap());
        let table = 0x58 + 240;
        (0..count)
            .map(|index| table + index * SECTION_HEADER)
            .map(|at| {
                let name = String::from_utf8_lossy(&image[at..at + 8]).trim_end_matches('\0').to_owned();
                let field = |skip| read_u32(image, at + skip).unwrap();
                let raw = field(20) as usize;
                (name, field(12), image[raw..raw + field(8) as usize].to_vec())
            })
            .collect()
    }

    #[test]
    fn sections_are_added_and_the_headers_grow_when_they_must() {
        let added =
            [Section { name: ".cmdline", content: b"quiet" }, Section { name: ".linux", content: &[7; 0x1234] }];
        for (size_of_headers, expected) in [(0x400, 0x400), (0x200, 0x200)] {
            let image = assemble(&stub(size_of_headers), &added).unwrap();
            assert_eq!(
                sections(&image),
                [
                    (".text".to_owned(), 0x1000, vec![0xcc; 0x300]),
                    (".cmdline".to_owned(), 0x2000, b"quiet".to_vec()),
                    (".linux".to_owned(), 0x3000, vec![7; 0x1234]),
                ]
            );
            assert_eq!(read_u32(&image, 0x58 + optional::SIZE_OF_IMAGE).unwrap(), 0x5000);
            assert_eq!(read_u32(&image, 0x58 + optional::SIZE_OF_HEADERS).unwrap(), expected);
        }
        let many: Vec<Section> = (0..6).map(|_| Section { name: ".x", content: b"x" }).collect();
        let image = assemble(&stub(0x200), &many).unwrap();
        assert_eq!(read_u32(&image, 0x58 + optional::SIZE_OF_HEADERS).unwrap(), 0x400);
        assert_eq!(sections(&image)[0].2, vec![0xcc; 0x300]);
    }

    #[test]
    fn what_is_no_stub_is_refused() {
        let one = [Section { name: ".x", content: b"x" }];
        assert_eq!(assemble(b"MZ", &one), Err(UkiError::NotPe));
        let mut signed = stub(0x400);
        write_u32(&mut signed, 0x58 + optional::CERTIFICATES + 4, 8);
        assert_eq!(assemble(&signed, &one), Err(UkiError::Signed));
        assert_eq!(
            assemble(&stub(0x400), &[Section { name: ".nine-bytes", content: b"" }]),
            Err(UkiError::Name(".nine-bytes".into()))
        );
        let many: Vec<Section> = (0..100).map(|_| Section { name: ".x", content: b"x" }).collect();
        assert_eq!(assemble(&stub(0x200), &many), Err(UkiError::NoRoom(100)));
    }

    #[test]
    fn the_checksum_makes_the_whole_add_up() {
        let image = assemble(&stub(0x400), &[Section { name: ".x", content: b"x" }]).unwrap();
        let stored = read_u32(&image, 0x58 + optional::CHECKSUM).unwrap();
        let mut blank = image.clone();
        write_u32(&mut blank, 0x58 + optional::CHECKSUM, 0);
        assert_eq!(stored, checksum(&blank));
        assert_ne!(stored, 0);
    }
}
