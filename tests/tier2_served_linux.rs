//! Linux in a logical server finds a device that another process serves: where it was placed, with its BARs, at its bus and alive.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::process::{Command, Stdio};

use support::{Vmm, eventually, linux};

#[test]
fn linux_lists_the_served_function_with_its_bars_and_reads_its_memory() {
    let vmm = Vmm::new();
    let socket = vmm.path("engine.sock");
    let program = vmm.program.with_file_name("vfio_user_device");
    let mut engine = Command::new(program)
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the engine's socket", || socket.exists().then_some(()));
    let device = format!("unix:{},at=00:05.0", socket.display());
    let mut server = linux::start(&vmm, "a", "", &["--device", &device]);
    linux::to_shell(&mut server);
    let asked =
        server.asks("cd /sys/bus/pci/devices/0000:00:05.0; cat vendor device class irq; wc -l < resource");
    assert!(asked.starts_with("0x1b36\n0xd0e0\n0x080100\n"), "{asked}");
    let bars = server.asks("head -5 /sys/bus/pci/devices/0000:00:05.0/resource");
    let size = |line: &str| {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let words: Vec<_> = line.split(' ').map(number).collect();
        (words[1] - words[0] + 1).max(1)
    };
    let sizes: Vec<_> = bars.lines().map(size).collect();
    assert_eq!(sizes, [0x1000, 1, 0x10000, 1, 0x1000], "{bars}");
    let capabilities =
        server.asks("hexdump -s 64 -n 12 -e '12/1 \"%02x\"' /sys/bus/pci/devices/0000:00:05.0/config");
    assert_eq!(capabilities, "110001000400000004080000", "MSI-X, off");
    let memory = "cd /sys/bus/pci/devices/0000:00:05.0; echo 1 > enable; set -- $(sed -n 3p resource)";
    let copied = server.asks(&format!(
        "{memory}; devmem $1 32 0x1badcafe; devmem $1 32; devmem $(($1 + 0xfffc)) 32"
    ));
    assert_eq!(copied, "0x1BADCAFE\n0x00000000", "the engine's memory, mapped");
    server.types("poweroff -f\n");
    let (status, err) = server.ends();
    engine.kill().unwrap();
    engine.wait().unwrap();
    assert_eq!((status, err.as_str()), (Some(0), ""));
}
