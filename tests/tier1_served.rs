//! `vmm run --device unix:PATH`: a device of another process in a guest. Its guest is a kernel of 290 bytes, so /dev/kvm is enough.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{Server, Vmm, engine, eventually, tiny};

/// The example, serving; killed when dropped.
struct Engine {
    child: Child,
    socket: PathBuf,
}

impl Engine {
    fn start(vmm: &Vmm, name: &str) -> Self {
        let socket = vmm.path(name);
        let program = vmm.program.with_file_name("vfio_user_device");
        let mut command = Command::new(&program);
        let child = command.arg(&socket).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        eventually("the engine's socket", || socket.exists().then_some(()));
        Self { child, socket }
    }

    fn device(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

/// A guest that has had the engine copy.
fn start(vmm: &Vmm, name: &str, engine: &Engine) -> Server {
    start_with(vmm, name, &engine.device())
}

fn start_with(vmm: &Vmm, name: &str, device: &str) -> Server {
    let kernel = vmm.file("kernel", &engine::kernel());
    let words = ["--kernel", kernel.to_str().unwrap(), "--device", device];
    let mut server = vmm.start(name, "16M", &words);
    server.says(engine::GREETING);
    server
}

/// The guest has powered off, and nothing is said but, at most, that the engine was reset and is well.
#[track_caller]
fn ends_well(server: Server) {
    let (status, err) = server.ends();
    assert_eq!(status, Some(0), "{err}");
    assert!(err.lines().all(|line| line.contains("and well")), "{err}");
}

#[test]
fn the_engine_copies_in_the_guests_memory_and_signals_by_msix() {
    let vmm = Vmm::new();
    let engine = Engine::start(&vmm, "engine.sock");
    let mut server = start(&vmm, "a", &engine);
    server.types("d");
    server.says("d here\n");
    let listed = vmm.ask(["list"]).out;
    assert!(
        listed.contains("socket /") && listed.contains("/engine.sock"),
        "{listed}"
    );
    server.types("q");
    ends_well(server);
    assert!(vmm.claims().is_empty());
    let mut again = start(&vmm, "b", &engine);
    again.types("q");
    // The engine serves one after another.
    ends_well(again);
}

#[test]
fn an_error_of_the_device_and_the_hosts_wish_reach_the_owner_while_the_guest_goes_on() {
    let vmm = Vmm::new();
    let engine = Engine::start(&vmm, "engine.sock");
    let mut server = start_with(&vmm, "a", &format!("{},corrected=1", engine.device()));
    server.types("e");
    server.reports("device 0000:00:01.0: a non-fatal error of its own (CmpltTO); policy: report");
    server.reports("device 0000:00:01.0: corrected errors: 1 (RxErr), 1 in all");
    server.types("w");
    server.reports("the host asks for device 0000:00:01.0 back");
    server.types("d");
    server.says("d here\n");
    server.types("q");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_killed_engine_is_told_reads_all_ones_and_the_guest_goes_on() {
    let vmm = Vmm::new();
    let engine = Engine::start(&vmm, "engine.sock");
    let other = Engine::start(&vmm, "other.sock");
    let mut server = start(&vmm, "a", &engine);
    let mut bystander = start(&vmm, "b", &other);
    engine.signal(Signal::KILL);
    server.reports("the process that serves device 0000:00:01.0 is lost");
    server.types("d");
    server.says("d gone\n");
    server.types("q");
    let (status, err) = server.ends();
    assert_eq!(status, Some(0));
    assert!(err.contains("engine.sock") && err.lines().count() <= 5, "{err}");
    bystander.types("d");
    bystander.says("d here\n");
    bystander.types("q");
    ends_well(bystander);
    assert!(vmm.claims().is_empty());
}

#[test]
fn an_engine_that_stalls_is_given_up_and_holds_nobody() {
    let vmm = Vmm::new();
    let engine = Engine::start(&vmm, "engine.sock");
    let mut server = start(&vmm, "a", &engine);
    engine.signal(Signal::STOP);
    server.types("d");
    server.says("d gone\n");
    server.reports("the process that serves device 0000:00:01.0 is lost");
    server.types("q");
    let (status, err) = server.ends();
    assert_eq!(status, Some(0), "{err}");
    let why = ["engine.sock", "REGION_READ within 5000 ms", "start it again"];
    assert!(
        why.iter().all(|part| err.contains(part)) && err.lines().count() <= 5,
        "{err}"
    );
    assert!(vmm.claims().is_empty());
}

#[test]
fn a_check_touches_no_server_and_tells_where_the_device_would_be() {
    let vmm = Vmm::new();
    let engine = Engine::start(&vmm, "engine.sock");
    let kernel = vmm.file("kernel", &tiny::kernel());
    let ask = |command: &str, device: &str| {
        let words = [
            "--cpus",
            "1",
            "--memory",
            "16M",
            "--kernel",
            kernel.to_str().unwrap(),
        ];
        vmm.ask([&[command, "--name", "a"], &words[..], &["--device", device]].concat())
    };
    let checked = ask("check", &engine.device());
    assert_eq!((checked.status, checked.err.as_str()), (Some(0), ""));
    let line = format!(
        "device   {} as 0000:00:01.0, served by another process",
        engine.device()
    );
    assert!(checked.out.contains(&line), "{}", checked.out);
    let placed = ask("check", &format!("{},at=05:00.0", engine.device()));
    assert!(placed.out.contains(" as 0000:05:00.0, served"), "{}", placed.out);
    let none = format!("unix:{}", vmm.path("none.sock").display());
    ask("run", &none).refuses(&["none.sock", "start the server of the device first"]);
    let file = format!("unix:{}", kernel.display());
    ask("run", &file).refuses(&["kernel", "name the stream socket"]);
    let taken = format!("{},at=00:1f.0", engine.device());
    ask("run", &taken).refuses(&["the LPC bridge", "free on bus 00: 01"]);
    let mut server = start(&vmm, "b", &engine);
    ask("run", &engine.device()).refuses(&["engine.sock", "b"]);
    server.types("q");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_server_that_is_none_is_refused_in_one_line_and_nothing_stays_claimed() {
    let vmm = Vmm::new();
    let (silent, liar) = (vmm.path("silent.sock"), vmm.path("liar.sock"));
    let _silent = UnixListener::bind(&silent).unwrap();
    let listener = UnixListener::bind(&liar).unwrap();
    let lies = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // Who leaves before it is asked is one that has died.
        client.read_exact(&mut [0; 16]).unwrap();
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let kernel = vmm.file("kernel", &tiny::kernel());
    let run = |socket: &Path| {
        let device = format!("unix:{}", socket.display());
        let words = [
            "--memory",
            "16M",
            "--kernel",
            kernel.to_str().unwrap(),
            "--device",
            &device,
        ];
        vmm.ask([&["run", "--name", "a", "--cpus", "1"], &words[..]].concat())
    };
    run(&liar).refuses(&[
        "liar.sock",
        "VERSION breaks the protocol",
        "another version of the server",
    ]);
    run(&silent).refuses(&["silent.sock", "VERSION within 5000 ms", "serves another client"]);
    lies.join().unwrap();
    assert!(vmm.claims().is_empty());
}
