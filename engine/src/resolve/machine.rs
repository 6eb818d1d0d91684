//! Whether the config is for this machine, and the variables that the machine gives a value.

use std::collections::BTreeMap;

use super::Context;
use crate::config::Config;
use crate::config::variables;
use crate::diagnostic::Diagnostic;
use crate::inventory::Inventory;

/// Refuses a config that names another machine.
pub fn check(context: &mut Context<'_>) {
    let Some(wanted) = &context.config.identity.r#match else { return };
    let inventory = context.inventory;
    let dmi = &inventory.dmi;
    let device_tree_serial = inventory.device_tree.as_ref().and_then(|tree| tree.serial.clone());
    let own = [
        ("serial", &wanted.serial, dmi.serial.clone()),
        ("uuid", &wanted.uuid, dmi.uuid.clone()),
        ("asset_tag", &wanted.asset_tag, dmi.asset_tag.clone()),
        ("dt_serial", &wanted.dt_serial, device_tree_serial),
    ];
    for (key, wanted, own) in own {
        let Some(wanted) = wanted else { continue };
        if own.as_deref().is_none_or(|own| !own.eq_ignore_ascii_case(wanted)) {
            refuse(context, key, wanted, own.as_deref().unwrap_or("none"));
        }
    }
    if let Some(wanted) = &wanted.mac {
        let macs: Vec<&str> = inventory.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
        if !macs.iter().any(|mac| mac.eq_ignore_ascii_case(wanted)) {
            let own = if macs.is_empty() { "none".to_owned() } else { macs.join(", ") };
            refuse(context, "mac", wanted, &own);
        }
    }
}

fn refuse(context: &mut Context<'_>, key: &str, wanted: &str, own: &str) {
    let message = format!("this config is for the machine with {key} `{wanted}`; this one has {own}");
    let wrong = Diagnostic::error("identity.other-machine", message);
    context.refuse(&format!("identity.match.{key}"), wrong.hint("give this machine a config of its own"));
}

/// The values of `${…}`: the machine's identity, and `vars.NAME`, whose values may hold the former.
pub fn variables<'a>(config: &'a Config, inventory: &'a Inventory) -> BTreeMap<String, String> {
    let dmi = &inventory.dmi;
    let device_tree_serial = inventory.device_tree.as_ref().and_then(|tree| tree.serial.as_ref());
    let own = [
        ("uuid", dmi.uuid.as_ref()),
        ("serial", dmi.serial.as_ref()),
        ("asset_tag", dmi.asset_tag.as_ref()),
        ("dt_serial", device_tree_serial),
        ("mac", inventory.nics.iter().find_map(|nic| nic.mac.as_ref())),
    ];
    let mut values: BTreeMap<String, String> =
        own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone()))).collect();
    let written: Vec<(String, String)> = config
        .identity
        .vars
        .iter()
        .filter_map(|(name, text)| {
            let value = variables::expand(text, |name| values.get(name).map(String::as_str)).ok()?;
            Some((format!("vars.{}", name.0), value))
        })
        .collect();
    values.extend(written);
    values
}
