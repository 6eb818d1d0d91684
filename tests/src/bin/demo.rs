//! `make demo`: a virtual machine with an empty disk becomes a Debian that one can log in to.
//!
//! The appliance is built, booted over the network (iPXE, a script by TFTP, the rest by HTTP from the loopback),
//! takes its signed config, installs, reboots into its own disk; then somebody logs in with the key of the config.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use castiron_engine::event::EventResult;
use castiron_tests::appliance::{Appliance, SUITE};
use castiron_tests::debian;
use castiron_tests::host::{self, Failure, Result, Subject};
use castiron_tests::http::Server;
use castiron_tests::proxy;
use castiron_tests::qemu::{Boot, Disk, KERNEL_ARGUMENTS, Machine, Running, accel, free_port};
use castiron_tests::site::SiteKey;
use castiron_tests::watch::Watch;

const DISK_BYTES: u64 = 4 << 30;
const INSTALL_WITHIN: Duration = Duration::from_secs(14 * 60);
const LOGIN_WITHIN: Duration = Duration::from_secs(5 * 60);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\ndemo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let begun = Instant::now();
    let mut watch = Watch::default();
    let folder = host::fresh("demo")?;
    watch.line(&format!("machines run by {}: {}", accel()?, debian::emulator_version()?));

    let server = Server::start()?;
    let counters = proxy::serve(&server, SUITE)?;
    watch.line("building the appliance");
    let appliance = Appliance::build("demo/appliance", &server, &["--kernel-package", "linux-image-cloud-amd64"])?;
    for name in ["vmlinuz", "initramfs.img"] {
        let path = appliance.file(name);
        let bytes = std::fs::metadata(&path).on(path.display())?.len();
        watch.line(&format!("  {name}: {:.1} MB", bytes as f64 / 1e6));
    }
    let appliance_seconds = begun.elapsed().as_secs_f64();

    let key = SiteKey::make(&folder, "site")?;
    let (ssh_key, ssh_line) = debian::ssh_key(&folder)?;
    let url = server.guest_url();
    let config = folder.join("machine.yaml");
    std::fs::write(&config, debian::config(&url, "transport: virtio", &ssh_line)).on(config.display())?;
    key.sign(&config, &["--machine", "mac:52:54:00:12:34:56"])?;
    let tftp = folder.join("tftp");
    std::fs::create_dir(&tftp).on(tftp.display())?;
    let script = format!(
        "#!ipxe\nkernel {url}/appliance/vmlinuz initrd=initramfs.img {KERNEL_ARGUMENTS} \
         castiron.config={url}/configs/machine.yaml castiron.key={} castiron.on_error=poweroff BOOTIF=01-${{mac:hexhyp}}\n\
         initrd {url}/appliance/initramfs.img\nboot\n",
        key.public
    );
    std::fs::write(tftp.join("boot.ipxe"), script).on("the iPXE script")?;
    server.folder("/appliance", &appliance.folder).folder("/configs", &folder);

    let mut machine =
        Machine::new(&folder.join("machine"), Boot::Network { folder: tftp, file: "boot.ipxe".to_owned() });
    machine.disks = vec![Disk::empty(&folder.join("disk.raw"), "EMPTY", DISK_BYTES)?];
    machine.memory_mib = 2048;
    machine.reboots = true;
    let port = free_port()?;
    machine.ssh_port = Some(port);
    watch.line("power on: an empty disk, the network first");
    let mut running = machine.start()?;
    let installed = install(&mut running, &mut watch)?;
    watch.line("the machine starts from its own disk");
    let said =
        debian::log_in(&ssh_key, port, "hostname; . /etc/os-release; echo $PRETTY_NAME; uname -sr", LOGIN_WITHIN)?;
    let login = running.uptime();
    watch.line(&format!("logged in: {}", said.lines().collect::<Vec<_>>().join(", ")));
    running.cut_power()?;

    let (hits, misses) = (
        counters.hits.load(std::sync::atomic::Ordering::Relaxed),
        counters.misses.load(std::sync::atomic::Ordering::Relaxed),
    );
    println!("\nWhere the time went\n  appliance built{:>10.1} s\n{}", appliance_seconds, watch.table());
    println!("  power-on to installed  {:>7.1} s", installed.as_secs_f64());
    println!("  power-on to login      {:>7.1} s", login.as_secs_f64());
    println!("  all                    {:>7.1} s", begun.elapsed().as_secs_f64());
    println!(
        "The mirror was asked for {misses} files, {hits} came from the cache. Everything lies in {}.",
        folder.display()
    );
    Ok(())
}

/// Shows the events until the last one, then until the firmware starts again.
fn install(running: &mut Running, watch: &mut Watch) -> Result<Duration> {
    let end = Instant::now() + INSTALL_WITHIN;
    loop {
        watch.update(&running.events()?);
        let console = running.console();
        match watch.end {
            Some(EventResult::Fail) => return Err(Failure(format!("the installation failed\n{}", console.tail()))),
            Some(EventResult::Success | EventResult::Warn) => return Ok(running.uptime()),
            None => {}
        }
        if running.ended()? {
            return Err(Failure(format!("the machine ended early\n{}", console.tail())));
        }
        if Instant::now() >= end {
            return Err(Failure(format!("not installed within {} s\n{}", INSTALL_WITHIN.as_secs(), console.tail())));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
