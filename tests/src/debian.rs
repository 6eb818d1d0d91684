//! The real Debian as a config: minbase with kernel, GRUB, ssh and a network, through the caching mirror.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::appliance::SUITE;
use crate::host::{Failure, Result, Subject, run, tool};
use crate::site::storage;

/// The user that the config makes.
pub const USER: &str = "ops";

/// A key pair for ssh, made in `folder`; gives the secret half's file and the public line.
pub fn ssh_key(folder: &Path) -> Result<(PathBuf, String)> {
    let path = folder.join("id_ed25519");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f"]).arg(&path))?;
    let public = folder.join("id_ed25519.pub");
    let line = std::fs::read_to_string(&public).on(public.display())?;
    Ok((path, line.trim().to_owned()))
}

/// `url` is the caching mirror as the guest names it, `disk` what the target must be.
pub fn config(url: &str, disk: &str, ssh_key: &str) -> String {
    format!(
        r#"castiron: 1
identity:
  hostname: iron
install: {{ on_success: reboot, on_error: {{ action: poweroff }} }}
source:
  bootstrap:
    release: {SUITE}
    variant: minbase
    mirrors:
      - {{ uri: "{url}/debian", suites: [{SUITE}, {SUITE}-updates], components: [main] }}
      - {{ uri: "{url}/debian-security", suites: [{SUITE}-security], components: [main] }}
{storage}boot:
  kernel_package: linux-image-cloud-amd64
  kernel_arguments: {{ append: [no_timer_check] }}
  console: [ttyS0]
  timeout: 0s
users:
  - {{ name: {USER}, groups: [sudo], ssh_authorized_keys: ["{ssh_key}"] }}
packages: [openssh-server]
reporting:
  site: {{ type: webhook, endpoint: "{url}/reports/events" }}
logs: {{ upload: "{url}/reports/log" }}
"#,
        storage = storage(disk),
    )
}

/// Logs in on `port` of the loopback until it works, and gives what `command` prints there.
pub fn log_in(key: &Path, port: u16, command: &str, within: Duration) -> Result<String> {
    let known = key.with_file_name("known_hosts");
    let options = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR"];
    let end = Instant::now() + within;
    loop {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(key).args(["-p", &port.to_string()]);
        ssh.args(["-o", &format!("UserKnownHostsFile={}", known.display())]);
        ssh.args(options.iter().flat_map(|option| ["-o", option]));
        match run(ssh.arg(format!("{USER}@127.0.0.1")).arg(command)) {
            Ok(output) => return Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Err(failure) if Instant::now() >= end => {
                return Err(Failure(format!("no login within {} s: {failure}", within.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_secs(2)),
        }
    }
}

/// `qemu-img` and friends print what they are; for the heading of reports.
pub fn emulator_version() -> Result<String> {
    let text = tool("qemu-system-x86_64", ["--version"])?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
