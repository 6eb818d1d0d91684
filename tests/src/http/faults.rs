//! What goes wrong on purpose, and the outlet through which it does.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use super::locked;

/// What a struck answer suffers. Offsets count from the start of the file, whatever range is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another status instead of the content.
    Status(u16),
    /// Bit 0 of the byte at this offset is turned over.
    FlipBit(u64),
    /// The connection closes after so many bytes of body, though more were announced.
    Truncate(u64),
    /// The answer starts this late.
    Delay(Duration),
    /// After `bytes` of body nothing comes for `pause`, then the rest.
    Stall { bytes: u64, pause: Duration },
}

/// A fault and what it strikes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Part of the path.
    pub path: String,
    /// So many requests are still served well.
    pub skip: u64,
    /// How many requests are struck; `None` for all that follow.
    pub times: Option<u64>,
    pub fault: Fault,
}

impl Rule {
    /// Every request whose path holds `path` is struck.
    pub fn always(path: &str, fault: Fault) -> Self {
        Self { path: path.to_owned(), skip: 0, times: None, fault }
    }

    /// Only the first such request is struck.
    pub fn once(path: &str, fault: Fault) -> Self {
        Self { times: Some(1), ..Self::always(path, fault) }
    }

    /// The first `requests` are served well.
    pub fn after(self, requests: u64) -> Self {
        Self { skip: requests, ..self }
    }
}

pub struct Armed {
    rule: Rule,
    seen: u64,
}

impl From<Rule> for Armed {
    fn from(rule: Rule) -> Self {
        Self { rule, seen: 0 }
    }
}

impl Armed {
    pub fn strikes(&mut self, path: &str) -> Option<Fault> {
        if !path.contains(&self.rule.path) {
            return None;
        }
        self.seen += 1;
        let struck = self.seen.checked_sub(self.rule.skip + 1)?;
        self.rule.times.is_none_or(|times| struck < times).then_some(self.rule.fault)
    }
}

/// Bytes on their way out: counts them, and breaks them as the fault says.
pub struct Outlet<'a> {
    stream: &'a mut dyn Write,
    fault: Option<Fault>,
    budget: &'a Mutex<Option<u64>>,
    sent: u64,
    died: bool,
}

impl<'a> Outlet<'a> {
    pub fn new(stream: &'a mut dyn Write, fault: Option<Fault>, budget: &'a Mutex<Option<u64>>) -> Self {
        Self { stream, fault, budget, sent: 0, died: false }
    }

    /// Body bytes that went out.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The server's budget ran out here.
    pub fn died(&self) -> bool {
        self.died
    }

    pub fn head(&mut self, head: &[u8]) -> std::io::Result<()> {
        if let Some(Fault::Delay(pause)) = self.fault {
            std::thread::sleep(pause);
        }
        self.stream.write_all(head)
    }

    /// `at` is where these bytes lie in the file.
    pub fn body(&mut self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        let end = at + bytes.len() as u64;
        match self.fault {
            Some(Fault::FlipBit(offset)) if (at..end).contains(&offset) => {
                let mut flipped = bytes.to_vec();
                flipped[(offset - at) as usize] ^= 1;
                self.write(&flipped)
            }
            Some(Fault::Truncate(keep)) if end > keep => {
                self.write(&bytes[..keep.saturating_sub(at) as usize])?;
                Err(std::io::Error::other("cut on purpose"))
            }
            Some(Fault::Stall { bytes: before, pause }) if (at..end).contains(&before) => {
                let (first, rest) = bytes.split_at((before - at) as usize);
                self.write(first)?;
                std::thread::sleep(pause);
                self.write(rest)
            }
            Some(Fault::Status(_) | Fault::FlipBit(_) | Fault::Truncate(_) | Fault::Delay(_) | Fault::Stall { .. })
            | None => self.write(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let allowed = match &mut *locked(self.budget) {
            None => bytes.len(),
            Some(left) => {
                let allowed = bytes.len().min(*left as usize);
                *left -= allowed as u64;
                allowed
            }
        };
        self.stream.write_all(&bytes[..allowed])?;
        self.sent += allowed as u64;
        if allowed < bytes.len() {
            self.died = true;
            return Err(std::io::Error::other("the server dies on purpose"));
        }
        Ok(())
    }
}
