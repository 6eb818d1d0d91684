//! Tar archives as a stream: ustar, PAX (POSIX.1-2001 4.18.2) and GNU's long names.
//!
//! In: bytes. Out: entries one after the other; a body is handed out in pieces straight from the
//! read buffer. Invariant: an archive that ends early is an error, never a shorter archive.

use std::io::{self, Read};

use super::archive::damaged;

const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;
/// The largest PAX header or long name that is read.
const EXTENSION_MAX: u64 = 1 << 20;
/// The largest body: what a file can hold, and with its padding still a number.
const SIZE_MAX: u64 = i64::MAX as u64 - BLOCK as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Character,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As written in the archive.
    pub path: Vec<u8>,
    /// What a link points to.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of the body.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    pub device: (u32, u32),
    /// Extended attributes by their full names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What PAX headers and GNU's long names say about the entry that follows.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

pub struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current body that were not handed out, and the padding after it.
    body: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; BUFFER], start: 0, end: 0, body: 0, padding: 0 }
    }

    /// The next entry; what is left of the body before it is passed over.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut overrides = Overrides::default();
        loop {
            self.skip(self.body + self.padding)?;
            (self.body, self.padding) = (0, 0);
            let mut header = [0; BLOCK];
            self.take(&mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                return self.drain().map(|()| None);
            }
            check_sum(&header)?;
            let size = number(&header[124..136])?;
            match header[156] {
                b'x' => overrides.read_pax(&self.extension(size)?)?,
                b'L' => overrides.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => overrides.link = Some(until_nul(&self.extension(size)?).to_vec()),
                // Global headers carry comments (git's commit); nothing in them concerns an entry's content.
                b'g' => drop(self.extension(size)?),
                _ => return self.entry(&header, size, overrides).map(Some),
            }
        }
    }

    /// Hands out the rest of the current entry's body.
    pub fn body(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while self.body > 0 {
            self.fill()?;
            let count = self.body.min((self.end - self.start) as u64) as usize;
            each(&self.buffer[self.start..self.start + count])?;
            self.start += count;
            self.body -= count as u64;
        }
        Ok(())
    }

    fn entry(&mut self, header: &[u8; BLOCK], size: u64, overrides: Overrides) -> io::Result<Entry> {
        let kind = match header[156] {
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(damaged(&format!("tar entry of unknown type {:?}", other as char))),
        };
        let small = |range: std::ops::Range<usize>| {
            number(&header[range])
                .and_then(|value| u32::try_from(value).map_err(|_| damaged("a number in a tar header")))
        };
        let size = overrides.size.unwrap_or(size);
        if size > SIZE_MAX {
            return Err(damaged("the size in a tar header"));
        }
        let size = if kind == Kind::File { size } else { 0 };
        let entry = Entry {
            path: overrides.path.unwrap_or_else(|| ustar_path(header)),
            link: overrides.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()),
            kind,
            mode: small(100..108)? & 0o7777,
            uid: overrides.uid.map_or_else(|| small(108..116), Ok)?,
            gid: overrides.gid.map_or_else(|| small(116..124), Ok)?,
            size,
            mtime: overrides.mtime.map_or_else(|| number(&header[136..148]).map(|value| value as i64), Ok)?,
            device: match kind {
                Kind::Character | Kind::Block => (small(329..337)?, small(337..345)?),
                _ => (0, 0),
            },
            xattrs: overrides.xattrs,
        };
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(entry)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(damaged("a tar header extension is absurdly large"));
        }
        let mut content = vec![0; size as usize];
        self.take(&mut content)?;
        self.skip(size.next_multiple_of(BLOCK as u64) - size)?;
        Ok(content)
    }

    /// Reads what follows the end mark, so that what unpacks the archive comes to its own end and checksum.
    fn drain(&mut self) -> io::Result<()> {
        self.start = self.end;
        io::copy(&mut self.inner, &mut io::sink()).map(drop)
    }

    /// Makes sure that there is something in the buffer.
    fn fill(&mut self) -> io::Result<()> {
        while self.start == self.end {
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Err(damaged("the tar archive ends too early")),
                Ok(count) => (self.start, self.end) = (0, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, mut place: &mut [u8]) -> io::Result<()> {
        while !place.is_empty() {
            self.fill()?;
            let count = place.len().min(self.end - self.start);
            let (now, later) = place.split_at_mut(count);
            now.copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            place = later;
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            self.fill()?;
            let now = count.min((self.end - self.start) as u64);
            self.start += now as usize;
            count -= now;
        }
        Ok(())
    }
}

impl Overrides {
    /// Records of `LENGTH KEY=VALUE\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let bad = || damaged("a PAX header");
        while !records.is_empty() {
            let space = memchr::memchr(b' ', records).ok_or_else(bad)?;
            let length: usize =
                std::str::from_utf8(&records[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let equals = memchr::memchr(b'=', record).ok_or_else(bad)?;
            let (key, value) = (std::str::from_utf8(&record[..equals]).map_err(|_| bad())?, &record[equals + 1..]);
            let text = || std::str::from_utf8(value).map_err(|_| bad());
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "size" => self.size = Some(text()?.parse().map_err(|_| bad())?),
                "uid" => self.uid = Some(text()?.parse().map_err(|_| bad())?),
                "gid" => self.gid = Some(text()?.parse().map_err(|_| bad())?),
                "mtime" => {
                    let seconds = text()?.split('.').next().unwrap_or_default();
                    self.mtime = Some(seconds.parse().map_err(|_| bad())?);
                }
                key if key.starts_with("GNU.sparse.") => {
                    return Err(damaged("a sparse file, which packages may not hold"));
                }
                key => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn ustar_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
    // GNU's own format has other things where POSIX has the prefix.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

/// Octal digits, or a binary number with the top bit set (GNU).
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let value =
            field.iter().skip(1).fold(i128::from(field[0] & 0x7f), |value, byte| (value << 8) | i128::from(*byte));
        // A first byte of 0xff means a negative number: times before 1970.
        let value = if field[0] == 0xff { value - (1i128 << (8 * field.len() - 1)) } else { value };
        return i64::try_from(value).map(|value| value as u64).map_err(|_| damaged("a number in a tar header"));
    }
    let text = std::str::from_utf8(until_nul(field)).unwrap_or("?").trim();
    if text.is_empty() { Ok(0) } else { u64::from_str_radix(text, 8).map_err(|_| damaged("a number in a tar header")) }
}

fn check_sum(header: &[u8; BLOCK]) -> io::Result<()> {
    let sum: u64 =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
    if number(&header[148..156])? == sum { Ok(()) } else { Err(damaged("a tar header's checksum")) }
}
