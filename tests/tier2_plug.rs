//! A controller that comes and goes through a hot-plug slot while its guest works: by force, in vain, over a kill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::host::{DATA, Pattern, driver_of};
use support::lent::{lent, lent_with, powers_off};
use support::plug::{does, hot, is_there, is_with_the_host, named, switched_on};
use support::{Vmm, eventually};

#[test]
fn a_guest_is_told_that_a_device_it_works_with_was_taken_by_force_and_finds_it_when_it_comes_again() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},on-request=unplug", hot())]);
    let name = is_there(&mut server, &pattern);
    server.types(&format!(
        "while cat /dev/{name}n1 >/dev/null; do :; done 2>/dev/null &\n"
    ));
    server.says("# ");
    does(&vmm, &["unplug", "a", DATA, "--force"]);
    is_with_the_host(&pattern, "taken by force");
    server.asks("until dmesg | grep -q 'Card not present'; do usleep 50000; done");
    server.asks("while test -e /sys/bus/pci/devices/0000:02:00.0; do usleep 50000; done");
    does(&vmm, &["plug", "a", DATA]);
    switched_on(&mut server);
    is_there(&mut server, &pattern);

    // The host wants it back: the same, told by its policy.
    std::fs::write("/sys/bus/pci/drivers/vfio-pci/unbind", DATA).unwrap();
    server.reports(&format!("the host asks for device {DATA} back; policy: unplug"));
    server.asks("while test -e /sys/bus/pci/devices/0000:02:00.0; do usleep 50000; done");
    is_with_the_host(&pattern, "wanted back");
    does(&vmm, &["plug", "a", DATA]);
    switched_on(&mut server);
    is_there(&mut server, &pattern);
    server.types("poweroff -f\n");
    assert_eq!(server.ends().0, Some(0));
    pattern.is_back();
    assert!(vmm.claims().is_empty());
}

#[test]
fn a_guest_without_a_hot_plug_driver_keeps_its_device_and_the_refusal_says_what_helps() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let mut server = lent_with(&vmm, ("a", "256M"), &[&hot()], "pcie_ports=compat");
    is_there(&mut server, &pattern);
    let refused = vmm.ask(["unplug", "a", DATA, "--within", "3"]);
    refused.refuses(&[DATA, "within 3 s", "keeps it", "by force"]);
    is_there(&mut server, &pattern);
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    powers_off(server);
    pattern.is_back();
}

#[test]
fn a_server_killed_while_it_unplugs_or_plugs_loses_no_controller() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    for (moment, delay) in [
        ("unplug", 0),
        ("unplug", 300),
        ("plug", 0),
        ("plug", 500),
        ("plug", 1500),
    ] {
        let mut server = lent(&vmm, "a", "256M", &[&hot()]);
        named(&mut server, "PELLUCID-DATA");
        let force = ["unplug", "a", DATA, "--force"];
        let mut acting = match moment {
            "unplug" => vmm.command(force),
            _ => {
                does(&vmm, &force);
                server.asks("until dmesg | grep -q 'Card not present'; do usleep 50000; done; sleep 2");
                vmm.command(["plug", "a", DATA])
            }
        };
        let mut acting = acting.stderr(std::process::Stdio::null()).spawn().unwrap();
        if moment == "plug" {
            eventually("leaving the host's driver", || {
                (driver_of(DATA).as_deref() != Some("nvme")).then_some(())
            });
        }
        std::thread::sleep(Duration::from_millis(delay));
        server.signal(Signal::KILL);
        assert_eq!(server.ends().0, None);
        let _asked = acting.wait().unwrap();
        let heal = vmm.ask(["heal"]);
        assert_eq!(
            (heal.status, heal.err.as_str()),
            (Some(0), ""),
            "{moment} {delay}: {heal:?}"
        );
        pattern.is_back();
        assert!(vmm.claims().is_empty());
        assert!(!vmm.state().join("a.control").exists());
    }
}
