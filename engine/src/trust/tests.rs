//! A document is broken in every way the wire and an attacker can break it.
//! The keys and signatures below were made with the minisign tool itself.

use super::*;

const KEY_A: &str = "untrusted comment: minisign public key B89FE20C5B581690
RWSQFlhbDOKfuHLISE1UGAOn7GEqHNiL5a5pyQF6StDtTo8kI/ifuhZ0
";
const KEY_B: &str = "RWSlNdPSU6xMeFn316TmdX4i91DVPcf7gyJ+9pFDDRX2goLTLyNd1LR5";
const DOCUMENT: &[u8] = b"castiron: 1\n";
const SIGNATURE_BY_A: &str = "untrusted comment: signature from minisign secret key
RUSQFlhbDOKfuDDoa+xhe607uT+xmqvalj9+ZBhLLeivFfdz8XpUabTWHH+LnDSdkknofvE6IEXDvvFKPgntG1BppU3E0dHpBAo=
trusted comment: castiron not-before=2026-09-01T00:00:00Z not-after=2026-10-01T00:00:00Z machine=mac:52:54:*
Rq7UV8TGQc22yZpCFxNpETX4kt0P4ewuekdo05lPFwcUOBndCE7v24t+6QMeVwhL6D60k4bRbiTyJ1v1sZscDA==
";

fn document() -> Document {
    Document {
        name: "node7.yaml".into(),
        origin: Origin::Foreign,
        bytes: DOCUMENT.to_vec(),
        signature: Some(SIGNATURE_BY_A.into()),
    }
}

fn trusting(keys: &[&str]) -> Policy {
    Policy { keys: keys.iter().map(|key| TrustedKey::parse("site", key).unwrap()).collect(), ..Policy::default() }
}

fn machine(mac: &str) -> Machine {
    Machine { macs: vec![mac.into()], ..Machine::default() }
}

fn clock(now: &str) -> ClockEvidence {
    ClockEvidence { floor: Timestamp::UNIX_EPOCH, hardware: Some(now.parse().unwrap()), network: None }
}

/// What `verify` says in the usual surroundings, with `change` made to document and policy.
fn outcome(change: impl FnOnce(&mut Document, &mut Policy)) -> String {
    let (mut document, mut policy) = (document(), trusting(&[KEY_A]));
    change(&mut document, &mut policy);
    say(verify(document, &policy, &machine("52:54:00:12:34:56"), &clock("2026-09-15T00:00:00Z")))
}

fn say(result: Result<Verified<Document>, TrustError>) -> String {
    result.map_or_else(|error| error.rule().to_owned(), |verified| verified.proof().to_string())
}

#[test]
fn a_signature_of_the_minisign_tool_is_accepted() {
    assert_eq!(
        outcome(|_, _| {}),
        "signed by site, castiron not-before=2026-09-01T00:00:00Z not-after=2026-10-01T00:00:00Z machine=mac:52:54:*"
    );
}

#[test]
fn any_flipped_bit_is_refused() {
    for bit in 0..DOCUMENT.len() * 8 {
        assert_eq!(
            outcome(|document, _| document.bytes[bit / 8] ^= 1 << (bit % 8)),
            "trust.bad-signature",
            "bit {bit}"
        );
    }
}

#[test]
fn every_changed_character_of_the_signature_is_refused() {
    for (place, found) in SIGNATURE_BY_A.char_indices().filter(|(_, c)| *c != '\n') {
        let replaced = if found == 'A' { 'B' } else { 'A' };
        let mut text = SIGNATURE_BY_A.to_owned();
        text.replace_range(place..place + 1, &replaced.to_string());
        let said = outcome(|document, _| document.signature = Some(text.clone()));
        let untrusted = place < SIGNATURE_BY_A.find('\n').unwrap();
        assert_eq!(said.starts_with("signed by"), untrusted, "character {place}: {said}");
    }
}

#[test]
fn a_cut_signature_is_refused() {
    let end = SIGNATURE_BY_A.trim_end().len();
    for length in 0..end {
        let said = outcome(|document, _| document.signature = Some(SIGNATURE_BY_A[..length].to_owned()));
        assert!(said.starts_with("trust."), "cut to {length}: {said}");
    }
}

#[test]
fn refusals_have_names() {
    assert_eq!(outcome(|document, _| document.signature = None), "trust.unsigned");
    assert_eq!(outcome(|document, _| document.signature = Some("<html>".into())), "trust.malformed");
    assert_eq!(outcome(|_, policy| *policy = trusting(&[KEY_B])), "trust.unknown-key");
    assert_eq!(outcome(|_, policy| *policy = Policy::default()), "trust.unknown-key");
}

#[test]
fn time_and_machine_are_part_of_the_proof() {
    let check = |mac: &str, now: &str| say(verify(document(), &trusting(&[KEY_A]), &machine(mac), &clock(now)));
    assert_eq!(check("52:54:00:12:34:56", "2026-10-01T00:00:01Z"), "trust.expired");
    assert_eq!(check("52:54:00:12:34:56", "2026-08-31T23:59:59Z"), "trust.not-yet-valid");
    assert_eq!(check("02:00:00:12:34:56", "2026-09-15T00:00:00Z"), "trust.other-machine");
}

#[test]
fn a_fingerprint_narrows_the_keys_and_a_key_widens_them() {
    let fingerprint = |text| TrustedKey::parse("k", text).unwrap().fingerprint().to_string();
    let both = trusting(&[KEY_A, KEY_B]);
    let with = |argument: &str| {
        outcome(|_, policy| {
            *policy = both.clone();
            policy.add_key_argument(argument).unwrap();
        })
    };
    assert!(with(&fingerprint(KEY_A)).starts_with("signed by"));
    assert_eq!(with(&fingerprint(KEY_B)), "trust.unknown-key");
    let only_the_argument = outcome(|_, policy| {
        *policy = Policy::default();
        policy.add_key_argument(KEY_A.lines().nth(1).unwrap()).unwrap();
    });
    assert!(only_the_argument.starts_with("signed by castiron.key="), "{only_the_argument}");
    assert!(Policy::default().add_key_argument("sha256-12").is_err());
    assert!(Policy::default().add_key_argument("hunter2").is_err());
}

#[test]
fn a_pin_counts_instead_of_a_signature_and_never_less() {
    let pin = |bytes: &[u8]| {
        outcome(|document, policy| {
            document.signature = None;
            policy.pin = Some(Digest::of(bytes));
            policy.any = true;
        })
    };
    assert!(pin(DOCUMENT).starts_with("pinned by sha256-"));
    assert_eq!(pin(b"castiron: 2\n"), "trust.other-hash");
}

#[test]
fn what_came_with_the_appliance_needs_no_signature_and_any_must_be_said() {
    for (origin, said) in [
        (Origin::Initramfs, "built into the appliance"),
        (Origin::CommandLine, "given on the kernel command line"),
        (Origin::Foreign, "trust.unsigned"),
        (Origin::Medium, "trust.unsigned"),
    ] {
        let found = outcome(|document, _| {
            document.signature = None;
            document.origin = origin;
        });
        assert_eq!(found, said);
    }
    let any = outcome(|document, policy| {
        document.signature = None;
        policy.any = true;
    });
    assert_eq!(any, "NOT CHECKED: castiron.trust=any");
    let offered = outcome(|document, policy| {
        document.signature = None;
        document.origin = Origin::Offered;
        policy.any = true;
    });
    assert_eq!(offered, "trust.unsigned", "what a DHCP server points to must be signed");
}

#[test]
fn a_refusal_becomes_a_diagnostic_with_a_hint() {
    let error = verify(document(), &trusting(&[KEY_A]), &machine("02:00:00:00:00:07"), &clock("2026-09-15T00:00:00Z"))
        .unwrap_err();
    assert_eq!(
        Diagnostic::from(error).to_string(),
        "error: node7.yaml is for another machine: for mac:52:54:*, this is mac:02:00:00:00:00:07 [trust.other-machine]\n  \
         hint: sign it with a --machine that includes this one"
    );
}
