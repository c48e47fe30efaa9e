//! The host asks for a lent device back, as an administrator does it: by unbinding it from its driver while a guest has it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::lent::{Card, Disk, lent};
use support::{Server, Vmm};

/// Unbinds `device` from vfio-pci, which the kernel does once nobody has it open.
fn ask_for(device: &str) -> (Instant, JoinHandle<Duration>) {
    let (path, text) = (
        "/sys/bus/pci/drivers/vfio-pci/unbind".to_owned(),
        device.to_owned(),
    );
    let begun = Instant::now();
    let asking = std::thread::spawn(move || {
        std::fs::write(path, text).unwrap();
        begun.elapsed()
    });
    (begun, asking)
}

#[track_caller]
fn is_told(server: &Server, device: &str, reaction: &str, begun: Instant) {
    server.reports(&format!(
        "the host asks for device {device} back; policy: {reaction}"
    ));
    println!("{device}: told {} ms after", begun.elapsed().as_millis());
}

#[test]
fn a_device_that_is_unplugged_for_the_host_is_reset_and_on_its_driver_while_the_guest_goes_on() {
    let (disk, card) = (Disk::of("PELLUCID-DATA"), Card::at(CARD));
    let vmm = Vmm::new();
    let unplug = |at: &str| format!("{at},on-request=unplug");
    let mut server = lent(&vmm, "a", "256M", &[&unplug(&disk.at), &unplug(&card.at)]);
    let digest = disk.is_written_by(&mut server);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");

    // One whose only reset is that of power management, and one with a function level reset.
    for device in [&card.at, &disk.at] {
        let (begun, asking) = ask_for(device);
        is_told(&server, device, "unplug", begun);
        println!(
            "{device}: given up after {} ms",
            asking.join().unwrap().as_millis()
        );
        server.reports(&format!("device {device}: reset by"));
    }
    disk.holds(&digest);
    card.is_back();
    assert_eq!(server.asks("echo goes on"), "goes on");
    server.types("poweroff -f\n");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_guest_that_is_to_stop_when_the_host_asks_gives_everything_back() {
    let disk = Disk::of("PELLUCID-DATA");
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},on-request=stop", disk.at)]);
    let digest = disk.is_written_by(&mut server);
    let (begun, asking) = ask_for(&disk.at);
    is_told(&server, &disk.at, "stop", begun);
    let (status, said) = server.ends();
    assert_eq!(status, Some(1), "{said}");
    asking.join().unwrap();
    disk.holds(&digest);
}

/// The kernel repeats what it asks every 10 s; a guest that its owner lets go on is not paused again by that.
#[test]
fn a_guest_that_stands_still_when_the_host_asks_goes_on_and_gives_the_device_back_at_its_end() {
    let disk = Disk::of("PELLUCID-DATA");
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},on-request=pause", disk.at)]);
    let digest = disk.is_written_by(&mut server);
    let (begun, asking) = ask_for(&disk.at);
    is_told(&server, &disk.at, "pause", begun);
    server.reports("the guest stands still");
    let before = server.console().len();
    server.types("echo awa''ke\n");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.console().len(), before, "{}", server.console());
    server.signal(Signal::CONT);
    server.says("awake\r\n");
    server.says("# ");
    // Longer than until the repetition.
    assert_eq!(server.asks("sleep 12; echo awa''ke"), "awake");
    assert!(!asking.is_finished());
    server.types("poweroff -f\n");
    let (status, said) = server.ends();
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said.matches("asks for device").count(), 1, "{said}");
    asking.join().unwrap();
    disk.holds(&digest);
}

const CARD: &str = "0000:00:19.0";
