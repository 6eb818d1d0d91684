//! `.deb` files (deb(5)): an ar archive of a version, a control tar and a data tar, packed in one of four ways.

use std::io::{self, BufRead, Read};

use super::tar::{Kind, Reader};

/// The largest control member that is read.
const CONTROL_MAX: u64 = 32 << 20;
/// What a decoder may allocate; `xz -9` wants 65 MiB.
const DECODER_MEMORY_MAX: u64 = 256 << 20;

/// The control member's files by name (`control`, `postinst`, …), with their modes.
#[derive(Debug, Default)]
pub struct Control {
    pub files: Vec<ControlFile>,
}

#[derive(Debug)]
pub struct ControlFile {
    pub name: String,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub content: Vec<u8>,
}

impl Control {
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|file| file.name == name).map(|file| file.content.as_slice())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|content| String::from_utf8_lossy(content).into_owned())
    }
}

/// A reader on the data member's tar, unpacked as it is read.
pub type Data<'a> = Reader<Box<dyn Read + 'a>>;

/// Reads the control member and hands out the data member.
pub fn open<'a>(mut deb: impl BufRead + 'a) -> io::Result<(Control, Data<'a>)> {
    let mut magic = [0; 8];
    deb.read_exact(&mut magic)?;
    if magic != *b"!<arch>\n" {
        return Err(damaged("it is no ar archive"));
    }
    let (name, size) = member(&mut deb)?;
    if name != "debian-binary" {
        return Err(damaged("its first member is not debian-binary"));
    }
    let mut version = Vec::new();
    deb.by_ref().take(size + size % 2).read_to_end(&mut version)?;
    if !version.starts_with(b"2.") {
        return Err(damaged("its format is not 2.x"));
    }
    let control = loop {
        let (name, size) = member(&mut deb)?;
        if let Some(packing) = name.strip_prefix("control.tar") {
            if size > CONTROL_MAX {
                return Err(damaged("its control member is absurdly large"));
            }
            let mut packed = Vec::new();
            deb.by_ref().take(size + size % 2).read_to_end(&mut packed)?;
            packed.truncate(size as usize);
            break read_control(decoder(packing, io::Cursor::new(packed))?)?;
        }
        // Members that start with an underscore are for others (deb(5)).
        skip_extra(&mut deb, &name, size)?;
    };
    loop {
        let (name, size) = member(&mut deb)?;
        if let Some(packing) = name.strip_prefix("data.tar") {
            let packing = packing.to_owned();
            return Ok((control, Reader::new(decoder(&packing, deb.take(size))?)));
        }
        skip_extra(&mut deb, &name, size)?;
    }
}

fn skip_extra(deb: &mut impl BufRead, name: &str, size: u64) -> io::Result<()> {
    if !name.starts_with('_') {
        return Err(damaged(&format!("it has an unexpected member {name}")));
    }
    io::copy(&mut deb.take(size + size % 2), &mut io::sink()).map(drop)
}

/// An ar header: name, then numbers that do not matter here, size and end mark.
fn member(deb: &mut impl Read) -> io::Result<(String, u64)> {
    let mut header = [0; 60];
    deb.read_exact(&mut header)?;
    let text = |range: std::ops::Range<usize>| {
        std::str::from_utf8(&header[range]).map(str::trim).map_err(|_| damaged("an ar header"))
    };
    if &header[58..] != b"`\n" {
        return Err(damaged("an ar header"));
    }
    let size = text(48..58)?.parse().map_err(|_| damaged("an ar header's size"))?;
    Ok((text(0..16)?.trim_end_matches('/').to_owned(), size))
}

fn decoder<'a>(packing: &str, packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        "" => Box::new(packed),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(DECODER_MEMORY_MAX, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        ".bz2" => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        other => return Err(damaged(&format!("it is packed as {other}, which is not known"))),
    })
}

fn read_control<'a>(tar: Box<dyn Read + 'a>) -> io::Result<Control> {
    let mut reader = Reader::new(tar);
    let mut control = Control::default();
    let mut total = 0;
    while let Some(entry) = reader.next_entry()? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let name = path.trim_start_matches("./");
        if entry.kind != Kind::File {
            continue;
        }
        total += entry.size;
        // These names become `PACKAGE.NAME` in the database.
        if name.is_empty() || name.contains('/') || total > CONTROL_MAX {
            return Err(damaged(&format!("its control member holds {name:?}")));
        }
        let mut content = Vec::with_capacity(entry.size as usize);
        reader.body(&mut |bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        control.files.push(ControlFile { name: name.to_owned(), mode: entry.mode, mtime: entry.mtime, content });
    }
    match control.get("control") {
        Some(_) => Ok(control),
        None => Err(damaged("it has no control file")),
    }
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
