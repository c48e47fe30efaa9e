//! Bad input to `vmm run`: one line that names subject, cause and remedy, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::path::Path;

use support::{Answer, Vmm, disk, tiny};

/// Runs a server of 16 MiB; whatever is wrong with it, the state directory has no record afterwards.
fn run(vmm: &Vmm, more: &[&str]) -> Answer {
    let words = ["run", "--name", "a", "--cpus", "1", "--memory", "16M"];
    refused(vmm, &[&words[..], more].concat())
}

fn refused(vmm: &Vmm, words: &[&str]) -> Answer {
    let answer = vmm.ask(words);
    assert!(vmm.claims().is_empty());
    let records = std::fs::read_dir(vmm.state()).unwrap().flatten();
    let left: Vec<_> = records
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .filter(|(_, size)| *size > 0)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    answer
}

/// `vmm check` says the same of it, and has not even a lock to take.
#[track_caller]
fn refused_alike(more: &[&str], parts: &[&str]) {
    let vmm = Vmm::new();
    let words = ["check", "--name", "a", "--cpus", "1", "--memory", "16M"];
    let check = vmm.ask(words.iter().chain(more));
    assert_eq!(check.status, Some(1), "{check:?}");
    let run = run(&vmm, more);
    run.refuses(parts);
    assert!(check.err.contains(&run.err), "{check:?}\n{run:?}");
    let locks = std::fs::read_dir(vmm.state()).unwrap().flatten().count();
    assert_eq!(locks, 0, "refused before anything was touched");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_missing_kernel_is_refused_by_name() {
    refused_alike(
        &["--kernel", "/nonexistent/vmlinuz"],
        &["/nonexistent/vmlinuz", "No such file", "name a file"],
    );
}

#[test]
fn a_missing_initrd_is_refused_by_name() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    refused_alike(
        &["--kernel", text(&kernel), "--initrd", "/nonexistent/initrd"],
        &["/nonexistent/initrd", "No such file"],
    );
}

#[test]
fn a_directory_or_an_empty_file_is_no_kernel() {
    let vmm = Vmm::new();
    let empty = vmm.file("empty", b"");
    refused_alike(&["--kernel", text(&empty)], &["empty", "not a kernel", "give"]);
    refused_alike(
        &["--kernel", text(vmm.scratch.path())],
        &[text(vmm.scratch.path())],
    );
}

#[test]
fn what_is_no_kernel_is_refused_with_what_would_be_one() {
    let vmm = Vmm::new();
    let script = vmm.file("script", b"#!/bin/sh\necho no kernel\n");
    refused_alike(
        &["--kernel", text(&script)],
        &["script", "not a kernel", "bzImage"],
    );
    let mut kernel = tiny::kernel();
    kernel[18] = 0xb7;
    let foreign = vmm.file("foreign", &kernel);
    refused_alike(&["--kernel", text(&foreign)], &["foreign", "x86-64"]);
}

#[test]
fn a_truncated_kernel_is_refused_by_name() {
    let vmm = Vmm::new();
    let kernel = tiny::kernel();
    for length in [20, 100, kernel.len() - 1] {
        let path = vmm.file("short", &kernel[..length]);
        refused_alike(
            &["--kernel", text(&path)],
            &["short", "truncated", "copy the file again"],
        );
    }
    if let Some(path) = std::env::var_os("PELLUCID_KERNEL") {
        let linux = std::fs::read(path).unwrap();
        let path = vmm.file("vmlinuz", &linux[..linux.len() / 2]);
        refused_alike(
            &["--kernel", text(&path)],
            &["vmlinuz", "truncated", &linux.len().to_string()[..3]],
        );
    }
}

#[test]
fn a_command_line_that_a_kernel_would_cut_is_refused() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    let long = "x".repeat(3000);
    refused_alike(
        &["--kernel", text(&kernel), "--cmdline", &long],
        &["command line", "3000", "shorten"],
    );
}

#[test]
fn a_server_that_the_host_cannot_carry_is_refused_with_what_would_fit() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    let ask = |name: &str, cpus: &str, memory: &str| {
        let words = [
            "run",
            "--name",
            name,
            "--cpus",
            cpus,
            "--memory",
            memory,
            "--kernel",
            text(&kernel),
        ];
        refused(&vmm, &words)
    };
    ask("a", "1", "1M").refuses(&["1 MiB", "at least 16 MiB"]);
    ask("a", "1", "17M").refuses(&["18", "would be"]);
    ask("a", "1", "200G").refuses(&["200 GiB", "available"]);
    ask("a", "9999", "16M").refuses(&["9999", "1 to"]);
    ask("a", "4095,", "16M").refuses(&["CPU 4095 does not exist", "free: "]);
    ask("../a", "1", "16M").refuses(&["\"../a\"", "letters"]);
    ask("", "1", "16M").refuses(&["\"\"", "letters"]);
    let words = [
        "run",
        "--name",
        "a",
        "--cpus",
        "1",
        "--memory",
        "1G",
        "--pages",
        "1g",
        "--kernel",
        text(&kernel),
    ];
    let pages = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
    if pages.is_ok_and(|free| free.trim() == "0") {
        refused(&vmm, &words).refuses(&["1 GiB", "1g pages", "0 of 1 free 1G pages"]);
    }
}

#[test]
fn a_device_that_does_not_exist_is_refused() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    refused_alike(
        &["--kernel", text(&kernel), "--device", "0000:77:00.0"],
        &["0000:77:00.0", "no such PCI function", "lspci"],
    );
}

#[test]
fn a_wrong_command_line_is_status_2_and_says_how_it_is_used() {
    let vmm = Vmm::new();
    let good = ["run", "--name", "a", "--cpus", "1", "--memory", "16M"];
    let wrong: [&[&str]; 8] = [
        &[],
        &["fly"],
        &good,
        &["run", "--kernel", "k"],
        &[
            "run", "--name", "a", "--cpus", "0", "--memory", "lots", "--kernel", "k",
        ],
        &[
            "run", "--name", "a", "--cpus", "x", "--memory", "16M", "--kernel", "k",
        ],
        &["inventory", "--device", "0000:01:00.0"],
        &["stop"],
    ];
    for words in wrong {
        let answer = vmm.ask(words);
        assert_eq!(
            (answer.status, answer.out.as_str()),
            (Some(2), ""),
            "{words:?} {answer:?}"
        );
        assert!(
            answer.err.contains("Usage:") || answer.err.contains("--help"),
            "{answer:?}"
        );
    }
    let more: [&[&str]; 3] = [
        &["--kernel", "k", "--device", "1:2"],
        &["--kernel", "k", "--boot-disk", "d"],
        &["--kernel", "k", "--pages", "3m"],
    ];
    for more in more {
        assert_eq!(vmm.ask(good.iter().chain(more)).status, Some(2), "{more:?}");
    }
    assert!(!vmm.state().exists());
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    vmm.file("state", b"a file where the directory should be");
    let words = [
        "run",
        "--name",
        "a",
        "--cpus",
        "1",
        "--memory",
        "16M",
        "--kernel",
        text(&kernel),
    ];
    vmm.ask(words)
        .refuses(&[text(&vmm.state()), "PELLUCID_STATE_DIR"]);
}

#[test]
fn a_disk_that_has_nothing_to_boot_is_refused_with_the_reason() {
    if !disk::tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let image = |name: &str| vmm.path(name);
    let refuse = |path: &Path, parts: &[&str]| refused_alike(&["--boot-disk", text(path)], parts);
    refuse(
        Path::new("/nonexistent/disk"),
        &["/nonexistent/disk", "No such file", "name a disk"],
    );
    refuse(&vmm.file("empty", b""), &["empty", "no partition table"]);
    refuse(
        &vmm.file("blank", &vec![0; 1 << 20]),
        &["blank", "no partition table", "--kernel"],
    );
    refuse(
        &disk::partitioned(&image("no-esp"), "8300"),
        &["no-esp", "none of its 1 partitions", "--kernel"],
    );
    refuse(
        &disk::partitioned(&image("no-fat"), "ef00"),
        &["no-fat", "EFI system partition"],
    );
    refuse(
        &disk::with_esp(&image("no-entry"), &[]),
        &["no-entry", "no entry that a boot loader would show", "--kernel"],
    );
    let entry: &[u8] = b"title T\nlinux /debian/tiny\n";
    let entry = ("loader/entries/t.conf", entry);
    refuse(
        &disk::with_esp(&image("no-kernel"), &[entry]),
        &["no-kernel", "t.conf", "debian", "--kernel"],
    );
    let kernel = tiny::kernel();
    let cut: (&str, &[u8]) = ("debian/tiny", &kernel[..kernel.len() - 1]);
    refuse(
        &disk::with_esp(&image("cut-kernel"), &[entry, cut]),
        &["cut-kernel", "tiny", "truncated"],
    );
}

#[test]
fn a_truncated_disk_is_refused_with_the_reason() {
    if !disk::tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let kernel = tiny::kernel();
    let files: [(&str, &[u8]); 2] = [
        ("loader/entries/t.conf", b"title T\nlinux /debian/tiny\n"),
        ("debian/tiny", &kernel),
    ];
    let whole = disk::with_esp(&vmm.path("whole"), &files);
    let whole = std::fs::read(whole).unwrap();
    for length in [700, 20 << 10, (1 << 20) + 2000] {
        let path = vmm.file("cut", &whole[..length]);
        refused_alike(&["--boot-disk", text(&path)], &["cut", ";"]);
    }
}
