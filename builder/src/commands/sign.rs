//! `castiron sign`: the envelope that makes a config count. The signature is minisign's.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use castiron_engine::trust::{Envelope, Scope, Window};
use jiff::{SignedDuration, Timestamp};
use minisign::{PublicKey, SecretKey, SecretKeyBox};

use super::Report;

/// Sign a config for some machines and some time
///
/// Writes FILE.minisig, to be served beside FILE. `minisign -V` can check it too.
#[derive(clap::Args)]
pub struct Args {
    /// The config.
    file: Utf8PathBuf,
    /// The secret key, made by `castiron keygen` or minisign.
    #[arg(long)]
    key: Utf8PathBuf,
    /// A file with the password, for a key that has one.
    #[arg(long)]
    password_file: Option<Utf8PathBuf>,
    /// The first moment it counts (RFC 3339 or a date); now if not given.
    #[arg(long, value_parser = time)]
    not_before: Option<Timestamp>,
    /// The last moment it counts (RFC 3339 or a date); 30 days after the first if not given.
    #[arg(long, value_parser = time)]
    not_after: Option<Timestamp>,
    /// The machines: `any`, or a comma list of mac:…, uuid:… and serial:…, with * and ?.
    #[arg(long, default_value = "any")]
    machine: Scope,
    /// Where the signature goes; FILE.minisig if not given.
    #[arg(short, long)]
    output: Option<Utf8PathBuf>,
}

const VALID_DEFAULT: SignedDuration = SignedDuration::from_hours(30 * 24);

fn time(text: &str) -> Result<Timestamp, String> {
    let midnight = || format!("{text}T00:00:00Z").parse();
    text.parse().or_else(|_| midnight()).map_err(|_| "write 2026-09-01T00:00:00Z or 2026-09-01".to_owned())
}

pub fn run(args: Args) -> Result<(), Report> {
    let envelope = envelope(&args, now_in_seconds())?;
    let document = read(&args.file)?;
    let key = secret_key(&args)?;
    let public = PublicKey::from_secret_key(&key)?;
    let signature = minisign::sign(
        Some(&public),
        &key,
        document.as_slice(),
        Some(&envelope.to_string()),
        Some("signature from castiron"),
    )?;
    let output = args.output.unwrap_or_else(|| format!("{}.minisig", args.file).into());
    fs::write(&output, signature.into_string())
        .map_err(|error| Report::failure(format!("error: cannot write {output}\n  cause: {error}")))?;
    println!("{output}: {envelope}");
    Ok(())
}

fn now_in_seconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn envelope(args: &Args, now: Timestamp) -> Result<Envelope, Report> {
    let not_before = args.not_before.unwrap_or(now);
    let not_after = match args.not_after {
        Some(time) => time,
        None => not_before.checked_add(VALID_DEFAULT)?,
    };
    if not_after < not_before {
        return Err(Report::usage(format!("error: --not-after {not_after} is before --not-before {not_before}")));
    }
    Ok(Envelope { window: Window { not_before, not_after }, scope: args.machine.clone() })
}

fn read(path: &Utf8Path) -> Result<Vec<u8>, Report> {
    fs::read(path).map_err(|error| Report::failure(format!("error: cannot read {path}\n  cause: {error}")))
}

/// A key that has a password gets it from the file, or asks for it.
fn secret_key(args: &Args) -> Result<SecretKey, Report> {
    let unusable = |cause: &dyn std::fmt::Display| {
        Report::usage(format!("error: cannot use the secret key {}\n  cause: {cause}", args.key))
            .with_hint("make one with `castiron keygen`")
    };
    let text = String::from_utf8(read(&args.key)?).map_err(|error| unusable(&error))?;
    // Read here and not by the crate, whose own reading of keys without password insists on a checksum
    // that the minisign tool leaves zero. The signature is checked against the public half below.
    let line = text.lines().nth(1).unwrap_or_default().trim();
    let key = STANDARD.decode(line).map_err(|error| unusable(&error))?;
    let key = SecretKey::from_bytes(&key).map_err(|error| unusable(&error))?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let password = match &args.password_file {
        Some(path) => Some(String::from_utf8_lossy(&read(path)?).trim_end_matches(['\r', '\n']).to_owned()),
        None => None,
    };
    let boxed = SecretKeyBox::from_string(&text).map_err(|error| unusable(&error))?;
    boxed.into_secret_key(password).map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use castiron_engine::trust::{ClockEvidence, Document, Machine, Origin, Policy, TrustedKey, verify};

    use super::*;

    fn signed(machine: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        fs::write(path("site.key"), pair.sk.to_box(None).unwrap().into_string()).unwrap();
        fs::write(path("node.yaml"), "castiron: 1\n").unwrap();
        run(Args {
            file: path("node.yaml"),
            key: path("site.key"),
            password_file: None,
            not_before: Some(time("2026-09-01").unwrap()),
            not_after: Some(time("2026-10-01T12:00:00+02:00").unwrap()),
            machine: machine.parse().unwrap(),
            output: None,
        })
        .unwrap();
        let document = Document {
            name: "node.yaml".into(),
            origin: Origin::Foreign,
            bytes: fs::read(path("node.yaml")).unwrap(),
            signature: Some(fs::read_to_string(path("node.yaml.minisig")).unwrap()),
        };
        let key = TrustedKey::parse("site.pub", &pair.pk.to_box().unwrap().into_string()).unwrap();
        let policy = Policy { keys: vec![key], ..Policy::default() };
        let machine = Machine { serial: Some("X1".into()), ..Machine::default() };
        let clock = ClockEvidence { floor: time("2026-09-02").unwrap(), hardware: None, network: None };
        match verify(document, &policy, &machine, &clock) {
            Ok(verified) => Ok(verified.proof().to_string()),
            Err(error) => Err(error.rule().to_owned()),
        }
    }

    #[test]
    fn what_is_signed_here_is_accepted_by_the_engine() {
        let proof = "signed by site.pub, \
                     castiron not-before=2026-09-01T00:00:00Z not-after=2026-10-01T10:00:00Z machine=serial:X*";
        assert_eq!(signed("serial:X*"), Ok(proof.to_owned()));
        assert_eq!(signed("serial:Y*"), Err("trust.other-machine".into()));
    }

    /// Made by `minisign -G -W`: no password, and no checksum either.
    const KEY_OF_THE_TOOL: &str = "untrusted comment: minisign encrypted secret key
RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAkBZYWwzin7ieJIeYKOBZIXo8Dylk5mpten+0fi7iBEMKsbKVV7FC0nLISE1UGAOn7GEqHNiL5a5pyQF6StDtTo8kI/ifuhZ0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
";

    #[test]
    fn a_key_of_the_minisign_tool_can_sign() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("tool.key")).unwrap();
        fs::write(&path, KEY_OF_THE_TOOL).unwrap();
        let args = Args {
            file: path.clone(),
            key: path,
            password_file: None,
            not_before: None,
            not_after: None,
            machine: Scope::Any,
            output: None,
        };
        let key = secret_key(&args).unwrap();
        let public = PublicKey::from_secret_key(&key).unwrap();
        assert!(minisign::sign(Some(&public), &key, &b"iron"[..], None, None).is_ok());
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("2026-09-01").unwrap().to_string(), "2026-09-01T00:00:00Z");
        assert_eq!(time("2026-09-01T02:00:00+02:00").unwrap().to_string(), "2026-09-01T00:00:00Z");
        assert!(time("tomorrow").is_err());
    }
}
