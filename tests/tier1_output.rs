//! What commands print to readers that go before all is printed, and to files that take no more.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::fs::OpenOptions;
use std::process::Stdio;

use support::{Vmm, disk, initrd, tiny};

/// Commands that print on standard output, in the test's own folder, and their exit status.
fn printing(vmm: &Vmm) -> Vec<(String, i32)> {
    vmm.file("kernel", &tiny::kernel());
    vmm.file("twin.json", vmm.ask(["twin", "capture"]).out.as_bytes());
    let server = "--name a --cpus 1 --memory 16M --kernel";
    let mut commands = vec![
        ("inventory".to_owned(), 0),
        ("inventory --json".to_owned(), 0),
        ("devices".to_owned(), 0),
        ("devices --json".to_owned(), 0),
        ("list --json".to_owned(), 0),
        ("heal --dry-run".to_owned(), 0),
        ("twin capture".to_owned(), 0),
        ("twin diff twin.json twin.json".to_owned(), 0),
        (format!("twin predict {server} kernel"), 0),
        (format!("check {server} kernel"), 0),
        (format!("check {server} kernel --json"), 0),
        (format!("check {server} /nonexistent"), 1),
    ];
    if disk::tools_are_here() {
        let files: [(&str, &[u8]); 2] = [
            ("loader/entries/a.conf", b"title Tiny\nlinux /tiny\n"),
            ("tiny", &tiny::kernel()),
        ];
        disk::with_esp(&vmm.path("disk.img"), &files);
        commands.push(("boot-plan disk.img".to_owned(), 0));
        commands.push(("boot-plan disk.img --json".to_owned(), 0));
    }
    commands
}

/// The writing end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_gone_changes_nothing() {
    let vmm = Vmm::new();
    for (line, status) in printing(&vmm) {
        let words: Vec<&str> = line.split(' ').collect();
        let whole = vmm.ask(&words);
        assert_eq!(whole.status, Some(status), "{words:?}: {whole:?}");
        let cut = vmm.command(&words).stdout(unread()).output().unwrap();
        let err = String::from_utf8(cut.stderr).unwrap();
        assert_eq!(cut.status.code(), Some(status), "{words:?}: {err}");
        assert!(
            !err.contains("panicked") && !err.contains("pipe"),
            "{words:?}: {err}"
        );
        // As with `2>&1 | head`.
        let deaf = vmm.command(&words).stdout(unread()).stderr(unread()).status();
        assert_eq!(deaf.unwrap().code(), Some(status), "{words:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure_with_its_cause() {
    let vmm = Vmm::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let answer = vmm.command(["inventory"]).stdout(full).output().unwrap();
    let err = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(1), "{err}");
    assert!(
        err.ends_with("vmm: standard output: No space left on device (os error 28)\n"),
        "{err}"
    );
}

#[test]
fn the_drivers_in_an_initrd_are_shown_and_why_they_are_not_known() {
    if !disk::tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let modules = initrd::of_names(&[
        "usr/lib/modules/6/kernel/nvme.ko.xz",
        "usr/lib/modules/6/kernel/virtio_blk.ko",
        "usr/lib/modules/6/modules.builtin",
    ]);
    let packed = [&[0x02, 0x21, 0x4c, 0x18][..], &[0; 100]].concat();
    for (content, told, warned) in [
        (modules, "drivers  nvme, virtio_blk\n", false),
        (
            initrd::of_names(&["init"]),
            "drivers  none that the initrd tells of\n",
            false,
        ),
        (packed, "drivers  none that the initrd tells of\n", true),
    ] {
        let entry = b"title Tiny\nlinux /tiny\ninitrd /initrd\n";
        let files: [(&str, &[u8]); 3] = [
            ("loader/entries/a.conf", entry),
            ("tiny", &tiny::kernel()),
            ("initrd", &content),
        ];
        let image = disk::with_esp(&vmm.path("disk.img"), &files);
        let image = image.to_str().unwrap();
        let shown = vmm.ask(["boot-plan", image]);
        assert_eq!((shown.status, shown.err.as_str()), (Some(0), ""), "{shown:?}");
        assert!(shown.out.contains(told), "{}", shown.out);
        let said = "esp:\\initrd: it is compressed by lz4, which is not looked into";
        assert_eq!(shown.out.contains(said), warned, "{}", shown.out);
        let json = vmm.ask(["boot-plan", image, "--json"]).out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["warnings"].as_array().unwrap().len(), usize::from(warned));
        let nvme = &json["drivers"]["nvme"];
        assert_eq!(nvme.as_str(), told.contains("nvme").then_some("module"));
        std::fs::remove_file(image).unwrap();
    }
}
