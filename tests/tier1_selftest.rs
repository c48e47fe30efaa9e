//! `vmm selftest` on this machine's own KVM, and what is said where KVM is missing or not for this user.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use support::{Answer, Vmm, left_out, tiny};

#[test]
fn the_embedded_guest_says_that_everything_works() {
    let answer = Vmm::new().ask(["selftest"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let guest: Vec<_> = answer
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("guest    "))
        .collect();
    assert_eq!(guest, ["pio ok", "mmio ok", "interrupt ok", "second vcpu ok"]);
    assert!(
        answer.out.contains("selftest passed after") && answer.out.contains("can disable exits for:"),
        "{answer:?}"
    );
    assert_eq!(answer.err, "");
}

#[test]
fn a_program_can_read_the_selftest() {
    let answer = Vmm::new().ask(["selftest", "--json"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(report["passed"], true);
    assert!(report["exits"].as_u64().unwrap() > 10, "{report}");
    assert!(
        report["kvm"]["Ok"]["max_vcpus"].as_u64().unwrap() >= 2,
        "{report}"
    );
}

#[test]
fn the_selftest_leaves_nothing_behind() {
    let vmm = Vmm::new();
    let mut command = vmm.command(["selftest"]);
    assert_eq!(
        Answer::of(command.env("TMPDIR", vmm.scratch.path())).status,
        Some(0)
    );
    assert_eq!(std::fs::read_dir(vmm.scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_host_without_kvm_is_told_what_is_missing() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    // The emulated server runs tests in a chroot, where there are no user namespaces and / is no mount point; its mounts are
    // private. Elsewhere the namespace must keep the mount to itself.
    let mine = match std::env::var_os("PELLUCID_TESTBED") {
        Some(_) => &["unshare", "--mount", "--propagation", "unchanged"][..],
        None => &["unshare", "--mount", "--map-root-user"][..],
    };
    let hide = "mount -t tmpfs none /dev && exec \"$VMM\" \"$@\"";
    if !can(mine, "mount -t tmpfs none /dev") {
        return left_out("no mount namespace in which /dev/kvm could be hidden");
    }
    vmm_refuses_for_kvm(&vmm, mine, hide, kernel.to_str().unwrap(), "No such file");
    let check = vmm.scripted(mine, hide, &run_words("check", kernel.to_str().unwrap()));
    let answer = answer_of(check);
    assert_eq!(
        (answer.status, answer.err.lines().count()),
        (Some(1), 1),
        "{answer:?}"
    );
    let inventory = answer_of(vmm.scripted(mine, hide, &["inventory"]));
    assert_eq!(inventory.status, Some(0), "what else there is, is still shown");
    assert!(inventory.out.contains("KVM      /dev/kvm"), "{inventory:?}");
}

#[test]
fn a_user_without_permission_for_kvm_is_told_so() {
    let vmm = Vmm::new();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if !can(&nobody, "test ! -w /dev/kvm") {
        return left_out("no user here who may not use /dev/kvm");
    }
    support::host::open_to_all(vmm.scratch.path());
    let kernel = vmm.file("kernel", &tiny::kernel());
    let state =
        "export PELLUCID_STATE_DIR=$(mktemp -d); \"$VMM\" \"$@\"; s=$?; rmdir $PELLUCID_STATE_DIR; exit $s";
    vmm_refuses_for_kvm(
        &vmm,
        &nobody,
        state,
        kernel.to_str().unwrap(),
        "Permission denied",
    );
}

#[track_caller]
fn vmm_refuses_for_kvm(vmm: &Vmm, before: &[&str], script: &str, kernel: &str, cause: &str) {
    let answer = answer_of(vmm.scripted(before, script, &run_words("run", kernel)));
    answer.refuses(&["/dev/kvm", cause, ";"]);
    let answer = answer_of(vmm.scripted(before, script, &["selftest"]));
    answer.refuses(&["/dev/kvm", cause, ";"]);
}

fn run_words<'w>(act: &'w str, kernel: &'w str) -> [&'w str; 9] {
    [
        act, "--name", "a", "--cpus", "1", "--memory", "16M", "--kernel", kernel,
    ]
}

fn answer_of(mut command: Command) -> Answer {
    Answer::of(&mut command)
}

/// Whether this machine lets a test run `script` that way.
fn can(before: &[&str], script: &str) -> bool {
    let status = Command::new(before[0])
        .args(&before[1..])
        .args(["sh", "-c", script])
        .output();
    status.is_ok_and(|output| output.status.success())
}
