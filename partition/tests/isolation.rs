//! One judgement of how strongly CPUs are isolated: a plan says it, the tree says it, and what is then done is just that.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use fixture::{GIB, Host};
use pellucid_partition::{
    CgroupTree, CpuHold, CpuIsolation, CpuRequest, Inventory, Isolation, PartitionSpec, Plan, Siblings,
    StateDir,
};

fn spec(cpus: &[usize]) -> PartitionSpec {
    let cpus = CpuRequest::list(cpus.iter().copied()).unwrap();
    let spec = PartitionSpec::on("db1", cpus, GIB).unwrap();
    spec.dedicated().with_siblings(Siblings::Shared)
}

fn planned(inventory: &Inventory, cpus: &[usize]) -> Isolation {
    let plan = Plan::fit(inventory, &spec(cpus)).unwrap();
    plan.isolation().unwrap().clone()
}

/// What the plan promises, after the tree has promised the same and carrying it out has come to just that.
#[track_caller]
fn done_as_planned(host: &Host, cpus: &[usize]) -> (CpuIsolation, String) {
    let planned = planned(&host.survey(), cpus);
    let tree = CgroupTree::at(host.root());
    assert_eq!(tree.isolation(cpus), planned, "asked without a plan");
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let hold = CpuHold::new(&tree, &state, "db1", cpus.len(), &[]);
    assert_eq!(hold.dedicate(cpus).unwrap(), planned, "done");
    let made = host.root().join("sys/fs/cgroup/pellucid.db1");
    assert_eq!(made.exists(), planned.level != CpuIsolation::Affinity);
    if made.exists() {
        // The kernel removes a group with its files; here they are ordinary ones.
        std::fs::remove_dir_all(made).unwrap();
    }
    hold.release().unwrap();
    (planned.level, planned.reason)
}

fn host() -> Host {
    Host::one_socket().with_cgroup_v2()
}

/// A host of whose CPUs partitions have taken some, which this process's own group does not show.
fn host_with_free(cpus: &str) -> Host {
    let host = host();
    host.write("sys/fs/cgroup/cpuset.cpus.effective", cpus);
    host.write(
        "sys/fs/cgroup/system.slice/vmm.service/cpuset.cpus.effective",
        "0-3\n",
    );
    host
}

#[test]
fn a_current_kernel_isolates_and_gives_no_excuse() {
    assert_eq!(
        done_as_planned(&host(), &[2, 3]),
        (CpuIsolation::Isolated, String::new())
    );
}

#[test]
fn each_kernel_is_asked_for_what_it_has_and_no_more() {
    for (kernel, level) in [
        ("6.1.0-18-amd64", CpuIsolation::Isolated),
        ("6.0.9", CpuIsolation::Root),
        ("5.10.0-28-amd64", CpuIsolation::Root),
        ("4.19.0", CpuIsolation::Affinity),
        ("", CpuIsolation::Affinity),
    ] {
        let host = host();
        host.write("proc/sys/kernel/osrelease", kernel);
        let (done, reason) = done_as_planned(&host, &[3]);
        assert_eq!(done, level, "{kernel}: {reason}");
        assert_eq!(
            reason.contains(kernel),
            level != CpuIsolation::Isolated,
            "{reason}"
        );
    }
}

#[test]
fn each_host_that_cannot_isolate_says_why_and_does_not_try() {
    let bare = host();
    bare.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    let hybrid = host();
    hybrid.write(
        "proc/self/mounts",
        "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    );
    hybrid.write("sys/fs/cgroup/cgroup.controllers", "memory\n");
    let user = host();
    user.remove("sys/fs/cgroup/cgroup.procs");
    let delegated = host();
    delegated.remove("sys/fs/cgroup/cgroup.procs");
    let own = "sys/fs/cgroup/system.slice/vmm.service";
    delegated.write(&format!("{own}/cgroup.subtree_control"), "\n");
    delegated.write(&format!("{own}/cgroup.controllers"), "cpuset cpu\n");
    delegated.write(&format!("{own}/cpuset.cpus.partition"), "member\n");
    let named = host();
    named.write("sys/fs/cgroup/machine.slice/cpuset.cpus", "3\n");
    for (host, words) in [
        (Host::one_socket(), "mount cgroup2 at /sys/fs/cgroup"),
        (
            Host::one_socket().with_cgroup_v1(),
            "systemd.unified_cgroup_hierarchy=1",
        ),
        (hybrid, "no controller cpuset, which version 1 may have"),
        (bare, "no controller cpuset; enable it"),
        (user, "run as root, or in a unit with Delegate=yes"),
        (delegated, "vmm.service is no cpuset partition itself"),
        (Host::one_socket().in_container("0-3"), "outside of a container"),
        (
            host_with_free("0-2"),
            "CPU 3 is offline or in another cpuset partition",
        ),
        (named, "CPU 3 is in cpuset.cpus of /sys/fs/cgroup/machine.slice"),
        (
            host_with_free("3"),
            "CPUs 3 are all there are, and one must stay with the host",
        ),
    ] {
        let (level, reason) = done_as_planned(&host, &[3]);
        assert_eq!(level, CpuIsolation::Affinity, "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_container_whose_cpuset_is_a_partition_can_isolate_within_it() {
    let host = Host::one_socket().in_container("0-3");
    host.write("sys/fs/cgroup/cpuset.cpus.partition", "root\n");
    assert_eq!(done_as_planned(&host, &[2, 3]).0, CpuIsolation::Isolated);
}

#[test]
fn idle_siblings_are_judged_and_isolated_with_their_cores() {
    let host = host();
    let cpus = CpuRequest::list([1]).unwrap();
    let spec = PartitionSpec::on("db1", cpus, GIB).unwrap().dedicated();
    let plan = Plan::fit(&host.survey(), &spec).unwrap();
    assert_eq!((plan.pinned(), plan.withheld()), (&[1][..], &[3][..]));
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let hold = CpuHold::new(&CgroupTree::at(host.root()), &state, "db1", 1, &[]);
    let done = hold.dedicate_cores(plan.pinned(), plan.withheld()).unwrap();
    assert_eq!(Some(&done), plan.isolation());
    let group = host.root().join("sys/fs/cgroup/pellucid.db1");
    assert_eq!(std::fs::read_to_string(group.join("cpuset.cpus")).unwrap(), "1,3");
    let other = CpuHold::new(&CgroupTree::at(host.root()), &state, "db2", 1, &[]);
    assert!(other.dedicate(&[3]).unwrap_err().to_string().contains("\"db1\""));
    std::fs::remove_dir_all(group).unwrap();
    hold.release().unwrap();
    assert!(state.records().unwrap().is_empty());
    // A sibling in another's partition takes its core's isolation with it.
    let plan = Plan::fit(&host_with_free("0-2").survey(), &spec).unwrap();
    let isolation = plan.isolation().unwrap();
    assert!(isolation.reason.contains("CPU 3"), "{isolation}");
}
