//! Host name, users, files and settings of the target, and the secrets that they refer to.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use camino::Utf8PathBuf;

use super::{Context, machine, network};
use crate::config::Config;
use crate::config::source::Mirror;
use crate::config::system::{Encoding, Reporter, ReporterType, User, WriteFile};
use crate::config::values::HostName;
use crate::config::variables;
use crate::debian;
use crate::diagnostic::Diagnostic;
use crate::spec::{Content, FileSpec, SecretRef, Secrets, SystemSpec, UserSpec};
use crate::units::Mode;

pub fn resolve(context: &mut Context<'_>) -> SystemSpec {
    let config = context.config;
    let values = machine::variables(config, context.inventory);
    let hostname = hostname(&values, context);
    let users = config.users.iter().enumerate().map(|(index, user)| decide_user(index, user, context)).collect();
    check_users(context);
    let mut files = network::files(context);
    files.extend(config.write_files.iter().enumerate().map(|(index, file)| decide_file(index, file, &values, context)));
    check_files(context);
    check_locale(context);
    for (name, reporter) in &config.reporting {
        check_reporter(&name.0, reporter, context);
    }
    SystemSpec {
        hostname,
        locale: config.locale.clone().or_else(|| Some("C.UTF-8".to_owned())),
        timezone: config.timezone.clone().or_else(|| Some("Etc/UTC".to_owned())),
        users,
        files,
        apt_sources: apt_sources(context),
        debconf: debconf(config),
    }
}

/// What the [`SecretRef`]s of a spec stand for; the caller hands it to the door.
pub fn secrets(config: &Config) -> Secrets {
    let hashes =
        config.users.iter().filter_map(|user| Some((password_ref(user), user.hashed_passwd.as_ref()?.0.clone())));
    hashes.collect()
}

fn password_ref(user: &User) -> SecretRef {
    SecretRef(format!("users/{}/hashed_passwd", user.name.0))
}

fn hostname(values: &BTreeMap<String, String>, context: &mut Context<'_>) -> Option<String> {
    let Some(written) = &context.config.identity.hostname else { return Some(context.distribution.name.clone()) };
    let wrong = match variables::expand(&written.0, |name| values.get(name).map(String::as_str)) {
        Ok(name) if HostName::is_valid(&name) => return Some(name),
        // Addresses come with colons, serial numbers with anything.
        Ok(name) => {
            let plain: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
            let plain = plain.trim_matches('-').to_owned();
            if HostName::is_valid(&plain) {
                return Some(plain.to_lowercase());
            }
            format!("`{}` is not a host name", name.escape_debug())
        }
        Err(message) => message,
    };
    let known: Vec<&str> = values.keys().map(String::as_str).collect();
    let wrong = Diagnostic::error("identity.hostname", wrong).hint(format!("known here: {}", known.join(", ")));
    context.refuse("identity.hostname", wrong);
    None
}

fn decide_user(index: usize, user: &User, context: &mut Context<'_>) -> UserSpec {
    let path = format!("users[{index}]");
    if let Some(hash) = &user.hashed_passwd
        && !is_crypt_hash(hash.0.expose())
    {
        let wrong = Diagnostic::error("users.passwd", format!("the password of `{}` is not a hash", user.name.0));
        context.refuse(
            &format!("{path}.hashed_passwd"),
            wrong.hint("make one with `mkpasswd -m yescrypt`; it begins with $y$ or $6$"),
        );
    }
    if user.gecos.as_ref().is_some_and(|gecos| gecos.contains(|c: char| c == ':' || c.is_control())) {
        let wrong = Diagnostic::error("users.gecos", "the full name has a `:` or a line break");
        context.refuse(&format!("{path}.gecos"), wrong.hint("leave it out"));
    }
    for rule in &user.sudo.0 {
        if rule.chars().any(char::is_control) {
            let wrong = Diagnostic::error("users.sudo", "a rule of sudo has a line break");
            context.refuse(&format!("{path}.sudo"), wrong.hint("write one rule a list item"));
        }
    }
    let groups = user.primary_group.iter().chain(&user.groups).map(|group| group.0.clone()).collect();
    UserSpec {
        name: user.name.0.clone(),
        uid: user.uid,
        gecos: user.gecos.clone(),
        home: user.home.as_ref().map(|home| home.0.clone()),
        shell: user.shell.as_ref().map(|shell| shell.0.to_string()),
        groups,
        system: user.system,
        lock_passwd: user.lock_passwd.unwrap_or(user.hashed_passwd.is_none()),
        hashed_passwd: user.hashed_passwd.as_ref().map(|_| password_ref(user)),
        ssh_authorized_keys: user.ssh_authorized_keys.iter().map(|key| key.0.clone()).collect(),
        sudo: user.sudo.0.iter().filter(|rule| *rule != "false").cloned().collect(),
    }
}

/// crypt(5): `$id$…`, printable, without `:`.
fn is_crypt_hash(text: &str) -> bool {
    text.starts_with('$')
        && text.matches('$').count() >= 3
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

fn check_users(context: &mut Context<'_>) {
    let config = context.config;
    let mut names = BTreeSet::new();
    let mut uids = BTreeSet::new();
    for (index, user) in config.users.iter().enumerate() {
        if !names.insert(&user.name) {
            let wrong = Diagnostic::error("users.duplicate", format!("user `{}` is given twice", user.name.0));
            context.refuse(&format!("users[{index}].name"), wrong.hint("leave one of them out"));
        }
        if let Some(uid) = user.uid.filter(|uid| !uids.insert(*uid)) {
            let wrong = Diagnostic::error("users.duplicate", format!("uid {uid} is given twice"));
            context.refuse(&format!("users[{index}].uid"), wrong.hint("leave one of them out"));
        }
    }
}

/// Only `${vars.NAME}` is replaced, so that a script's own `${name}` stays as it is.
fn decide_file(
    index: usize,
    file: &WriteFile,
    values: &BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> FileSpec {
    let path = format!("write_files[{index}]");
    let content = match file.encoding {
        Encoding::Text => match fill_in(&file.content, values) {
            Ok(text) => Content::Text(text),
            Err(name) => {
                let wrong = Diagnostic::error("write_files.variable", format!("variable `{name}` has no value"));
                context.refuse(&format!("{path}.content"), wrong.hint("give it one below `identity: { vars: … }`"));
                Content::Text(String::new())
            }
        },
        Encoding::Base64 => {
            let text: String = file.content.chars().filter(|c| !c.is_whitespace()).collect();
            if base64::engine::general_purpose::STANDARD.decode(&text).is_err() {
                let wrong = Diagnostic::error("write_files.content", "the content is not base64");
                context
                    .refuse(&format!("{path}.content"), wrong.hint("encode it with `base64`, or leave `encoding` out"));
            }
            Content::Base64(text)
        }
    };
    let user = file.owner.as_ref().map_or("root", |owner| owner.user.as_str());
    let group = file.owner.as_ref().and_then(|owner| owner.group.as_deref()).unwrap_or(user);
    FileSpec {
        path: file.path.0.clone(),
        mode: file.mode.map_or(Mode(0o644), |mode| mode.0),
        user: user.to_owned(),
        group: group.to_owned(),
        content,
        append: false,
    }
}

fn fill_in(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${vars.") {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        let value = values.get(&format!("vars.{name}")).ok_or_else(|| format!("vars.{name}"))?;
        out += before;
        out += value;
        rest = after;
    }
    Ok(out + rest)
}

fn check_files(context: &mut Context<'_>) {
    let mut paths: BTreeSet<&Utf8PathBuf> = BTreeSet::new();
    for (index, file) in context.config.write_files.iter().enumerate() {
        let path = format!("write_files[{index}].path");
        let at = &file.path.0;
        if at == "/" || at.as_str().ends_with('/') {
            context.refuse(
                &path,
                Diagnostic::error("write_files.path", format!("`{at}` is a folder")).hint("name a file"),
            );
        }
        if !paths.insert(at) {
            let wrong = Diagnostic::error("write_files.duplicate", format!("{at} is written twice"));
            context.refuse(&path, wrong.hint("leave one of them out"));
        }
        if ["/proc", "/sys", "/dev", "/run"].iter().any(|own| at.starts_with(own)) {
            let wrong = Diagnostic::error("write_files.path", format!("{at} would be gone at the next boot"));
            context.refuse(&path, wrong.hint("choose a path on a disk"));
        }
    }
}

/// `language_TERRITORY.codeset@modifier`, and a path below `/usr/share/zoneinfo`.
fn check_locale(context: &mut Context<'_>) {
    let plain = |text: &str, also: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if let Some(locale) = &context.config.locale
        && !plain(locale, "_.@-")
    {
        let wrong = Diagnostic::error("locale", format!("`{}` is not a locale", locale.escape_debug()));
        context.refuse("locale", wrong.hint("write such as en_US.UTF-8 or C.UTF-8"));
    }
    if let Some(timezone) = &context.config.timezone
        && (!plain(timezone, "/_+-") || timezone.starts_with('/') || timezone.ends_with('/'))
    {
        let wrong = Diagnostic::error("timezone", format!("`{}` is not a time zone", timezone.escape_debug()));
        context.refuse("timezone", wrong.hint("write such as Etc/UTC or Europe/Berlin"));
    }
    if let Some(keyboard) = &context.config.keyboard {
        let variant = keyboard.variant.as_deref().unwrap_or("x");
        if !plain(&keyboard.layout, ",_-") || !plain(variant, ",_-") {
            let wrong = Diagnostic::error("keyboard", "this is not a keyboard layout");
            context.refuse("keyboard", wrong.hint("write such as `{ layout: de, variant: nodeadkeys }`"));
        }
    }
}

fn check_reporter(name: &str, reporter: &Reporter, context: &mut Context<'_>) {
    let path = format!("reporting.{name}");
    match reporter.r#type {
        ReporterType::Webhook => check_webhook(name, reporter, context),
        ReporterType::Syslog => match reporter.server.as_deref() {
            Some(server) if is_server(server) => {}
            Some(server) => {
                let wrong = format!("`{}` is not a server", server.escape_debug());
                let wrong = Diagnostic::error("reporting.server", wrong).hint("write HOST or HOST:PORT");
                context.refuse(&format!("{path}.server"), wrong);
            }
            None => {
                let wrong = Diagnostic::error("reporting.server", format!("syslog `{name}` has no `server`"));
                context.refuse(&path, wrong.hint("write where it listens: HOST or HOST:PORT"));
            }
        },
        ReporterType::Print => {}
        ReporterType::Led => {
            let wrong = Diagnostic::error("config.later", "led is not in this version of castiron");
            context.refuse(&format!("{path}.type"), wrong.hint("write webhook, syslog or print"));
        }
    }
    let own = |kind| reporter.r#type == kind;
    for (key, given, of) in [
        ("endpoint", reporter.endpoint.is_some() && !own(ReporterType::Webhook), "webhook"),
        ("token", reporter.token.is_some() && !own(ReporterType::Webhook), "webhook"),
        ("server", reporter.server.is_some() && !own(ReporterType::Syslog), "syslog"),
    ] {
        if given {
            let wrong = Diagnostic::error("reporting.unused", format!("only a {of} has `{key}`"));
            context.refuse(&format!("{path}.{key}"), wrong.hint("leave it out"));
        }
    }
}

fn check_webhook(name: &str, reporter: &Reporter, context: &mut Context<'_>) {
    let path = format!("reporting.{name}");
    let Some(endpoint) = &reporter.endpoint else {
        let wrong = Diagnostic::error("reporting.endpoint", format!("webhook `{name}` has no `endpoint`"));
        return context.refuse(&path, wrong.hint("write where events are posted"));
    };
    let secure = endpoint.starts_with("https://");
    if !secure && !endpoint.starts_with("http://") {
        let wrong = format!("`{}` is not an http address", endpoint.escape_debug());
        let wrong = Diagnostic::error("reporting.endpoint", wrong);
        context.refuse(&format!("{path}.endpoint"), wrong.hint("write such as https://cfg.example.org/events/${uuid}"));
    } else if !secure && reporter.token.is_some() {
        // RFC 6750, 5.3.
        let wrong = Diagnostic::error("reporting.token", "the token would go over the network for all to read");
        context.refuse(&format!("{path}.token"), wrong.hint("use an https endpoint, or leave the token out"));
    }
    if let Some(token) = &reporter.token
        && (token.0.expose().is_empty() || !token.0.expose().bytes().all(|byte| byte.is_ascii_graphic()))
    {
        let wrong = Diagnostic::error("reporting.token", "the token is empty, or has characters that no token has");
        context.refuse(&format!("{path}.token"), wrong.hint("ASCII without blanks"));
    }
}

/// A name or an address, and a port behind a colon.
fn is_server(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]%_".contains(c);
    !text.is_empty() && !text.starts_with(':') && text.chars().all(plain)
}

/// The config's mirrors for the target's apt, else where the packages came from.
fn apt_sources(context: &Context<'_>) -> Option<String> {
    let own_keys = context.bootstrap.keyring.is_some() || context.packages.is_some_and(|set| set.apt_keys.is_some());
    let signed_by = if own_keys { debian::APT_KEYS } else { &context.distribution.keyring };
    let stanza = |mirror: &Mirror| {
        let suites = match mirror.suites.as_slice() {
            [] => context.bootstrap.release.clone(),
            suites => suites.join(" "),
        };
        let uri = mirror.target_uri.as_ref().unwrap_or(&mirror.uri);
        debian::apt_source(uri, &suites, &mirror.components.join(" "), signed_by)
    };
    let sources = match context.bootstrap.mirrors.as_slice() {
        [] => context.packages.map(|packages| packages.apt_sources(signed_by)).unwrap_or_default(),
        mirrors => mirrors.iter().map(stanza).collect::<Vec<_>>().join("\n"),
    };
    (!sources.is_empty()).then_some(sources)
}

/// Answers to what the packages of keyboard, locale and time zone ask.
fn debconf(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(keyboard) = &config.keyboard {
        lines.push(format!("keyboard-configuration keyboard-configuration/layoutcode string {}", keyboard.layout));
        let variant = keyboard.variant.as_deref().unwrap_or_default();
        lines.push(format!("keyboard-configuration keyboard-configuration/variantcode string {variant}"));
    }
    if let Some(locale) = config.locale.as_deref().filter(|locale| super::archive::needs_locales(locale)) {
        let charset = locale.split_once('.').map_or("UTF-8", |(_, charset)| charset);
        lines.push(format!("locales locales/locales_to_be_generated multiselect {locale} {charset}"));
        lines.push(format!("locales locales/default_environment_locale select {locale}"));
    }
    if let Some((area, city)) = config.timezone.as_deref().and_then(|zone| zone.split_once('/')) {
        lines.push(format!("tzdata tzdata/Areas select {area}"));
        lines.push(format!("tzdata tzdata/Zones/{area} select {city}"));
    }
    lines
}
