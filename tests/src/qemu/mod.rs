//! Virtual machines that tell what happened to them.
//!
//! In: a [`Machine`] (firmware, memory, disks, what to boot). Out: a [`Running`] one with its console, its events
//! and, per disk, a log of every request that would have changed it. Invariant: a machine ends with its value, and
//! nothing but the files in its folder remains.

mod accel;
mod running;
mod writelog;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use accel::{Accel, accel};
pub use running::{Console, Running};
pub use writelog::WriteLog;

use crate::host::{Failure, Result, Subject, run};

/// The name of the virtio-serial port on which the appliance writes its events, one JSON object a line.
pub const EVENT_PORT: &str = "castiron.events";

/// What kernels of ours get on their command line here. Under software emulation the timer check may fail.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 no_timer_check quiet";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    Virtio,
    Nvme,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub path: PathBuf,
    /// `raw` or `qcow2`.
    pub format: &'static str,
    pub serial: String,
    pub front: Front,
    /// Keep a log of every write, see [`Running::writes`].
    pub record: bool,
}

impl Disk {
    /// A raw file as a virtio disk.
    pub fn raw(path: &Path, serial: &str) -> Self {
        Self { path: path.to_owned(), format: "raw", serial: serial.to_owned(), front: Front::Virtio, record: false }
    }

    /// An empty raw file of `bytes`, sparse, made anew.
    pub fn empty(path: &Path, serial: &str, bytes: u64) -> Result<Self> {
        let file = std::fs::File::create(path).on(path.display())?;
        file.set_len(bytes).on(path.display())?;
        Ok(Self::raw(path, serial))
    }

    pub fn recorded(self) -> Self {
        Self { record: true, ..self }
    }

    pub fn on(self, front: Front) -> Self {
        Self { front, ..self }
    }
}

/// What the machine starts from.
#[derive(Clone, Debug)]
pub enum Boot {
    /// Whatever the firmware finds on its disks.
    Disk,
    /// A kernel handed over by the emulator.
    Kernel {
        kernel: PathBuf,
        initramfs: PathBuf,
        arguments: String,
    },
    /// Once from the network, later from disk. `file` is a name below `folder`, served by TFTP, or an http URL.
    Network {
        folder: PathBuf,
        file: String,
    },
    Cdrom(PathBuf),
    Usb(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    None,
    /// Both families, DHCP, a gateway to this host's loopback.
    User,
    /// Router advertisements alone.
    Ipv6Only,
}

#[derive(Clone, Debug)]
pub struct Machine {
    /// Where console, events and logs go.
    pub folder: PathBuf,
    pub firmware: Firmware,
    pub memory_mib: u32,
    pub disks: Vec<Disk>,
    pub boot: Boot,
    pub network: Network,
    pub mac: String,
    /// The machine's UUID, serial number and so on in SMBIOS: `uuid=…,serial=…`.
    pub smbios: Option<String>,
    /// A port of this host's loopback that leads to port 22 of the guest.
    pub ssh_port: Option<u16>,
    /// Whether a reboot goes on in the same machine; otherwise it ends there.
    pub reboots: bool,
    /// What the real-time clock says at the start, as `-rtc base=` takes it.
    pub clock: Option<String>,
}

impl Machine {
    /// BIOS, 1 GiB, network, no disks. `folder` is made where it is missing.
    pub fn new(folder: &Path, boot: Boot) -> Self {
        Self {
            folder: folder.to_owned(),
            firmware: Firmware::Bios,
            memory_mib: 1024,
            disks: Vec::new(),
            boot,
            network: Network::User,
            mac: "52:54:00:12:34:56".to_owned(),
            smbios: None,
            ssh_port: None,
            reboots: false,
            clock: None,
        }
    }

    /// One more argument for a kernel that is handed over.
    pub fn argument(&mut self, argument: &str) {
        if let Boot::Kernel { arguments, .. } = &mut self.boot {
            arguments.push(' ');
            arguments.push_str(argument);
        }
    }

    pub fn start(self) -> Result<Running> {
        std::fs::create_dir_all(&self.folder).on(self.folder.display())?;
        let slot = running::Slot::take();
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-smp", "2"]);
        command.args(accel()?.arguments());
        command.args(["-m", &self.memory_mib.to_string(), "-device", "virtio-rng-pci"]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        if let Some(clock) = &self.clock {
            command.args(["-rtc", &format!("base={clock}")]);
        }
        if let Some(smbios) = &self.smbios {
            command.args(["-smbios", &format!("type=1,{smbios}")]);
        }
        self.firmware(&mut command)?;
        self.consoles(&mut command);
        self.network(&mut command);
        for (number, disk) in self.disks.iter().enumerate() {
            self.disk(&mut command, number, disk)?;
        }
        self.boot(&mut command);
        let errors = self.folder.join("qemu.log");
        let log = std::fs::File::create(&errors).on(errors.display())?;
        command.stdin(Stdio::null()).stdout(log.try_clone().on("qemu.log")?).stderr(log);
        end_with_us(&mut command);
        let child = command.spawn().on("starting qemu-system-x86_64 (tests/setup.sh installs it)")?;
        Ok(Running::new(self, child, slot))
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn firmware(&self, command: &mut Command) -> Result<()> {
        match self.firmware {
            Firmware::Bios => {
                // SeaBIOS says on its debug port what it boots, and that it finds nothing to boot.
                let log = format!("file,id=firmware,path={}", self.file("firmware.log"));
                command.args(["-machine", "pc", "-chardev", &log]);
                command.args(["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]);
            }
            Firmware::Uefi => {
                let variables = self.folder.join("uefi-variables.fd");
                if !variables.exists() {
                    std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                        .on("the UEFI firmware (package ovmf)")?;
                }
                command.args(["-machine", "q35"]);
                command.arg("-drive");
                command.arg("if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd");
                command.arg("-drive");
                command.arg(format!("if=pflash,format=raw,unit=1,file={}", variables.display()));
            }
        }
        Ok(())
    }

    fn consoles(&self, command: &mut Command) {
        let socket = |id: &str, log: &str| {
            let (path, log) = (self.file(&format!("{id}.sock")), self.file(log));
            format!("socket,id={id},path={path},server=on,wait=off,logfile={log}")
        };
        command.args(["-chardev", &socket("console", "console.log"), "-serial", "chardev:console"]);
        let events = format!("file,id=events,path={}", self.file("events.jsonl"));
        command.args(["-chardev", &events, "-device", "virtio-serial-pci"]);
        command.args(["-device", &format!("virtserialport,chardev=events,name={EVENT_PORT}")]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", self.file("qmp.sock"))]);
    }

    fn network(&self, command: &mut Command) {
        let mut user = "user,id=net".to_owned();
        match self.network {
            Network::None => return,
            Network::User => {}
            Network::Ipv6Only => user.push_str(",ipv4=off,ipv6=on"),
        }
        if let Boot::Network { folder, file } = &self.boot {
            user.push_str(&format!(",tftp={},bootfile={file}", folder.display()));
        }
        if let Some(port) = self.ssh_port {
            user.push_str(&format!(",hostfwd=tcp:127.0.0.1:{port}-:22"));
        }
        let mut card = format!("virtio-net-pci,netdev=net,mac={}", self.mac);
        match (&self.boot, self.firmware) {
            (Boot::Network { .. }, Firmware::Bios) => {} // iPXE in the card's ROM
            (Boot::Network { .. }, Firmware::Uefi) => card.push_str(",romfile=,bootindex=0"),
            _ => card.push_str(",romfile="),
        }
        command.args(["-netdev", &user, "-device", &card]);
    }

    fn disk(&self, command: &mut Command, number: usize, disk: &Disk) -> Result<()> {
        let path = disk.path.display();
        let flags = "cache.no-flush=on,discard=unmap";
        command.args(["-blockdev", &format!("driver=file,node-name=file{number},filename={path},{flags}")]);
        let format = format!("driver={},node-name=disk{number},file=file{number},{flags}", disk.format);
        command.args(["-blockdev", &format]);
        let mut node = format!("disk{number}");
        if disk.record {
            let log = self.write_log(&disk.serial);
            std::fs::File::create(&log).on(log.display())?;
            let log_file = format!("driver=file,node-name=log{number},filename={}", log.display());
            command.args(["-blockdev", &log_file]);
            node = format!("recorded{number}");
            let recorded = format!("driver=blklogwrites,node-name={node},file=disk{number},log=log{number}");
            command.args(["-blockdev", &recorded]);
        }
        let front = match disk.front {
            Front::Virtio => "virtio-blk-pci",
            Front::Nvme => "nvme",
        };
        let order = number + 1;
        command.args(["-device", &format!("{front},drive={node},serial={},bootindex={order}", disk.serial)]);
        Ok(())
    }

    fn write_log(&self, serial: &str) -> PathBuf {
        self.folder.join(format!("{serial}.writes"))
    }

    fn boot(&self, command: &mut Command) {
        match &self.boot {
            Boot::Disk => {}
            Boot::Kernel { kernel, initramfs, arguments } => {
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", arguments]);
            }
            Boot::Network { file, .. } => {
                if self.firmware == Firmware::Bios {
                    command.args(["-boot", "order=c,once=n"]);
                }
                if file.starts_with("http://") {
                    for family in ["IPv4PXESupport", "IPv6PXESupport"] {
                        command.args(["-fw_cfg", &format!("name=opt/org.tianocore/{family},string=n")]);
                    }
                }
            }
            Boot::Cdrom(path) => {
                let medium = format!("driver=file,node-name=cd,read-only=on,filename={}", path.display());
                command.args(["-blockdev", &medium, "-device", "virtio-scsi-pci,id=scsi"]);
                command.args(["-device", "scsi-cd,bus=scsi.0,drive=cd,bootindex=0"]);
            }
            Boot::Usb(path) => {
                let medium = format!("driver=file,node-name=stick,read-only=on,filename={}", path.display());
                command.args(["-blockdev", &medium, "-device", "qemu-xhci"]);
                command.args(["-device", "usb-storage,drive=stick,bootindex=0"]);
            }
        }
    }
}

/// The kernel ends the program with the thread that started it, however that ends.
fn end_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)) };
}

/// A port of the loopback that is free now.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).on("the loopback")?;
    Ok(listener.local_addr().on("the loopback")?.port())
}

/// A qcow2 file of `bytes` that shows `base` until it is written to; the base stays as it is.
pub fn overlay(base: &Path, path: &Path) -> Result<Disk> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(base).arg(path);
    run(&mut command)?;
    let serial = path.file_stem().ok_or_else(|| Failure::new("an overlay needs a file name"))?;
    let serial = serial.to_string_lossy().into_owned();
    Ok(Disk { format: "qcow2", ..Disk::raw(path, &serial) })
}

#[cfg(test)]
mod tests;
