//! Linux in a logical server finds a device that another process serves: where it was placed, with its BARs, at its bus and alive.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::process::{Command, Stdio};

use support::{Server, Vmm, eventually, linux};

#[test]
fn linux_lists_served_functions_below_their_root_buses_with_their_bars_and_reads_their_memory() {
    let vmm = Vmm::new();
    let program = vmm.program.with_file_name("vfio_user_device");
    let engine = |at: &str| {
        let socket = vmm.path(&format!("{at}.sock"));
        let mut command = Command::new(&program);
        let engine = command.arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        eventually("the engine's socket", || socket.exists().then_some(()));
        (engine, format!("unix:{},at={at}", socket.display()))
    };
    // On bus 00, on a root bus of its own, and behind a port of that.
    let (engines, devices): (Vec<_>, Vec<_>) =
        ["00:05.0", "80:05.0", "82:00.0"].map(engine).into_iter().unzip();
    let words: Vec<_> = devices.iter().flat_map(|device| ["--device", device]).collect();
    let mut server = linux::start(&vmm, "a", "", &words);
    linux::to_shell(&mut server);
    for path in [
        "pci0000:00/0000:00:05.0",
        "pci0000:80/0000:80:05.0",
        "pci0000:80/0000:80:01.0/0000:82:00.0",
    ] {
        finds_the_engine(&mut server, path);
    }
    server.types("poweroff -f\n");
    let (status, err) = server.ends();
    for mut engine in engines {
        engine.kill().unwrap();
        engine.wait().unwrap();
    }
    assert_eq!((status, err.as_str()), (Some(0), ""));
}

/// At this path below the root buses, with its BARs, and alive.
#[track_caller]
fn finds_the_engine(server: &mut Server, path: &str) {
    let place = format!("/sys/devices/{path}");
    let asked = server.asks(&format!(
        "cd {place}; cat vendor device class irq; wc -l < resource"
    ));
    assert!(asked.starts_with("0x1b36\n0xd0e0\n0x080100\n"), "{asked}");
    let bars = server.asks(&format!("head -5 {place}/resource"));
    let size = |line: &str| {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let words: Vec<_> = line.split(' ').map(number).collect();
        (words[1] - words[0] + 1).max(1)
    };
    let sizes: Vec<_> = bars.lines().map(size).collect();
    assert_eq!(sizes, [0x1000, 1, 0x10000, 1, 0x1000], "{bars}");
    let capabilities = server.asks(&format!("hexdump -s 64 -n 12 -e '12/1 \"%02x\"' {place}/config"));
    assert_eq!(capabilities, "110001000400000004080000", "MSI-X, off");
    let memory = format!("cd {place}; echo 1 > enable; set -- $(sed -n 3p resource)");
    let copied = server.asks(&format!(
        "{memory}; devmem $1 32 0x1badcafe; devmem $1 32; devmem $(($1 + 0xfffc)) 32"
    ));
    assert_eq!(copied, "0x1BADCAFE\n0x00000000", "the engine's memory, mapped");
}
