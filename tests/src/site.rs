//! What a machine finds around it: a web server with signed configs, the toy archive, a place for reports.
//!
//! In: a config's YAML. Out: the kernel arguments that make an appliance fetch and trust it. Every site has a server
//! of its own, so the faults of one case do not reach another; the signing key is one for all.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use castiron_engine::units::Digest;

use crate::host::{self, Failure, Result, Subject, program, run};
use crate::http::Server;
use crate::qemu::KERNEL_ARGUMENTS;
use crate::toy;

/// A signing key as `castiron keygen` makes it.
#[derive(Clone, Debug)]
pub struct SiteKey {
    secret: PathBuf,
    /// As the kernel argument `castiron.key=` takes it.
    pub public: String,
}

impl SiteKey {
    /// Makes `NAME.key` and `NAME.pub` in `folder`.
    pub fn make(folder: &Path, name: &str) -> Result<Self> {
        run(Command::new(program("castiron")?).arg("keygen").arg(folder.join(name)))?;
        let path = folder.join(format!("{name}.pub"));
        let text = std::fs::read_to_string(&path).on(path.display())?;
        let public = text.lines().nth(1).ok_or_else(|| Failure(format!("{}: no key", path.display())))?;
        Ok(Self { secret: folder.join(format!("{name}.key")), public: public.to_owned() })
    }

    /// The key that all sites trust.
    pub fn trusted() -> Result<&'static Self> {
        static KEY: OnceLock<Result<SiteKey, String>> = OnceLock::new();
        let make = || SiteKey::make(&host::fresh("site-key")?, "site");
        KEY.get_or_init(|| make().map_err(|failure| failure.0)).as_ref().map_err(|text| Failure(text.clone()))
    }

    /// Signs `file`; `arguments` are further ones of `castiron sign`.
    pub fn sign(&self, file: &Path, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(program("castiron")?);
        run(command.arg("sign").arg("--key").arg(&self.secret).args(arguments).arg(file))?;
        Ok(())
    }
}

pub struct Site {
    pub folder: PathBuf,
    pub server: Server,
    pub key: SiteKey,
}

/// Where machines of a site post their events and their logs.
pub const EVENTS: &str = "/reports/events";
pub const LOG: &str = "/reports/log";

/// One disk, the one that `disk` selects, in a shape that starts by BIOS and by UEFI.
pub fn storage(disk: &str) -> String {
    format!(
        "\
storage:
  layout:
    - disk: {{ name: system, match: {{ {disk} }} }}
    - partitioning:
        base: system
        label: gpt
        partitions:
          - {{ name: bios, type: bios-boot, size: 1MiB }}
          - {{ name: esp, type: esp, size: 64MiB, esp: {{ mount_point: /boot/efi }} }}
          - name: root
            type: root
            size: 100%
            mkfs: {{ type: ext4, mount: {{ mount_point: /, fstab: {{ options: defaults, fsck-passno: 1 }} }} }}
"
    )
}

impl Site {
    /// Serves its folder's `configs` below `/configs` and the toy archive below `/toy`.
    pub fn new(name: &str) -> Result<Self> {
        let folder = host::fresh(&format!("site-{name}"))?;
        let server = Server::start()?;
        let archive = toy::shared()?;
        let configs = folder.join("configs");
        std::fs::create_dir(&configs).on(configs.display())?;
        server.folder("/configs", &configs).folder("/toy", &archive.folder);
        server.document("/toy.gpg", archive.key.keyring()?);
        Ok(Self { folder, server, key: SiteKey::trusted()?.clone() })
    }

    /// Writes `configs/NAME.yaml` and its signature, made with `arguments`.
    pub fn publish(&self, name: &str, yaml: &str, arguments: &[&str]) -> Result<PathBuf> {
        let path = self.folder.join("configs").join(format!("{name}.yaml"));
        std::fs::write(&path, yaml).on(path.display())?;
        self.key.sign(&path, arguments)?;
        Ok(path)
    }

    /// A small FAT file system called `label` with everything that is published.
    pub fn medium(&self, label: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{label}.img"));
        std::fs::File::create(&path).and_then(|file| file.set_len(16 << 20)).on(path.display())?;
        host::run(Command::new("mkfs.vfat").args(["-n", label]).arg(&path))?;
        let configs = std::fs::read_dir(self.folder.join("configs")).on("the configs")?;
        for entry in configs.flatten() {
            host::run(Command::new("mcopy").arg("-i").arg(&path).arg(entry.path()).arg("::"))?;
        }
        Ok(path)
    }

    /// The kernel arguments for a machine that takes the config NAME from `url`, this server as the guest names it
    /// or `label:MEDIUM`.
    pub fn arguments(&self, url: &str, name: &str) -> String {
        // A medium has its files at the top.
        let url = if url.starts_with("http") { format!("{url}/configs") } else { url.to_owned() };
        format!(
            "{KERNEL_ARGUMENTS} castiron.config={url}/{name}.yaml castiron.key={} castiron.on_error=poweroff",
            SiteKey::trusted().map_or("", |key| &key.public),
        )
    }

    /// A config that installs the toy from `url` with `packages` on the disk that `disk` selects.
    pub fn toy_config(&self, url: &str, disk: &str, packages: &[&str]) -> Result<String> {
        let keyring = Digest::of(&toy::shared()?.key.keyring()?);
        let packages: String = packages.iter().map(|name| format!("  - {name}\n")).collect();
        let packages = if packages.is_empty() { String::new() } else { format!("packages:\n{packages}") };
        Ok(format!(
            r##"castiron: 1
identity:
  hostname: toybox
source:
  bootstrap:
    release: {suite}
    variant: minbase
    mirrors: [{{ uri: "{url}/toy", components: [main] }}]
    keyring: {{ source: "{url}/toy.gpg", verification: {{ hash: {keyring} }} }}
    base_packages: []
{storage}boot:
  kernel_package: linux-image-toy
  loader_packages: [grub2-common, grub-pc-bin, grub-efi-amd64-bin]
  kernel_arguments: {{ append: [no_timer_check] }}
  console: [ttyS0]
  timeout: 0s
write_files:
  - {{ path: /etc/toy/greeting, mode: "0640", content: "cast\n" }}
  - {{ path: /etc/toy/report, mode: "0755", content: "#!/bin/sh\necho toy: greeting $(cat /etc/toy/greeting) $(stat -c %a /etc/toy/greeting)\n" }}
in_target: [ "echo in-target >> /etc/toy/commands" ]
reporting:
  site: {{ type: webhook, endpoint: "{url}{EVENTS}" }}
logs: {{ upload: "{url}{LOG}" }}
{packages}"##,
            suite = toy::SUITE,
            storage = storage(disk),
        ))
    }
}
