//! `castiron keygen`: a key pair for signing configs. The files are minisign's.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::trust::TrustedKey;
use minisign::KeyPair;

use super::Report;

/// Make a key pair for signing configs
///
/// Writes NAME.key, which stays with whoever signs and is not protected by a password, and NAME.pub,
/// which goes into the appliance. Neither is ever overwritten.
#[derive(clap::Args)]
pub struct Args {
    /// Where the keys go: `site` makes `site.key` and `site.pub`.
    name: Utf8PathBuf,
}

pub fn run(args: Args) -> Result<(), Report> {
    let pair = KeyPair::generate_unencrypted_keypair()?;
    let public = pair.pk.to_box()?.into_string();
    let secret = pair.sk.to_box(Some("castiron secret key"))?.into_string();
    let secret_path = with_suffix(&args.name, "key");
    let public_path = with_suffix(&args.name, "pub");
    write_new(&secret_path, 0o600, &secret)?;
    write_new(&public_path, 0o644, &public)?;

    let key = TrustedKey::parse(public_path.as_str(), &public)?;
    println!("{secret_path}  keep it secret");
    println!("{public_path}  build the appliance with it, or boot with castiron.key={}", pair.pk.to_base64());
    println!("key id {}, fingerprint {}", key.id(), key.fingerprint());
    Ok(())
}

/// Appends, so that a dot in the name stays: `site.2026` makes `site.2026.key`.
fn with_suffix(name: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    format!("{name}.{suffix}").into()
}

fn write_new(path: &Utf8Path, mode: u32, text: &str) -> Result<(), Report> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| {
        let report = Report::failure(format!("error: cannot write {path}\n  cause: {error}"));
        match error.kind() {
            io::ErrorKind::AlreadyExists => report.with_hint("choose another name; keys are never overwritten"),
            _ => report,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let name = Utf8PathBuf::from_path_buf(folder.path().join("site.2026")).unwrap();
        run(Args { name: name.clone() }).unwrap();
        let secret = folder.path().join("site.2026.key");
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&secret).unwrap();
        assert!(run(Args { name }).is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), before);
    }
}
