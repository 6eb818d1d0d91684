//! `tests/golden/CASE/image.yaml` on the machine of `inventory.json` (the case's own, else the one beside the
//! cases) gives exactly `plan.txt`, or exactly the mistakes of `diagnostics.txt`.
//!
//! `CASTIRON_BLESS=1` writes what comes out; review it as code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use castiron_engine::catalogue::Catalogue;
use castiron_engine::config;
use castiron_engine::diagnostic::Diagnostics;
use castiron_engine::inventory::Inventory;
use castiron_engine::plan::{disk, render};
use castiron_engine::resolve;
use castiron_engine::spec::Spec;

const PLAN: &str = "plan.txt";
const DIAGNOSTICS: &str = "diagnostics.txt";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.join("image.yaml").exists()).collect();
    cases.sort();
    cases
}

fn spec(case: &Path) -> Result<Spec, Diagnostics> {
    let config = fs::read(case.join("image.yaml")).unwrap();
    let own = case.join("inventory.json");
    let inventory = if own.exists() { own } else { folder().join("inventory.json") };
    let inventory: Inventory = serde_json::from_slice(&fs::read(inventory).unwrap()).unwrap();
    let seed = resolve::seed(&inventory, &config);
    let config = config::parse(&config, "image.yaml")?;
    resolve::resolve(&config, &inventory, &Catalogue::shipped().unwrap(), None, seed)
}

/// The name of the file and its text.
fn outcome(case: &Path) -> (&'static str, String) {
    match spec(case) {
        Err(found) => (DIAGNOSTICS, format!("{found}\n")),
        Ok(spec) => {
            let images =
                spec.graph.disks().map(|(id, _)| (id.clone(), format!("{id}.raw").into())).collect::<BTreeMap<_, _>>();
            let plan = disk::plan(&spec, &disk::Places { root: "/target".into(), images }).unwrap();
            (PLAN, render::text(&spec, &plan))
        }
    }
}

#[test]
fn every_case_gives_what_stands_beside_it() {
    let bless = std::env::var_os("CASTIRON_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let (name, text) = outcome(&case);
        let other = if name == PLAN { DIAGNOSTICS } else { PLAN };
        if bless {
            fs::write(case.join(name), &text).unwrap();
            let _ = fs::remove_file(case.join(other));
        }
        let expected = fs::read_to_string(case.join(name)).unwrap_or_default();
        if expected != text || case.join(other).exists() {
            wrong.push(format!("{}: {name} is now\n{text}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A plan is data that comes back as it was, and the same input gives the same plan.
#[test]
fn every_plan_is_the_same_again() {
    for case in cases() {
        let (Ok(spec), Ok(again)) = (spec(&case), spec(&case)) else { continue };
        assert_eq!(spec, again, "{}", case.display());
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec, "{}", case.display());
    }
}

/// What `castiron validate` finds without a machine is also found with one.
#[test]
fn a_config_that_plans_is_valid_everywhere() {
    let catalogue = Catalogue::shipped().unwrap();
    for case in cases().iter().filter(|case| spec(case).is_ok()) {
        let config = config::parse(&fs::read(case.join("image.yaml")).unwrap(), "image.yaml").unwrap();
        let found = resolve::check(&config, &catalogue);
        assert!(!found.has_errors(), "{}: {found}", case.display());
    }
}

#[test]
fn there_are_cases_of_both_kinds() {
    let count = |name: &str| cases().iter().filter(|case| case.join(name).exists()).count();
    assert!(count(DIAGNOSTICS) >= 30 && count(PLAN) >= 5, "{} and {}", count(DIAGNOSTICS), count(PLAN));
}
