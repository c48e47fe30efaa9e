//! CPUs on hosts made of files: what is promised before anything is touched, what is written, how terms are read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::sync::Arc;

use fixture::Host;
use pellucid_partition::{
    Cap, CgroupHealer, CgroupTree, CpuError, CpuHold, CpuIsolation, CpuShare, CpuTerms, HealOutcome,
    Resource, StateDir, Weight,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

/// A host of four CPUs whose cgroup v2 tree this process may write to, in the group of a service.
fn host() -> Host {
    Host::one_socket().with_cgroup_v2()
}

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn read(host: &Host, file: &str) -> String {
    std::fs::read_to_string(host.root().join("sys/fs/cgroup").join(file)).unwrap()
}

#[test]
fn without_cgroup_v2_a_share_is_refused_and_the_ordinary_one_is_not() {
    let (version_1, (_directory, state)) = (Host::one_socket().with_cgroup_v1(), state());
    let tree = CgroupTree::at(version_1.root());
    assert!(tree.controls_cpu().unwrap_err().to_string().contains("cgroup v1"));
    let hold = CpuHold::new(&tree, &state, "db1", 1, &[]);
    hold.share(CpuShare::default(), None).unwrap();
    let refusal = hold.share(CpuShare::default(), Some("batch")).unwrap_err();
    assert!(matches!(refusal, CpuError::NoControl { .. }), "{refusal}");
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn a_share_is_written_where_it_belongs_and_its_way_back_is_on_record_first() {
    let (host, (_directory, state)) = (host(), state());
    let hold = CpuHold::new(&CgroupTree::at(host.root()), &state, "db1", 2, &[]);
    let share = CpuShare {
        weight: Weight::new(300).unwrap(),
        cap: Some("12.5".parse().unwrap()),
    };
    hold.share(share, Some("batch")).unwrap();
    let group = "pellucid/group-batch/server-db1";
    assert_eq!(read(&host, &format!("{group}/cpu.weight")), "300");
    assert_eq!(read(&host, &format!("{group}/cpu.max")), "12500 100000");
    assert_eq!(read(&host, "cgroup.subtree_control"), "+cpu");
    for folder in ["pellucid", "pellucid/group-batch", group] {
        assert_eq!(read(&host, &format!("{folder}/cgroup.type")), "threaded");
    }
    let (record, _) = state.records().unwrap().remove(0);
    assert_eq!(record.resource, Resource::new("cgroup", "db1"));
    let undo = record.undo.unwrap().data;
    assert_eq!(undo["groups"], json!(["pellucid", "pellucid/group-batch", group]));
    assert_eq!(undo["enabled"], json!(["cpu"]));
    hold.share_group(CpuShare::default()).unwrap();
    assert_eq!(read(&host, "pellucid/group-batch/cpu.max"), "max 100000");
    host.write(
        &format!("sys/fs/cgroup/{group}/cpu.stat"),
        "usage_usec 7000000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\n",
    );
    let usage = hold.usage();
    assert_eq!(
        (usage.got.as_secs(), usage.periods, usage.throttled_periods),
        (7, 9, 4)
    );
    assert_eq!(usage.since(&usage).got_percent(), 0.0);
    std::fs::remove_dir_all(host.root().join("sys/fs/cgroup/pellucid")).unwrap();
    hold.release().unwrap();
    assert_eq!(read(&host, "cgroup.subtree_control"), "-cpu");
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn as_many_cpus_as_vcpus_are_dedicated_and_a_group_has_a_plain_name() {
    let (host, (_directory, state)) = (host(), state());
    let hold = CpuHold::new(&CgroupTree::at(host.root()), &state, "db1", 2, &[]);
    let refusal = hold.dedicate(&[3]).unwrap_err().to_string();
    assert!(
        refusal.contains("2 vCPUs cannot be dedicated to 1 CPUs"),
        "{refusal}"
    );
    for name in ["", "..", "a/b", ".x", &"x".repeat(65)] {
        assert!(
            matches!(
                hold.share(CpuShare::default(), Some(name)),
                Err(CpuError::GroupName { .. })
            ),
            "{name:?}"
        );
    }
    assert!(matches!(
        hold.use_realtime(Some(100)),
        Err(CpuError::Priority { asked: 100 })
    ));
    assert!(
        hold.share_group(CpuShare::default()).is_err(),
        "it is in no group"
    );
}

#[test]
fn a_dedicated_cpu_is_claimed_and_free_again_once_shared() {
    let (_directory, state) = state();
    let empty = Host::one_socket();
    let hold = Arc::new(CpuHold::new(&CgroupTree::at(empty.root()), &state, "db1", 1, &[]));
    let isolation = hold.dedicate(&[3]).unwrap();
    assert_eq!(isolation.level, CpuIsolation::Affinity);
    assert_eq!(
        hold.terms(),
        CpuTerms::Dedicated {
            cpus: vec![3],
            idle: vec![],
            isolation
        }
    );
    let other = CpuHold::new(&CgroupTree::at(empty.root()), &state, "db2", 1, &[]);
    assert!(other.dedicate(&[3]).unwrap_err().to_string().contains("\"db1\""));
    hold.share(CpuShare::default(), None).unwrap();
    other.dedicate(&[3]).unwrap();
    assert_eq!(
        hold.watch(Default::default()).check(),
        [],
        "nothing is dedicated to it"
    );
}

#[test]
fn healing_removes_the_groups_of_the_dead_and_leaves_those_of_the_living() {
    let (host, (_directory, state)) = (host(), state());
    let base = host.root().join("sys/fs/cgroup");
    for folder in [
        "pellucid/group-a/server-dead",
        "pellucid/server-alive",
        "pellucid.dead",
    ] {
        std::fs::create_dir_all(base.join(folder)).unwrap();
    }
    let groups = [
        "pellucid",
        "pellucid.dead",
        "pellucid/group-a",
        "pellucid/group-a/server-dead",
    ];
    let left = json!({ "home": base, "groups": groups, "enabled": ["cpu"] });
    let leave = || {
        let mut claim = state.claim(Resource::new("cgroup", "dead"), "dead").unwrap();
        claim.record_undo("cgroup", &left).unwrap();
    };
    leave();
    let report = state.heal(&[&CgroupHealer::new(&state)], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    assert!(base.join("pellucid/server-alive").is_dir());
    assert!(!base.join("pellucid/group-a").exists() && !base.join("pellucid.dead").exists());
    assert_eq!(
        read(&host, "cgroup.subtree_control"),
        "memory\n",
        "the living needs its controller"
    );
    std::fs::remove_dir(base.join("pellucid/server-alive")).unwrap();
    leave();
    let report = state.heal(&[&CgroupHealer::new(&state)], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    assert!(!base.join("pellucid").exists());
    assert_eq!(
        read(&host, "cgroup.subtree_control"),
        "-cpu",
        "the last one puts out the light"
    );
}

#[test]
fn terms_are_read_as_people_write_them() {
    for (text, shown) in [
        ("40", "40%"),
        ("12.5", "12.50%"),
        ("250%", "250%"),
        ("1", "1%"),
        ("0.99", ""),
        ("", ""),
        ("1.234", ""),
        ("-1", ""),
        ("+5", ""),
        ("4e1", ""),
        ("99999999999", ""),
    ] {
        let cap = text.parse::<Cap>().map(|cap| cap.to_string()).unwrap_or_default();
        assert_eq!(cap, shown, "{text:?}");
    }
    for (text, good) in [
        ("1", true),
        ("10000", true),
        ("0", false),
        ("10001", false),
        ("x", false),
    ] {
        assert_eq!(text.parse::<Weight>().is_ok(), good, "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_cap_survives_being_written_and_read(hundredths in 100u32..=81_920_000) {
        let cap = Cap::hundredths(hundredths).unwrap();
        prop_assert_eq!(cap.to_string().parse::<Cap>().unwrap(), cap);
        let json = serde_json::to_string(&cap).unwrap();
        prop_assert_eq!(serde_json::from_str::<Cap>(&json).unwrap(), cap);
    }
}
