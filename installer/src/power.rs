//! The power button, which no other program of the appliance listens to.
//!
//! In: input devices with a power key (`linux/input-event-codes.h`). Out: a request to power off, to PID 1, which
//! stops the work first.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;
/// `struct input_event` where a long has 64 bits: two longs of time, type, code, value.
const EVENT_BYTES: usize = 24;
/// One bit for every key there may be (`KEY_CNT`).
const KEY_BITS_BYTES: usize = 0x300 / 8;

/// Watches the input devices that are there already.
pub fn watch_present(dev: &Path) {
    for entry in fs::read_dir(dev.join("input")).into_iter().flatten().flatten() {
        watch(&entry.path());
    }
}

/// Watches an input device if it has a power key.
pub fn watch(device: &Path) {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(device);
    let Some(file) = opened.ok().filter(has_power_key) else { return };
    tracing::debug!("{} has a power button", device.display());
    let listen = move || listen(file);
    if let Err(cause) = std::thread::Builder::new().name("power".to_owned()).spawn(listen) {
        tracing::warn!("nobody watches the power button: {cause}");
    }
}

fn listen(mut device: File) {
    let mut event = [0; EVENT_BYTES];
    // Ends with the device.
    while device.read_exact(&mut event).is_ok() {
        if is_power_press(&event) {
            tracing::info!("the power button was pressed");
            let _ = kill(Pid::from_raw(1), Signal::SIGUSR2);
        }
    }
}

fn is_power_press(event: &[u8; EVENT_BYTES]) -> bool {
    let short = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (short(16), short(18), value) == (EV_KEY, KEY_POWER, PRESSED)
}

fn has_power_key(device: &File) -> bool {
    // EVIOCGBIT(EV_KEY, length): _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, length)
    const REQUEST: libc::c_ulong = (2 << 30) | ((KEY_BITS_BYTES as libc::c_ulong) << 16) | (0x45 << 8) | 0x21;
    let mut keys = [0u8; KEY_BITS_BYTES];
    // SAFETY: the kernel writes at most as many bytes as the request says, which the array has. What is no input
    // device refuses.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), REQUEST, keys.as_mut_ptr()) };
    result >= 0 && keys[usize::from(KEY_POWER) / 8] & (1 << (KEY_POWER % 8)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut event = [0; EVENT_BYTES];
            event[16..18].copy_from_slice(&kind.to_ne_bytes());
            event[18..20].copy_from_slice(&code.to_ne_bytes());
            event[20..24].copy_from_slice(&value.to_ne_bytes());
            event
        };
        for (kind, code, value, expected) in
            [(1, 116, 1, true), (1, 116, 0, false), (1, 30, 1, false), (0, 116, 1, false)]
        {
            assert_eq!(is_power_press(&event(kind, code, value)), expected);
        }
        assert!(!has_power_key(&tempfile::tempfile().unwrap()));
    }
}
