//! SIGKILL at ten moments between start and power-off, then `vmm heal`: the controller is on its driver again, every byte as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::host::{DATA, Pattern, driver_of};
use support::{Server, Vmm, eventually, linux};

/// Starts a server, kills it when `reached` returns, heals, and proves that nothing is left.
fn killed(vmm: &Vmm, pattern: &Pattern, line: &str, reached: impl FnOnce(&mut Server)) {
    let mut server = linux::start(vmm, "db1", line, &["--device", DATA]);
    reached(&mut server);
    server.signal(Signal::KILL);
    assert_eq!(server.ends().0, None);
    healed(vmm, pattern);
}

fn healed(vmm: &Vmm, pattern: &Pattern) {
    let heal = vmm.ask(["heal"]);
    assert_eq!((heal.status, heal.err.as_str()), (Some(0), ""), "{heal:?}");
    pattern.is_back();
    assert!(vmm.claims().is_empty());
    let again = vmm.ask(["heal"]);
    assert_eq!(again.status, Some(0));
    assert!(again.out.contains("nothing to restore"), "{again:?}");
}

#[test]
fn a_server_killed_while_it_starts_loses_no_controller() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let device_claimed = || {
        vmm.claims()
            .iter()
            .any(|row| row["claim"]["resource"]["kind"] == "device")
    };
    let left_nvme = || driver_of(DATA).as_deref() != Some("nvme");
    let on_vfio = || driver_of(DATA).as_deref() == Some("vfio-pci");
    killed(&vmm, &pattern, "", |_| ());
    killed(&vmm, &pattern, "", |_| {
        std::thread::sleep(Duration::from_millis(30))
    });
    killed(&vmm, &pattern, "", |_| {
        eventually("a claim", || (!vmm.claims().is_empty()).then_some(()))
    });
    killed(&vmm, &pattern, "", |_| {
        eventually("the device's claim", || device_claimed().then_some(()))
    });
    killed(&vmm, &pattern, "", |_| {
        eventually("unbinding", || left_nvme().then_some(()))
    });
    killed(&vmm, &pattern, "", |_| {
        eventually("vfio-pci", || on_vfio().then_some(()));
        std::thread::sleep(Duration::from_millis(100));
    });
}

#[test]
fn a_server_killed_while_it_runs_loses_no_controller() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    killed(&vmm, &pattern, "", |_| {
        eventually("vfio-pci", || {
            (driver_of(DATA).as_deref() == Some("vfio-pci")).then_some(())
        });
        std::thread::sleep(Duration::from_secs(2));
    });
    killed(&vmm, &pattern, "", |server| drop(server.says("init: reached")));
    let reads = "do=while_:;do_dd_if=/dev/nvme0n1_of=/dev/null_bs=64k;done";
    killed(&vmm, &pattern, reads, |server| {
        drop(server.says("1024+0 records in"))
    });
    killed(&vmm, &pattern, "do=poweroff", |server| {
        drop(server.says("init: modules loaded"))
    });
}

#[test]
fn what_a_dead_server_left_refuses_the_next_until_it_is_healed() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let server = linux::start(&vmm, "db1", "", &["--device", DATA]);
    eventually("vfio-pci", || {
        (driver_of(DATA).as_deref() == Some("vfio-pci")).then_some(())
    });
    let pid = server.pid().to_string();
    server.signal(Signal::KILL);
    assert_eq!(server.ends().0, None);
    let kernel = linux::named("PELLUCID_KERNEL");
    let next = |name: &str| {
        let words = [
            "run", "--name", name, "--cpus", "1", "--memory", "256M", "--kernel", &kernel, "--device", DATA,
        ];
        vmm.ask(words)
    };
    for name in ["db1", "db2"] {
        next(name).refuses(&[DATA, "\"db1\"", &pid, "dead", "vmm heal"]);
    }
    let list = vmm.ask(["list"]);
    assert!(list.out.contains(DATA) && list.out.contains("dead"), "{list:?}");
    let dry = vmm.ask(["heal", "--dry-run"]);
    assert!(dry.out.contains("would be restored"), "{dry:?}");
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    healed(&vmm, &pattern);
}
