//! `vmm run` on dedicated and on shared CPUs: said by `vmm check`, seen from outside, healed after SIGKILL.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::path::Path;

use rustix::process::Signal;
use support::{Vmm, tiny};

const TREE: &str = "/sys/fs/cgroup";

/// What a group's file says; empty if there is none.
fn read(file: &str) -> String {
    let text = std::fs::read_to_string(Path::new(TREE).join(file)).unwrap_or_default();
    text.trim().to_owned()
}

/// The groups below the root, and which CPUs they have in common.
fn groups() -> (Vec<String>, String) {
    let entries = std::fs::read_dir(TREE).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    (names, read("cpuset.cpus.effective"))
}

fn words<'w>(kernel: &'w str, more: &[&'w str]) -> Vec<&'w str> {
    [&["--kernel", kernel][..], more].concat()
}

#[test]
fn dedicated_cpus_are_isolated_while_it_runs_and_nothing_is_left() {
    let (vmm, before) = (Vmm::new(), groups());
    let kernel = vmm.file("kernel", &tiny::kernel());
    let options = words(kernel.to_str().unwrap(), &["--dedicated", "--realtime", "1"]);
    let check = [
        &["check", "--name", "db1", "--cpus", "1", "--memory", "16M"],
        &options[..],
    ]
    .concat();
    let said = vmm.ask(check);
    assert!(said.out.contains("isolated cpuset partition\n"), "{said:?}");
    assert_eq!(groups(), before);
    let mut server = vmm.start("db1", "16M", &options);
    server.says(tiny::GREETING);
    assert_eq!(read("pellucid.db1/cpuset.cpus.partition"), "isolated");
    assert_eq!(
        (read("pellucid.db1/cpuset.cpus"), groups().1),
        ("2".into(), "0-1".into())
    );
    let thread = read("pellucid.db1/cgroup.threads");
    let of_thread =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/task/{thread}/{file}", server.pid())).unwrap();
    assert_eq!(of_thread("comm"), "vcpu0\n");
    assert!(of_thread("status").contains("Cpus_allowed_list:\t2\n"));
    assert!(
        of_thread("sched").contains("policy                                       :                    1\n"),
        "SCHED_FIFO"
    );
    server.types("q");
    let (status, err) = server.ends();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(groups(), before);
}

#[test]
fn a_killed_servers_groups_are_healed() {
    let (vmm, before) = (Vmm::new(), groups());
    let kernel = vmm.file("kernel", &tiny::kernel());
    for more in [
        &["--dedicated"][..],
        &["--weight", "300", "--cap", "62.5", "--group", "batch"],
    ] {
        let mut server = vmm.start("db1", "16M", &words(kernel.to_str().unwrap(), more));
        server.says(tiny::GREETING);
        assert_ne!(groups(), before);
        if more.len() > 1 {
            let group = "pellucid/group-batch/server-db1";
            assert_eq!(read(&format!("{group}/cpu.weight")), "300");
            assert_eq!(read(&format!("{group}/cpu.max")), "62500 100000");
        }
        server.signal(Signal::KILL);
        assert_eq!(server.ends().0, None);
        let heal = vmm.ask(["heal"]);
        assert_eq!(heal.status, Some(0), "{heal:?}");
        assert!(heal.out.contains("cgroup db1 of db1: restored"), "{heal:?}");
        assert_eq!(groups(), before);
        assert!(vmm.claims().is_empty());
    }
}

#[test]
fn all_cpus_but_none_for_the_host_are_affinity_with_the_reason() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    let kernel = kernel.to_str().unwrap();
    let said = vmm.ask([
        "check", "--name", "a", "--cpus", "0-2", "--memory", "16M", "--kernel", kernel,
    ]);
    assert!(
        said.out.contains("affinity (CPUs 0-2 are all there are"),
        "{said:?}"
    );
}
