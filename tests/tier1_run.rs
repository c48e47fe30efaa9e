//! The contract of `vmm run`: exit statuses, console, signals, claims. Its guest is a kernel of 117 bytes, so that /dev/kvm is enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::Signal;
use support::{Server, Vmm, disk, eventually, tiny};

/// A server that has greeted.
fn start(vmm: &Vmm, name: &str, more: &[&str]) -> Server {
    let kernel = vmm.file("kernel", &tiny::kernel());
    let words = [&["--kernel", kernel.to_str().unwrap()], more].concat();
    let mut server = vmm.start(name, "16M", &words);
    server.says(tiny::GREETING);
    server
}

#[test]
fn the_console_works_both_ways_and_power_off_is_status_0() {
    let vmm = Vmm::new();
    let mut server = start(&vmm, "a", &[]);
    let line = "a line of symbols 0123456789 in a loud voice\n".repeat(9);
    server.types(&line);
    server.says(&line);
    server.types("q");
    server.says("q");
    assert_eq!(server.ends(), (Some(0), String::new()));
}

#[test]
fn a_reset_is_status_3_where_it_must_not_start_again() {
    let mut server = start(&Vmm::new(), "a", &["--no-reboot"]);
    server.types("r");
    assert_eq!(server.ends(), (Some(3), String::new()));
}

#[test]
fn a_reset_starts_the_guest_again() {
    let vmm = Vmm::new();
    let mut server = start(&vmm, "a", &[]);
    for _ in 0..2 {
        server.types("r");
        server.says(tiny::GREETING);
    }
    server.types("q");
    let (status, err) = server.ends();
    assert_eq!(
        (status, err.matches("starting it again").count()),
        (Some(0), 2),
        "{err}"
    );
}

#[test]
fn a_triple_fault_is_status_4_and_told_in_one_line() {
    let mut server = start(&Vmm::new(), "a", &[]);
    server.types("t");
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(4), 1), "{err}");
    assert!(
        err.contains("the guest crashed: ") && err.contains("vCPU 0"),
        "{err}"
    );
}

#[test]
fn the_report_of_a_run_is_json_on_standard_error() {
    let mut server = start(&Vmm::new(), "a", &["--json"]);
    server.types("q");
    let (status, err) = server.ends();
    assert_eq!(status, Some(0));
    let report: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(report["end"], "PoweredOff");
    // At least one for each letter that it has said.
    let exits = report["exits"][0]["total"].as_u64().unwrap();
    assert!(exits >= tiny::GREETING.len() as u64, "{report}");
}

#[test]
fn sigterm_presses_the_power_button() {
    let mut server = start(&Vmm::new(), "a", &[]);
    server.types("p");
    server.says("p");
    server.signal(Signal::TERM);
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(0), 1), "{err}");
}

#[test]
fn a_second_request_stops_a_guest_that_does_not_listen() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::HUP]] {
        let vmm = Vmm::new();
        let mut server = start(&vmm, "a", &[]);
        server.signal(signals[0]);
        server.reports("asking the guest to power off");
        server.types("x");
        server.says("x");
        assert!(server.is_running());
        server.signal(signals[1]);
        let (status, err) = server.ends();
        assert_eq!((status, err.lines().count()), (Some(1), 2), "{err}");
        assert!(err.contains("stopped before the guest had powered off"), "{err}");
        assert!(vmm.claims().is_empty());
    }
}

#[test]
fn a_running_server_is_listed_and_its_name_is_its_own() {
    let vmm = Vmm::new();
    let mut server = start(&vmm, "db1", &[]);
    let claims = vmm.claims();
    let own = &claims[0];
    assert_eq!((claims.len(), &own["alive"]), (1, &true.into()));
    assert_eq!(
        (&own["claim"]["partition"], &own["claim"]["pid"]),
        (&"db1".into(), &server.pid().into())
    );
    let kernel = vmm.path("kernel");
    let kernel = kernel.to_str().unwrap();
    let (pid, holder) = (server.pid().to_string(), "\"db1\"");
    let second = [
        "run", "--name", "db1", "--cpus", "1", "--memory", "16M", "--kernel", kernel,
    ];
    vmm.ask(second).refuses(&["partition", holder, &pid, "stop"]);
    let mut other = start(&vmm, "db2", &[]);
    assert_eq!(vmm.claims().len(), 2);
    for server in [&mut server, &mut other] {
        server.types("q");
        server.says("q");
    }
    assert_eq!((server.ends().0, other.ends().0), (Some(0), Some(0)));
    assert!(vmm.claims().is_empty());
}

#[test]
fn stop_asks_and_force_kills() {
    let vmm = Vmm::new();
    vmm.ask(["stop", "a"]).refuses(&["\"a\"", "vmm list"]);
    let mut server = start(&vmm, "a", &[]);
    server.types("p");
    server.says("p");
    assert_eq!(vmm.ask(["stop", "a"]).status, Some(0));
    assert_eq!(server.ends().0, Some(0));
    let server = start(&vmm, "a", &[]);
    assert_eq!(vmm.ask(["stop", "a", "--force"]).status, Some(0));
    assert_eq!(server.ends(), (None, String::new()));
    assert_eq!(vmm.ask(["heal"]).status, Some(0));
    assert!(vmm.claims().is_empty());
}

#[test]
fn the_console_can_be_a_file_or_a_terminal_of_its_own() {
    let vmm = Vmm::new();
    let kernel = vmm.file("kernel", &tiny::kernel());
    let (kernel, log) = (kernel.to_str().unwrap(), vmm.path("console.log"));
    let server = vmm.start(
        "a",
        "16M",
        &["--kernel", kernel, "--console", log.to_str().unwrap()],
    );
    eventually("the greeting in the file", || {
        (std::fs::read_to_string(&log).ok()? == tiny::GREETING).then_some(())
    });
    server.signal(Signal::KILL);
    drop(server);
    let server = vmm.start("b", "16M", &["--kernel", kernel, "--console", "pty"]);
    server.reports("console: /dev/pts/");
    server.reports("\n");
    let path = server.reported("console: ");
    // Not as this process's own terminal: its end would hang this process up.
    let mut terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
        .unwrap();
    let mut greeting = [0; tiny::GREETING.len()];
    terminal.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, tiny::GREETING.as_bytes());
    terminal.write_all(b"q").unwrap();
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_server_disk_boots_as_its_own_boot_loader_would() {
    if !disk::tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let entry = b"title Tiny\nlinux /debian/tiny\noptions root=/dev/nvme0n1p2 quiet\n";
    let files: [(&str, &[u8]); 2] = [
        ("loader/entries/tiny.conf", entry),
        ("debian/tiny", &tiny::kernel()),
    ];
    let image = disk::with_esp(&vmm.path("disk.img"), &files);
    let before = std::fs::read(&image).unwrap();
    let image = image.to_str().unwrap();
    let words = [
        "check",
        "--name",
        "a",
        "--cpus",
        "1",
        "--memory",
        "16M",
        "--boot-disk",
        image,
        "--json",
    ];
    let answer = vmm.ask(words);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let plan: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(plan["boot"]["title"], "Tiny");
    assert!(
        plan["boot"]["command_line"]
            .as_str()
            .unwrap()
            .contains("root=/dev/nvme0n1p2 quiet")
    );
    let mut server = vmm.start("a", "16M", &["--boot-disk", image]);
    server.says(tiny::GREETING);
    server.types("q");
    assert_eq!(server.ends(), (Some(0), String::new()));
    assert!(std::fs::read(image).unwrap() == before, "the disk is only read");
}

#[test]
fn a_boot_menu_is_shown_and_its_entries_can_be_chosen() {
    if !disk::tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let files: [(&str, &[u8]); 4] = [
        ("loader/entries/a.conf", b"title Old\nversion 1\nlinux /gone\n"),
        ("loader/entries/b.conf", b"title Program\nefi /shell.efi\n"),
        (
            "loader/entries/c.conf",
            b"title Tiny\nlinux /tiny\noptions quiet\n",
        ),
        ("tiny", &tiny::kernel_64()),
    ];
    let files = [
        &files[..],
        &[("shell.efi", b"MZ"), ("loader/loader.conf", b"default c*\n")],
    ]
    .concat();
    let image = disk::with_esp(&vmm.path("disk.img"), &files);
    let image = image.to_str().unwrap();
    let shown = vmm.ask(["boot-plan", image]);
    assert_eq!((shown.status, shown.err.as_str()), (Some(0), ""), "{shown:?}");
    for line in [
        "boots    Tiny (c.conf)",
        "because  the default of loader.conf (c*)",
        "cmdline  quiet",
        "entry  * esp:c.conf | Tiny | loader entry",
        "entry    esp:b.conf | Program | loader entry, cannot be booted: it starts the EFI program \\shell.efi",
        "entry    esp:a.conf | Old | loader entry, cannot be booted: it names \\gone, which is missing",
    ] {
        assert!(shown.out.contains(line), "{line}\n{}", shown.out);
    }
    let refused = vmm.ask(["boot-plan", image, "--json", "--entry", "b.conf"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    let json: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(
        (json["menu"]["entries"].as_array().unwrap().len(), &json["boots"]),
        (3, &serde_json::Value::Null)
    );
    assert!(json["refusal"].as_str().unwrap().contains("esp:b.conf"));
    assert_eq!(vmm.ask(["boot-plan"]).status, Some(2));

    let mut server = vmm.start("a", "16M", &["--boot-disk", image, "--entry", "esp:c.conf"]);
    server.says(tiny::GREETING);
    server.types("q");
    assert_eq!(server.ends(), (Some(0), String::new()));
    let words = [
        "check",
        "--name",
        "a",
        "--cpus",
        "1",
        "--memory",
        "16M",
        "--boot-disk",
        image,
        "--entry",
        "d.conf",
    ];
    let unknown = vmm.ask(words);
    assert!(
        unknown.status == Some(1) && unknown.err.contains("0 of its boot entries are named d.conf"),
        "{unknown:?}"
    );
}

#[test]
fn a_disk_with_grub_boots_what_grub_would_from_ext4_and_out_of_a_qcow2_image() {
    if !disk::grub_tools_are_here() {
        return;
    }
    let vmm = Vmm::new();
    let script = "load_env\nset default=\"${saved_entry}\"\n\
        menuentry Broken --id broken { linux /boot/gone }\n\
        submenu More --id more { menuentry Tiny --id tiny { linux /boot/tiny root=/dev/nvme0n1p2 quiet } }\n";
    let block = format!("{:#<1024}", "# GRUB Environment Block\nsaved_entry=more>tiny\n");
    let files: [(&str, &[u8]); 3] = [
        ("boot/grub/grub.cfg", script.as_bytes()),
        ("boot/grub/grubenv", block.as_bytes()),
        ("boot/tiny", &tiny::kernel()),
    ];
    let raw = disk::with_grub(&vmm.path("disk.img"), &files);
    for image in [disk::as_qcow2(&raw), raw] {
        let before = std::fs::read(&image).unwrap();
        let image = image.to_str().unwrap();
        let shown = vmm.ask(["boot-plan", image]);
        assert_eq!((shown.status, shown.err.as_str()), (Some(0), ""), "{shown:?}");
        for line in [
            "boots    More > Tiny (more>tiny)",
            "because  the default of GRUB's menu (more>tiny)",
            "cmdline  BOOT_IMAGE=/boot/tiny root=/dev/nvme0n1p2 quiet",
            "cannot be booted: it names (hd0,gpt2)/boot/gone, which is missing",
        ] {
            assert!(shown.out.contains(line), "{line}\n{}", shown.out);
        }
        let mut server = vmm.start("a", "16M", &["--boot-disk", image]);
        server.says(tiny::GREETING);
        server.types("q");
        assert_eq!(server.ends().0, Some(0));
        assert!(std::fs::read(image).unwrap() == before, "the disk is only read");
    }
}
