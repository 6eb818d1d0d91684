//! Which accelerator this host really has.
//!
//! `/dev/kvm` that exists and opens may still hang every guest, so the answer comes from a guest that ran: a boot
//! sector that writes one letter to the serial port and ends the machine. It is kept until the host boots again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::host::{self, Failure, Result, Subject};

const PROBE_SECONDS_MAX: u64 = 6;

/// `mov dx, 0x3f8; mov al, 'K'; out dx, al; mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp $-1`: a letter to the
/// first serial port, then a value to the emulator's debug exit.
const SECTOR: &[u8] = &[0xba, 0xf8, 0x03, 0xb0, b'K', 0xee, 0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Accel::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "software emulation",
        })
    }
}

/// The accelerator to use, probed once per boot of this host.
pub fn accel() -> Result<Accel> {
    static FOUND: OnceLock<Accel> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(*found);
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").on("the boot id")?;
    let note = host::cache("accel")?.join(boot_id.trim());
    let found = match std::fs::read_to_string(&note).ok().as_deref() {
        Some("kvm") => Accel::Kvm,
        Some("tcg") => Accel::Tcg,
        _ => {
            let works = Path::new("/dev/kvm").exists() && probe(Accel::Kvm)?;
            std::fs::write(&note, if works { "kvm" } else { "tcg" }).on(note.display())?;
            if works { Accel::Kvm } else { Accel::Tcg }
        }
    };
    Ok(*FOUND.get_or_init(|| found))
}

/// Boots the sector above; true when its letter arrived in time.
pub fn probe(accel: Accel) -> Result<bool> {
    let folder = tempfile::tempdir().on("a folder for the probe")?;
    let (disk, serial) = (folder.path().join("disk"), folder.path().join("serial"));
    let mut sector = SECTOR.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    std::fs::write(&disk, sector).on(disk.display())?;
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-display", "none", "-m", "32", "-no-reboot"])
        .args(accel.arguments())
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-serial"])
        .arg(format!("file:{}", serial.display()))
        .args(["-drive", &format!("if=ide,format=raw,file={}", disk.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| Failure(format!("starting qemu-system-x86_64: {cause} (tests/setup.sh installs it)")))?;
    ended_in_time(&mut child)?;
    let said = std::fs::read(&serial).unwrap_or_default();
    Ok(said.contains(&b'K'))
}

fn ended_in_time(child: &mut Child) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(PROBE_SECONDS_MAX);
    while Instant::now() < end {
        if child.try_wait().on("the probe")?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().on("the probe")?;
    child.wait().on("the probe")?;
    Ok(())
}
