use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

/// A web of files; a URL may fail a few times before it answers.
#[derive(Default)]
struct Web {
    files: BTreeMap<&'static str, Vec<u8>>,
    failures: RefCell<BTreeMap<&'static str, u32>>,
    asked: RefCell<Vec<String>>,
}

impl Fetch for Web {
    fn get(&self, url: &str, _max: Bytes) -> Result<Vec<u8>, SourceError> {
        self.asked.borrow_mut().push(url.to_owned());
        let status = |status| SourceError::Fetch(FetchError::Status { url: url.to_owned(), status, retry_after: None });
        if let Some(left) = self.failures.borrow_mut().get_mut(url)
            && *left > 0
        {
            *left -= 1;
            return Err(status(503));
        }
        self.files.get(url).cloned().ok_or_else(|| status(404))
    }
}

fn web(files: &[(&'static str, &str)]) -> Web {
    Web { files: files.iter().map(|(url, text)| (*url, text.as_bytes().to_vec())).collect(), ..Web::default() }
}

/// `NAME: CONTENT (signed)` of what is found, or the error and its cause.
fn check(web: &Web, change: impl FnOnce(&mut SourceRequest), expected: &str) {
    let root = tempfile::tempdir().unwrap();
    let mut request = SourceRequest { root: root.path().to_owned(), ..SourceRequest::default() };
    change(&mut request);
    let text = match find(&request, web, &mut Vec::<Event>::new()) {
        Ok(document) => format!(
            "{}: {}{}",
            document.name,
            String::from_utf8_lossy(&document.bytes),
            document.signature.map(|text| format!(" ({text})")).unwrap_or_default()
        ),
        Err(error) => match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    assert_eq!(text, expected);
}

#[test]
fn a_url_and_the_signature_beside_it() {
    let web =
        web(&[("http://h/a.yaml", "config"), ("http://h/a.yaml.minisig", "signed"), ("http://h/b.yaml", "other")]);
    let at = |url: &'static str| move |request: &mut SourceRequest| request.config = Some(url.to_owned());
    check(&web, at("http://h/a.yaml"), "http://h/a.yaml: config (signed)");
    check(&web, at("http://h/b.yaml"), "http://h/b.yaml: other");
    check(&web, at("http://h/c.yaml"), "cannot fetch the config: http://h/c.yaml: the server answers 404");
    assert_eq!(beside("http://h/cfg?mac=1"), "http://h/cfg.minisig?mac=1");
}

#[test]
fn a_pinned_config_needs_no_signature() {
    let web = web(&[("http://h/a.yaml", "config")]);
    let request = |request: &mut SourceRequest| {
        request.config = Some("http://h/a.yaml".into());
        request.signature = false;
    };
    check(&web, request, "http://h/a.yaml: config");
    assert_eq!(*web.asked.borrow(), ["http://h/a.yaml"]);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let web = web(&[("http://h/a.yaml", "config")]);
    web.failures.borrow_mut().insert("http://h/a.yaml", 1);
    check(&web, |request| request.config = Some("http://h/a.yaml".into()), "http://h/a.yaml: config");
    web.failures.borrow_mut().insert("http://h/a.yaml", 1);
    let impatient = |request: &mut SourceRequest| {
        request.config = Some("http://h/a.yaml".into());
        request.patience = Duration::ZERO;
    };
    check(&web, impatient, "cannot fetch the config: http://h/a.yaml: the server answers 503");
}

#[test]
fn a_signature_that_cannot_be_fetched_is_not_a_missing_one() {
    let web = web(&[("http://h/a.yaml", "config")]);
    web.failures.borrow_mut().insert("http://h/a.yaml.minisig", 9);
    let request = |request: &mut SourceRequest| {
        request.config = Some("http://h/a.yaml".into());
        request.patience = Duration::ZERO;
    };
    check(&web, request, "cannot fetch the config: http://h/a.yaml.minisig: the server answers 503");
}

#[test]
fn inline_configs() {
    let plain = STANDARD.encode("config");
    let packed = STANDARD.encode(zstd::encode_all(&b"config"[..], 3).unwrap());
    for text in [plain, packed.replace('+', "-").replace('/', "_"), packed] {
        check(&Web::default(), |request| request.inline = Some(text), "castiron.config.inline=: config");
    }
    let wrong = "castiron.config.inline= is not base64 of a config, plain or compressed with zstd";
    check(&Web::default(), |request| request.inline = Some("!".into()), wrong);
    let bomb = STANDARD.encode(zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap());
    check(&Web::default(), |request| request.inline = Some(bomb), wrong);
    check(&Web::default(), |request| request.early = Some(String::new()), "castiron.config.early= is empty");
}

#[test]
fn the_first_place_wins() {
    let web = web(&[("http://h/a.yaml", "named"), ("http://d/a.yaml", "dhcp")]);
    let everything = |request: &mut SourceRequest| {
        fs::create_dir_all(request.root.join("etc/castiron")).unwrap();
        fs::write(request.root.join(DROP_IN), "built in").unwrap();
        request.early = Some(STANDARD.encode("early"));
        request.config = Some("http://h/a.yaml".into());
        request.dhcp_urls = vec!["http://d/a.yaml".into()];
        request.inline = Some(STANDARD.encode("inline"));
    };
    check(&web, everything, "castiron.config.early=: early");
    let later = |steps: usize| {
        move |request: &mut SourceRequest| {
            everything(request);
            request.early = None;
            if steps > 0 {
                fs::remove_file(request.root.join(DROP_IN)).unwrap();
            }
            if steps > 1 {
                request.config = None;
            }
            if steps > 2 {
                request.dhcp_urls.clear();
            }
            if steps > 3 {
                request.inline = None;
            }
        }
    };
    check(&web, later(0), "/etc/castiron/config.yaml: built in");
    check(&web, later(1), "http://h/a.yaml: named");
    check(&web, later(2), "http://d/a.yaml: dhcp");
    check(&web, later(3), "castiron.config.inline=: inline");
    let nothing = "there is no config: none in the initramfs, no castiron.config=, none from DHCP, \
                   no file system labelled CASTIRON";
    check(&web, later(4), nothing);
}

#[test]
fn places_that_do_not_exist() {
    let at = |text: &'static str| move |request: &mut SourceRequest| request.config = Some(text.to_owned());
    check(&Web::default(), at("none"), "castiron.config=none: no config is wanted");
    check(&Web::default(), at("ftp://h/a"), "castiron.config=ftp://h/a names no place this appliance can read");
    check(
        &Web::default(),
        at("file:///etc/shadow"),
        "castiron.config=file:///etc/shadow names no place this appliance can read",
    );
    check(&Web::default(), at("label:STICK/a.yaml"), "cannot read the config of file system STICK: there is none");
    check(
        &Web::default(),
        at("http://h/${mac}"),
        "the variables of castiron.config= cannot be filled in: this machine has no mac for ${mac}",
    );
}
