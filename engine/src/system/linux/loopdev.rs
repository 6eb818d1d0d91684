//! Loop devices for file systems inside image files: configured in one call, gone with their last user.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use camino::Utf8PathBuf;

use crate::system::{Context, EffectError, Region};

nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, LoopConfig);

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
pub struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const AUTOCLEAR: u32 = 4;
const ATTEMPTS: u32 = 32;

/// Holds the device; the kernel detaches it when this and every mount of it are gone.
pub struct Loop {
    pub path: Utf8PathBuf,
    _device: File,
}

/// `LOOP_CONFIGURE` sets file, offset, limit and auto-clear at once: a kill at any moment leaves nothing.
pub fn attach(region: &Region) -> Result<Loop, EffectError> {
    let what = || format!("cannot attach {} to a loop device", region.path);
    let backing = OpenOptions::new().read(true).write(true).open(&region.path).context(what())?;
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .context(what())
        .map_err(|error| error.with_hint("the kernel has no loop devices, or this container does not show them"))?;
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: region.offset.0,
            sizelimit: region.length.0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument and returns a number.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }.context(what())?;
        let path = Utf8PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path).context(what())?;
        // SAFETY: `config` is the structure that the request takes and outlives the call.
        match unsafe { loop_configure(device.as_raw_fd(), &config) } {
            Ok(_) => return Ok(Loop { path, _device: device }),
            // Someone else was faster.
            Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => return Err(EffectError::caused(what(), error)),
        }
    }
    Err(EffectError::new(what()).with_hint("other programs keep taking the free loop devices; try again"))
}
