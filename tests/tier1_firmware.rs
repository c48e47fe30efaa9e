//! Booting by firmware as far as /dev/kvm alone shows it: fw_cfg and flash from the guest's side, variables that last, files that are refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::path::Path;

use rustix::process::Signal;
use support::{Answer, Server, Vmm, rom};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts a server by the firmware `code` with the variables in `vars`.
fn start(vmm: &Vmm, code: &Path, vars: &Path) -> Server {
    start_with(vmm, &files(code, vars))
}

/// The words for firmware whose variables, if they are not there, come from the tests' own template.
fn files<'a>(code: &'a Path, vars: &'a Path) -> [&'a str; 6] {
    [
        "--firmware",
        text(code),
        "--vars",
        text(vars),
        "--vars-template",
        rom::TEMPLATE,
    ]
}

/// A machine that has /dev/kvm need not have SMBIOS tables.
fn start_with(vmm: &Vmm, more: &[&str]) -> Server {
    vmm.start("a", "16M", &[more, &["--smbios", "none"]].concat())
}

fn check(vmm: &Vmm, more: &[&str]) -> Answer {
    let words = [
        "check", "--name", "a", "--cpus", "1", "--memory", "16M", "--smbios", "none",
    ];
    vmm.ask(words.iter().chain(more))
}

#[test]
fn firmware_finds_fw_cfg_and_what_it_programs_is_there_after_a_restart() {
    let vmm = Vmm::new();
    let (code, vars) = (rom::file(&vmm, &rom::ONCE), vmm.path("vars.fd"));
    let template = std::fs::read(rom::TEMPLATE).unwrap();
    let mut first = start(&vmm, &code, &vars);
    first.says("QEMU_KS\n");
    assert_eq!(first.ends(), (Some(0), String::new()));
    let mut kept = std::fs::read(&vars).unwrap();
    assert_eq!(std::mem::replace(&mut kept[rom::PLACE], 0xff), b'K');
    assert!(kept == template, "nothing else of the file changed");
    assert!(
        std::fs::read(rom::TEMPLATE).unwrap() == template,
        "nor did the template"
    );
    let mut second = start(&vmm, &code, &vars);
    second.says("QEMUKKS\n");
    assert_eq!(second.ends(), (Some(0), String::new()));
    let files: Vec<_> = std::fs::read_dir(vmm.scratch.path()).unwrap().flatten().collect();
    assert_eq!(
        files.len(),
        3,
        "state, code, variables, and nothing else is left: {files:?}"
    );
}

#[test]
fn variables_without_a_file_are_forgotten() {
    let vmm = Vmm::new();
    let code = rom::file(&vmm, &rom::ONCE);
    for _ in 0..2 {
        let files = ["--firmware", text(&code), "--vars-template", rom::TEMPLATE];
        let mut server = start_with(&vmm, &files);
        server.says("QEMU_KS\n");
        assert_eq!(server.ends(), (Some(0), String::new()));
    }
}

#[test]
fn a_killed_server_leaves_what_was_programmed_until_then_in_order() {
    let vmm = Vmm::new();
    let code = rom::file(&vmm, &rom::PROGRAMS);
    let mut lengths = Vec::new();
    for round in 0..6 {
        let vars = vmm.path(&format!("vars{round}.fd"));
        let mut server = start(&vmm, &code, &vars);
        server.says("*");
        std::thread::sleep(std::time::Duration::from_millis(7 * round));
        server.signal(Signal::KILL);
        assert_eq!(server.ends().0, None);
        let kept = std::fs::read(&vars).unwrap();
        let programmed = &kept[rom::PLACE..rom::PLACE + 0x2_0000];
        let length = programmed
            .iter()
            .position(|byte| *byte == 0xff)
            .unwrap_or(0x2_0000);
        let is_own = |(at, byte): (usize, &u8)| *byte == (at & 0x7f) as u8;
        assert!(programmed[..length].iter().enumerate().all(is_own));
        assert!(
            programmed[length..].iter().all(|byte| *byte == 0xff),
            "none before its turn"
        );
        lengths.push(length);
        assert_eq!(vmm.ask(["heal"]).status, Some(0));
    }
    assert!(
        lengths.iter().any(|length| (1..0x2_0000).contains(length)),
        "{lengths:?}"
    );
}

#[test]
fn a_second_server_with_the_same_variables_is_refused() {
    let vmm = Vmm::new();
    let (code, vars) = (rom::file(&vmm, &rom::PROGRAMS), vmm.path("vars.fd"));
    let mut server = start(&vmm, &code, &vars);
    server.says("*");
    let files = files(&code, &vars);
    let parts = [
        text(&vars),
        "another logical server uses these variables",
        "--vars",
    ];
    let words = [
        "run", "--name", "b", "--cpus", "1", "--memory", "16M", "--smbios", "none",
    ];
    vmm.ask(words.iter().chain(&files)).refuses(&parts);
    assert!(check(&vmm, &files).err.contains("another logical server"));
    server.signal(Signal::KILL);
    assert_eq!(server.ends().0, None);
    assert_eq!(
        check(&vmm, &files).status,
        Some(0),
        "the lock goes with its holder"
    );
}

#[test]
fn files_that_do_not_go_together_are_refused_by_name() {
    let vmm = Vmm::new();
    let code = rom::file(&vmm, &rom::ONCE);
    let refuses = |more: &[&str], parts: &[&str]| {
        let answer = check(&vmm, more);
        assert_eq!(answer.status, Some(1), "{answer:?}");
        for part in parts {
            assert!(answer.err.contains(part), "{part:?} is missing in {answer:?}");
        }
        let words = [
            "run", "--name", "a", "--cpus", "1", "--memory", "16M", "--smbios", "none",
        ];
        vmm.ask(words.iter().chain(more)).refuses(parts);
    };
    let missing = ["--firmware", "/nonexistent/CODE.fd"];
    refuses(&missing, &["/nonexistent/CODE.fd", "No such file", "name a file"]);
    let blank = vmm.file("blank_CODE.fd", &[0xff; 0x1_0000]);
    refuses(
        &["--firmware", text(&blank)],
        &["blank_CODE.fd", "reset vector", "OVMF_CODE"],
    );
    let odd = vmm.file("odd_CODE.fd", &[0x90; 5000]);
    refuses(&["--firmware", text(&odd)], &["odd_CODE.fd", "whole pages"]);
    refuses(&["--firmware", rom::TEMPLATE], &[rom::TEMPLATE, "variable store"]);
    refuses(
        &["--firmware", text(&code)],
        &["CODE.fd", "no OVMF_VARS file", "--vars-template"],
    );
    let small = vmm.file("small.fd", &[0; 100]);
    let small = ["--firmware", text(&code), "--vars", text(&small)];
    refuses(
        &small,
        &["small.fd", "not a store of UEFI variables", "a new name"],
    );
    let other = vmm.file("other_CODE.fd", &[0x90; 0x1e_0000]);
    let other = ["--firmware", text(&other), "--vars-template", rom::TEMPLATE];
    refuses(&other, &[rom::TEMPLATE, "540672 bytes", "131072", "same build"]);
    let folder = files(&code, Path::new("/nonexistent/vars.fd"));
    refuses(&folder, &["/nonexistent/vars.fd", "cannot be made", "folder"]);
    let path = [
        "--firmware",
        text(&code),
        "--vars-template",
        rom::TEMPLATE,
        "--boot-file",
        "EFI/x.efi",
    ];
    refuses(&path, &["EFI", "root of the file system", "shimx64"]);
    // Usage, not refusals: what goes with firmware only.
    for words in [
        &["--kernel", "x", "--vars", "y"][..],
        &["--kernel", "x", "--firmware", "y"],
    ] {
        assert_eq!(check(&vmm, words).status, Some(2));
    }
}

#[test]
fn a_boot_file_is_in_the_boot_order_before_the_firmware_runs() {
    let vmm = Vmm::new();
    let (code, vars) = (rom::file(&vmm, &rom::ONCE), vmm.path("vars.fd"));
    for _ in 0..2 {
        let files = files(&code, &vars);
        let boot = ["--boot-file", "/EFI/debian/shimx64.efi"];
        let mut server = start_with(&vmm, &[&files[..], &boot].concat());
        server.says("S\n");
        assert_eq!(server.ends(), (Some(0), String::new()));
        let store = pellucid::image::VariableStore::open(&vars).unwrap();
        assert_eq!(store.global("BootOrder").unwrap(), [0, 0]);
        assert_eq!(store.variables().len(), 2, "once is enough");
    }
}
