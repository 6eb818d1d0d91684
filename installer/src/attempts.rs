//! How often this machine has failed and rebooted, so that it does not do so for ever.
//!
//! Kept in a UEFI variable (UEFI 8.2), which outlives a reboot without touching a disk; a BIOS has no such place, and
//! there every attempt is the first. Written only before a reboot after a failure, cleared by a success.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::IFlags;

/// After so many failures in a row the machine waits for a person.
pub const ATTEMPTS_MAX: u8 = 5;
/// Non-volatile, boot service and run time access.
const ATTRIBUTES: [u8; 4] = 7u32.to_le_bytes();
const VARIABLE: &str = "CastironAttempts-5c1e0d3a-6f0b-4d0e-9a53-c1a57150f00d";

pub struct Attempts {
    variable: PathBuf,
}

impl Attempts {
    /// `efivars` is `/sys/firmware/efi/efivars`, present or not.
    pub fn new(efivars: &Path) -> Self {
        Self { variable: efivars.join(VARIABLE) }
    }

    /// Failures in a row so far.
    pub fn count(&self) -> u8 {
        fs::read(&self.variable).ok().and_then(|bytes| bytes.get(4).copied()).unwrap_or(0)
    }

    /// Notes one more failure. Out: how many there are now, 1 where nothing can be kept.
    pub fn add(&self) -> u8 {
        let count = self.count().saturating_add(1);
        let content = [&ATTRIBUTES[..], &[count]].concat();
        let written = self.unlock().and_then(|()| fs::write(&self.variable, content));
        if written.is_ok() { count } else { 1 }
    }

    /// Forgets them all.
    pub fn clear(&self) {
        if self.variable.exists() && self.unlock().is_ok() {
            let _ = fs::remove_file(&self.variable);
        }
    }

    /// efivarfs protects variables it does not know by the immutable flag.
    fn unlock(&self) -> io::Result<()> {
        match fs::File::open(&self.variable) {
            Ok(file) => match rustix::fs::ioctl_getflags(&file) {
                Ok(flags) => Ok(rustix::fs::ioctl_setflags(&file, flags.difference(IFlags::IMMUTABLE))?),
                Err(_) => Ok(()), // a file system without flags
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_until_a_success() {
        let folder = tempfile::tempdir().unwrap();
        let attempts = Attempts::new(folder.path());
        assert_eq!(attempts.count(), 0);
        assert_eq!([attempts.add(), attempts.add(), attempts.add()], [1, 2, 3]);
        assert_eq!(fs::read(&attempts.variable).unwrap(), [7, 0, 0, 0, 3]);
        attempts.clear();
        assert_eq!(attempts.count(), 0);
        attempts.clear();
    }

    #[test]
    fn without_such_a_place_every_attempt_is_the_first() {
        let attempts = Attempts::new(Path::new("/nowhere"));
        assert_eq!([attempts.add(), attempts.add()], [1, 1]);
        fs::read(&attempts.variable).unwrap_err();
    }
}
