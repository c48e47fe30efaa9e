//! Unplugging and plugging on a machine that has only /dev/kvm: a device of another process, a kernel of 110 bytes that works its slot, and
//! whatever may come to the socket by which a server is asked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::holdings::{Holdings, settled};
use support::plug::does;
use support::{Answer, Server, Vmm, eventually, tiny};

/// The example, serving one client after another; killed when dropped.
struct Engine(Child);

impl Engine {
    fn start(vmm: &Vmm) -> Self {
        let socket = vmm.path("engine.sock");
        let mut command = Command::new(vmm.program.with_file_name("vfio_user_device"));
        let child = command.arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        eventually("the engine's socket", || socket.exists().then_some(()));
        Self(child)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _waited_already = self.0.wait();
    }
}

/// A server that has the engine at 01:00.0, in a hot-plug slot behind 00:01.0.
fn start(vmm: &Vmm, name: &str) -> Server {
    let device = format!("unix:{},at=01:00.0,hotplug", vmm.path("engine.sock").display());
    let mut server = start_with(vmm, name, &["--device", &device]);
    has_it(&mut server);
    server
}

fn start_with(vmm: &Vmm, name: &str, more: &[&str]) -> Server {
    let kernel = vmm.file("kernel", &tiny::file(&CODE));
    let words = ["--kernel", kernel.to_str().unwrap()];
    vmm.start(name, "16M", &[&words[..], more].concat())
}

#[track_caller]
fn has_it(server: &mut Server) {
    server.types("d");
    server.says("Y");
}

#[track_caller]
fn has_it_not(server: &mut Server) {
    server.types("d");
    server.says("N");
}

/// The guest switches the slot off, or on.
#[track_caller]
fn switches(server: &mut Server, letter: &str) {
    server.types(letter);
    server.says(letter);
}

#[track_caller]
fn ends_well(mut server: Server) {
    server.types("q");
    assert_eq!(server.ends(), (Some(0), String::new()));
}

#[test]
fn a_device_comes_and_goes_again_and_again_and_nothing_stays() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    let mut server = start(&vmm, "a");
    let mut first: Option<Holdings> = None;
    for cycle in 0..CYCLES {
        match cycle % 2 {
            // Asked first, or let go of first.
            0 => {
                let mut asking = vmm.command(["unplug", "a", DEVICE]);
                let mut asking = asking.spawn().unwrap();
                std::thread::sleep(Duration::from_millis(10));
                switches(&mut server, "o");
                assert!(asking.wait().unwrap().success());
            }
            _ => {
                switches(&mut server, "o");
                has_it_not(&mut server);
                does(&vmm, &["unplug", "a", DEVICE]);
            }
        }
        has_it_not(&mut server);
        does(&vmm, &["plug", "a", DEVICE]);
        has_it_not(&mut server);
        switches(&mut server, "n");
        has_it(&mut server);
        let now = settled(server.pid(), first.as_ref());
        assert_eq!(first.get_or_insert(now.clone()), &now, "cycle {cycle}");
    }
    ends_well(server);
    assert!(vmm.claims().is_empty());
}

#[test]
fn a_guest_that_does_not_answer_keeps_its_device_unless_it_is_taken_by_force() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    let mut server = start(&vmm, "a");
    vmm.ask(["unplug", "a", DEVICE, "--within", "1"]).refuses(&[
        DEVICE,
        "within 1 s",
        "keeps it",
        "by force",
    ]);
    has_it(&mut server);
    vmm.ask(["plug", "a", DEVICE])
        .refuses(&[DEVICE, "in the guest already"]);
    does(&vmm, &["unplug", "a", DEVICE, "--force"]);
    has_it_not(&mut server);
    vmm.ask(["unplug", "a", DEVICE])
        .refuses(&[DEVICE, "unplugged already"]);
    // Its process serves another one meanwhile.
    let mut other = start(&vmm, "b");
    has_it(&mut other);
    vmm.ask(["plug", "a", DEVICE, "--within", "1"])
        .refuses(&[DEVICE, "not done with its slot"]);
    switches(&mut server, "o");
    vmm.ask(["plug", "a", DEVICE, "--within", "1"])
        .refuses(&["engine.sock", "\"b\""]);
    ends_well(other);
    does(&vmm, &["plug", "a", DEVICE]);
    switches(&mut server, "n");
    has_it(&mut server);
    ends_well(server);
    assert!(vmm.claims().is_empty());
}

#[test]
fn a_slot_that_the_guest_switches_off_and_on_by_itself_is_not_emptied() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    let mut server = start(&vmm, "a");
    for _ in 0..20 {
        switches(&mut server, "o");
        has_it_not(&mut server);
        switches(&mut server, "n");
        has_it(&mut server);
    }
    ends_well(server);
}

#[test]
fn what_is_no_request_is_refused_and_holds_up_nobody() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    let mut server = start(&vmm, "a");
    let socket = vmm.state().join("a.control");
    eventually("the socket", || socket.exists().then_some(()));
    let mode = std::fs::metadata(vmm.state()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else can reach it");
    let says = |line: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may be closed before all of it was taken.
        let _closed = stream.write_all(line);
        let mut answer = String::new();
        let _reset = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    let wrong: [&[u8]; 7] = [
        b"\n",
        b"unplug everything\n",
        b"\xff\xfe\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        br#"{"act":"eject","device":"0000:01:00.0","seconds":1}
"#,
        br#"{"act":"plug","device":"0000:01:00.0","seconds":1,"more":1}
"#,
        br#"{"act":"plug","device":"0000:01:00.9","seconds":-1}
"#,
    ];
    for line in wrong {
        let answer = says(line);
        assert!(
            answer.contains("Err") && answer.contains("not a request"),
            "{answer}"
        );
    }
    assert_eq!(says(&vec![b'['; 1 << 20]), "", "more than a request can be");
    let known = says(
        br#"{"act":"unplug-by-force","device":"0000:02:00.0","seconds":1}
"#,
    );
    assert!(known.contains("not lent to this server"), "{known}");

    // Those who say nothing take places, and lose them.
    let mut silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    let many = says(b"\n");
    assert!(many.contains("too many requests"), "{many}");
    has_it(&mut server);
    // One may have come while a request before it still had its place, and was refused.
    let reads = silent.iter_mut().map(|stream| stream.read(&mut [0; 8]));
    let lost = reads
        .filter(|read| read.as_ref().map_or(true, |count| *count == 0))
        .count();
    assert!(lost >= 7, "{lost} of 8");
    assert!(begun.elapsed() > Duration::from_secs(4), "they had their time");
    vmm.ask(["plug", "a", DEVICE]).refuses(&["in the guest already"]);
    ends_well(server);
    assert!(!socket.exists());
}

#[test]
fn who_has_no_slot_or_is_not_there_is_named() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    vmm.ask(["unplug", "a", DEVICE])
        .refuses(&["no logical server \"a\"", "vmm list"]);
    let device = format!("unix:{},at=01:00.0", vmm.path("engine.sock").display());
    let mut server = start_with(&vmm, "a", &["--device", &device]);
    has_it(&mut server);
    vmm.ask(["unplug", "a", DEVICE])
        .refuses(&["\"a\"", "without a hot-plug slot", "hotplug"]);
    let root = format!("unix:{},hotplug", vmm.path("engine.sock").display());
    let kernel = vmm.path("kernel");
    let words = [
        "check",
        "--name",
        "b",
        "--cpus",
        "1",
        "--memory",
        "16M",
        "--kernel",
        kernel.to_str().unwrap(),
    ];
    let refused: Answer = vmm.ask(words.iter().chain(&["--device", &root]));
    assert!(refused.err.contains("no port above its root bus"), "{refused:?}");
    ends_well(server);
}

#[test]
fn a_killed_server_leaves_a_socket_that_heal_removes() {
    let vmm = Vmm::new();
    let _engine = Engine::start(&vmm);
    let server = start(&vmm, "a");
    let socket = vmm.state().join("a.control");
    eventually("the socket", || socket.exists().then_some(()));
    server.signal(Signal::KILL);
    assert_eq!(server.ends().0, None);
    assert!(socket.exists());
    let running = start(&vmm, "b");
    assert_eq!(vmm.ask(["heal"]).status, Some(0));
    assert!(!socket.exists() && vmm.state().join("b.control").exists());
    ends_well(running);
}

const CYCLES: usize = 50;

const DEVICE: &str = "0000:01:00.0";

/// On its console: `o` switches the slot off (power and indicator), `n` on, `d` says Y or N, whether 01:00.0 answers, `q` powers off.
#[rustfmt::skip]
const CODE: [u8; 110] = [
    0xba, 0xfd, 0x03, 0x00, 0x00,                       // start:  mov edx, 0x3fd
    0xf3, 0x90, 0xec, 0xa8, 0x01, 0x74, 0xf9,           // poll:   pause; in al, dx; test al, 1; jz poll
    0xba, 0xf8, 0x03, 0x00, 0x00,                       //         mov edx, 0x3f8
    0xec, 0x89, 0xc3,                                   //         in al, dx; mov ebx, eax
    0x3c, 0x6f, 0x74, 0x18,                             //         cmp al, 'o'; je off
    0x3c, 0x6e, 0x74, 0x1b,                             //         cmp al, 'n'; je on
    0x3c, 0x64, 0x74, 0x2f,                             //         cmp al, 'd'; je look
    0x3c, 0x71, 0x75, 0x40,                             //         cmp al, 'q'; jne say
    0xba, 0x04, 0x06, 0x00, 0x00,                       //         mov edx, 0x604
    0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4,           //         mov ax, 0x3400; out dx, ax; hlt
    0xb9, 0x00, 0x07, 0x00, 0x00, 0xeb, 0x05,           // off:    mov ecx, 0x700; jmp set
    0xb9, 0x00, 0x01, 0x00, 0x00,                       // on:     mov ecx, 0x100
    0xba, 0xf8, 0x0c, 0x00, 0x00,                       // set:    mov edx, 0xcf8
    0xb8, 0x58, 0x08, 0x00, 0x80, 0xef,                 //         mov eax, 0x80000858; out dx, eax
    0xb2, 0xfc, 0x89, 0xc8, 0x66, 0xef, 0xeb, 0x15,     //         mov dl, 0xfc; mov eax, ecx; out dx, ax; jmp say
    0xba, 0xf8, 0x0c, 0x00, 0x00,                       // look:   mov edx, 0xcf8
    0xb8, 0x00, 0x00, 0x01, 0x80, 0xef,                 //         mov eax, 0x80010000; out dx, eax
    0xb2, 0xfc, 0xed, 0xb3, 0x59,                       //         mov dl, 0xfc; in eax, dx; mov bl, 'Y'
    0x40, 0x75, 0x02, 0xb3, 0x4e,                       //         inc eax; jnz say; mov bl, 'N'
    0xba, 0xf8, 0x03, 0x00, 0x00,                       // say:    mov edx, 0x3f8
    0x89, 0xd8, 0xee, 0xeb, 0x92,                       //         mov eax, ebx; out dx, al; jmp start
];
