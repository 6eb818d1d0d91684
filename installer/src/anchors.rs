//! What this appliance trusts before it knows any config: keys for configs, authorities for https. Both
//! come from the initramfs and from the command line. Reads below a given root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use castiron_engine::fetch::FetchOptions;
use castiron_engine::trust::{KeyError, Policy, TrustedKey};
use castiron_engine::units::Digest;
use thiserror::Error;

/// Public keys for configs, one a file, `NAME.pub`.
const KEYS: &str = "etc/castiron/trusted-keys";
/// Certificate authorities besides the bundled ones, `NAME.pem`.
const AUTHORITIES: &str = "etc/castiron/ca";

#[derive(Debug, Error)]
pub enum AnchorError {
    #[error("a key for configs cannot be used")]
    Key(#[from] KeyError),
    #[error("castiron.ca={text} is neither a PEM file of the appliance nor a certificate in base64")]
    Authority { text: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// What the command line says about trust.
#[derive(Clone, Debug, Default)]
pub struct TrustArguments<'a> {
    /// Every `castiron.key=`.
    pub keys: &'a [String],
    /// `castiron.config.hash=`.
    pub pin: Option<Digest>,
    /// `castiron.trust=any`.
    pub any: bool,
}

/// The keys in the initramfs and the words of the command line as one policy.
pub fn policy(root: &Path, arguments: &TrustArguments<'_>) -> Result<Policy, AnchorError> {
    let mut policy = Policy { pin: arguments.pin, any: arguments.any, ..Policy::default() };
    for path in files(&root.join(KEYS), "pub")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        policy.keys.push(TrustedKey::parse(name, &String::from_utf8_lossy(&read(&path)?))?);
    }
    for text in arguments.keys {
        policy.add_key_argument(text)?;
    }
    Ok(policy)
}

/// How the fetcher of this appliance reaches the network. A `castiron.ca=` is a path in the appliance or
/// one certificate, DER in base64.
pub fn fetch_options(root: &Path, proxy: Option<&str>, ca: &[String]) -> Result<FetchOptions, AnchorError> {
    let mut options = FetchOptions { proxy: proxy.map(str::to_owned), ..FetchOptions::default() };
    for path in files(&root.join(AUTHORITIES), "pem")? {
        options.extra_ca_pem.push(read(&path)?);
    }
    for text in ca {
        options.extra_ca_pem.push(match text.strip_prefix('/') {
            Some(relative) => read(&root.join(relative))?,
            None => {
                let der = STANDARD.decode(text).ok().filter(|der| der.first() == Some(&0x30));
                let der = der.ok_or_else(|| AnchorError::Authority { text: text.clone() })?;
                pem(&der).into_bytes()
            }
        });
    }
    Ok(options)
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn read(path: &Path) -> Result<Vec<u8>, AnchorError> {
    fs::read(path).map_err(|source| AnchorError::Read { path: path.to_owned(), source })
}

/// Files of a folder with that extension, by name. No folder holds none.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, AnchorError> {
    let failed = |source| AnchorError::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWSlNdPSU6xMeFn316TmdX4i91DVPcf7gyJ+9pFDDRX2goLTLyNd1LR5";

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn keys_of_the_initramfs_and_of_the_command_line() {
        let key_file = format!("untrusted comment: minisign public key\n{KEY}\n");
        let root =
            root(&[("etc/castiron/trusted-keys/site.pub", &key_file), ("etc/castiron/trusted-keys/README", "x")]);
        let arguments = [KEY.to_owned()];
        let policy = policy(root.path(), &TrustArguments { keys: &arguments, ..TrustArguments::default() }).unwrap();
        let names: Vec<&str> = policy.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["site.pub", "castiron.key="]);
    }

    #[test]
    fn a_broken_key_stops_everything() {
        let root = root(&[("etc/castiron/trusted-keys/site.pub", "hello")]);
        assert!(policy(root.path(), &TrustArguments::default()).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(policy(empty.path(), &TrustArguments::default()).unwrap(), Policy::default());
    }

    #[test]
    fn authorities() {
        let root = root(&[("etc/castiron/ca/site.pem", "PEM 1"), ("etc/other.pem", "PEM 2")]);
        let ca = ["/etc/other.pem".to_owned(), STANDARD.encode([0x30, 3, 2, 1, 0])];
        let options = fetch_options(root.path(), Some("http://proxy:3128"), &ca).unwrap();
        let texts: Vec<_> = options.extra_ca_pem.iter().map(|pem| String::from_utf8_lossy(pem)).collect();
        assert_eq!(texts[..2], ["PEM 1", "PEM 2"]);
        assert_eq!(texts[2], "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n");
        assert_eq!(options.proxy.as_deref(), Some("http://proxy:3128"));
        for wrong in ["/etc/none.pem", "hello"] {
            assert!(fetch_options(root.path(), None, &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
