//! Every effect fails once; nothing may stay held, and the plan's data must survive being stored.

use camino::Utf8PathBuf;

use super::*;
use crate::block::FsKind;
use crate::plan::Plan;
use crate::system::Recorder;
use crate::units::{Bytes, NodeId};

fn plan() -> Plan {
    let mut plan = Plan::default();
    let disk = NodeId::new("disk");
    let place = |number, start| crate::plan::effect::PartitionPlace {
        node: NodeId::new(format!("p{number}")),
        number,
        start: Bytes::mib(start),
        length: Bytes::mib(8),
    };
    let mount = |number: u32, at: &str| Effect::Mount {
        node: NodeId::new(format!("p{number}")),
        kind: FsKind::Ext4,
        at: Utf8PathBuf::from(at),
        options: Vec::new(),
    };
    plan.add(
        StepPhase::Storage,
        "claim",
        "claim",
        vec![Effect::CreateFile { disk: disk.clone(), path: "/x/image".into(), size: Bytes::mib(64) }],
    );
    plan.add(
        StepPhase::Storage,
        "partition",
        "partition",
        vec![Effect::ScanPartitions { disk, partitions: vec![place(1, 1), place(2, 16)] }],
    );
    plan.add(StepPhase::Storage, "mount", "mount", vec![mount(1, "/t"), mount(2, "/t/boot")]);
    plan.add(StepPhase::BootLoader, "sync", "sync", vec![Effect::Sync { root: "/t".into() }]);
    plan
}

#[test]
fn nothing_stays_held_whichever_effect_fails() {
    let plan = plan();
    for index in 0..plan.effects().count() {
        let mut recorder = Recorder::failing_at(index);
        let mut journal = Journal::default();
        let outcome = run(&plan, &mut journal, &mut recorder, &mut Vec::new(), &mut (), OnFailure::Revert);
        assert!(outcome.is_err(), "effect {index} was told to fail");
        assert!(recorder.held().is_empty(), "held after effect {index} failed");
        assert!(Journal::held(journal.entries()).len() <= 1, "only what failed while it was acquired may be open");
        // After a failure the image is gone, if it had come into being.
        let removed = recorder.performed.iter().any(|effect| matches!(effect, Effect::RemoveFile { .. }));
        assert_eq!(removed, index > 0);
    }
}

#[test]
fn a_good_run_releases_in_reverse_and_reverts_nothing() {
    let mut recorder = Recorder::default();
    let mut events: Vec<Event> = Vec::new();
    run(&plan(), &mut Journal::default(), &mut recorder, &mut events, &mut (), OnFailure::Revert).unwrap();
    let last: Vec<_> = recorder.performed.iter().rev().take(2).map(ToString::to_string).collect();
    assert_eq!(last, ["unmount /t", "unmount /t/boot"]);
    assert_eq!(events.len(), 8, "each step starts and finishes");
}

#[test]
fn a_plan_survives_its_json_and_equal_plans_have_equal_ids() {
    let text = serde_json::to_string(&plan()).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan());
    let ids: std::collections::BTreeSet<_> = plan().steps.into_iter().map(|step| step.id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_torn_journal_tells_what_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().join("journal")).unwrap();
    let mut journal = Journal::in_file(&path).unwrap();
    let mut recorder = Recorder::default();
    run(&plan(), &mut journal, &mut recorder, &mut Vec::new(), &mut (), OnFailure::Keep).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.find("released").unwrap();
    std::fs::write(&path, &text[..cut]).unwrap();
    let held: Vec<_> = Journal::held(&Journal::read(&path).unwrap()).iter().map(ToString::to_string).collect();
    assert_eq!(held, ["unmount /t/boot", "unmount /t"]);
}

#[test]
fn after_a_failure_every_command_has_its_turn() {
    let commands = [1, 2, 3].map(|number| Effect::Exec(crate::plan::Cmd::host(format!("collect-{number}"))));
    let mut recorder = Recorder::failing_at(1);
    let mut events: Vec<Event> = Vec::new();
    after_failure(&commands, &mut recorder, &mut events);
    let performed: Vec<_> = recorder.performed.iter().map(ToString::to_string).collect();
    assert_eq!(performed, ["run: collect-1", "run: collect-3"]);
    let last = events.last().unwrap();
    assert_eq!((last.description.as_str(), last.result), ("1 of 3 error commands failed", Some(EventResult::Warn)));
    assert!(events.iter().any(|event| event.level == Level::Warn && event.description == "told to fail here"));
    events.clear();
    after_failure(&[], &mut recorder, &mut events);
    assert!(events.is_empty(), "who wants nothing hears nothing");
}
