//! Errors of lent devices, injected by the emulator: told to the right server, answered by its policy, unnoticed by others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::os::unix::fs::FileExt;

use rustix::process::Signal;
use support::lent::{Card, Disk, lent, lent_with};
use support::monitor::Monitor;
use support::{Server, Vmm};

/// The root port above a device, made to report its errors as firmware does it on servers.
#[track_caller]
fn reporting_port(device: &str) -> String {
    let path = std::fs::canonicalize(format!("/sys/bus/pci/devices/{device}")).unwrap();
    let port = path.parent().unwrap();
    let config = std::fs::File::options()
        .read(true)
        .write(true)
        .open(port.join("config"))
        .unwrap();
    for (register, bit) in [(COMMAND, 0x100_u16), (BRIDGE_CONTROL, 2)] {
        let mut value = [0; 2];
        config.read_exact_at(&mut value, register).unwrap();
        let value = u16::from_le_bytes(value) | bit;
        config.write_all_at(&value.to_le_bytes(), register).unwrap();
    }
    port.file_name().unwrap().to_string_lossy().into_owned()
}

/// A disk and a card, each behind a root port of its own.
#[track_caller]
fn behind_ports() -> (Disk, Card) {
    (
        Disk::of("PELLUCID-DATA"),
        Card::of("0x8086", "0x10d3", Some(PORT)),
    )
}

/// What the card's own registers say of uncorrectable errors; the first of its extended capabilities has them.
#[track_caller]
fn uncorrectable(card: &Card) -> u32 {
    let config = std::fs::read(format!("/sys/bus/pci/devices/{}/config", card.at)).unwrap();
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(word(0x100) & 0xffff, 1, "advanced error reporting");
    word(0x104)
}

#[test]
fn an_error_pauses_the_guest_whose_device_may_have_had_it_and_no_other() {
    let (disk, card) = behind_ports();
    let ports = [&disk.at, &card.at].map(|at| reporting_port(at));
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},on-error=pause", disk.at)]);
    let mut other = lent(&vmm, "other", "256M", &[&format!("{},on-error=stop", card.at)]);
    let mut monitor = Monitor::open();

    // The controller counts no errors of its own, so it may have been the one.
    monitor.injects(&ports[0], "COMP_TIME");
    server.reports(&told(&disk, "pause"));
    server.reports("the guest stands still");
    let before = server.console().len();
    server.types("echo awa''ke\n");
    card.reaches_by(&mut other, &card.at, "10.0.2.15");
    assert_eq!(
        server.console().len(),
        before,
        "it stands still: {}",
        &server.console()[before..]
    );
    server.signal(Signal::CONT);
    server.says("awake\r\n");
    server.says("# ");
    let digest = disk.is_written_by(&mut server);

    // The card does, and has counted none: its policy would stop its guest, and does not. Nor for an error of which it tells nobody.
    monitor.injects(&card.at, "COMP_TIME");
    assert_ne!(uncorrectable(&card), 0);
    monitor.injects(&ports[1], "COMP_TIME");
    other.reports(&format!(
        "device {}: a non-fatal error of {}; policy: report",
        card.at, ports[1]
    ));
    assert_eq!(uncorrectable(&card), 0, "its next error is not this one");
    card.reaches_by(&mut other, &card.at, "10.0.2.15");
    other.types("poweroff -f\n");
    assert_eq!(other.ends().0, Some(0));
    card.is_back();
    server.types("poweroff -f\n");
    assert_eq!(server.ends().0, Some(0));
    disk.holds(&digest);
}

#[test]
fn an_error_stops_the_guest_whose_policy_says_so_and_everything_is_back() {
    let disk = Disk::of("PELLUCID-DATA");
    let port = reporting_port(&disk.at);
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},on-error=stop", disk.at)]);
    let digest = disk.is_written_by(&mut server);
    reads_without_end(&mut server);
    Monitor::open().injects(&port, "COMP_TIME");
    let (status, said) = server.ends();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&told(&disk, "stop")), "{said}");
    disk.holds(&digest);
    assert!(vmm.claims().is_empty());
}

#[test]
fn an_error_unplugs_the_device_and_the_guest_goes_on_with_the_other() {
    let (disk, card) = behind_ports();
    let port = reporting_port(&disk.at);
    let vmm = Vmm::new();
    let unplugged = format!("{},on-error=unplug", disk.at);
    // The guest's kernel complains of the disk that is gone, in the midst of what the shell says.
    let mut server = lent_with(&vmm, ("a", "256M"), &[&unplugged, &card.at], "loglevel=1");
    let digest = disk.is_written_by(&mut server);
    reads_without_end(&mut server);
    Monitor::open().injects(&port, "COMP_TIME");
    server.reports(&told(&disk, "unplug"));
    server.reports(&format!("device {}: reset by", disk.at));
    disk.holds(&digest);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    server.types("poweroff -f\n");
    assert_eq!(server.ends().0, Some(0));
    card.is_back();
    disk.holds(&digest);
}

/// A fatal error makes the kernel reset the link, by which the functions below it lose their state while guests use them.
#[test]
fn a_fatal_error_unplugs_one_device_and_stops_the_guest_of_another() {
    let (disk, card) = behind_ports();
    let ports = [&disk.at, &card.at].map(|at| reporting_port(at));
    let vmm = Vmm::new();
    let devices = [
        format!("{},on-error=unplug", disk.at),
        format!("{},on-error=stop", card.at),
    ];
    let devices = devices.each_ref().map(String::as_str);
    // The guest's kernel complains of the disk that is gone, in the midst of what the shell says.
    let mut server = lent_with(&vmm, ("a", "256M"), &devices, "loglevel=1");
    let digest = disk.is_written_by(&mut server);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    reads_without_end(&mut server);

    let mut monitor = Monitor::open();
    monitor.injects(&ports[0], "DLP");
    server.reports(&format!(
        "device {}: a fatal error, perhaps of another function below its port; policy: unplug",
        disk.at
    ));
    server.reports(&format!("device {}: reset by", disk.at));
    disk.holds(&digest);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");

    monitor.injects(&ports[1], "MALF_TLP");
    let (status, said) = server.ends();
    assert_eq!(status, Some(1), "{said}");
    let told = format!("device {}: a fatal error of {}; policy: stop", card.at, ports[1]);
    assert!(said.contains(&told), "{said}");
    card.is_back();
    assert!(vmm.claims().is_empty());
}

/// Keeps the disk busy behind the shell's back, and waits until it is.
#[track_caller]
fn reads_without_end(server: &mut Server) {
    let read = "dd if=/dev/nvme0n1 of=/dev/null bs=64k iflag=direct";
    server.asks(&format!(
        "while {read} 2>/dev/null; do echo >>/tmp/read; done & :"
    ));
    server.asks("until test -s /tmp/read; do usleep 10000; done");
}

/// What the VMM says of an error that was perhaps of the disk.
fn told(disk: &Disk, reaction: &str) -> String {
    format!(
        "device {}: a non-fatal error, perhaps of another function below its port; policy: {reaction}",
        disk.at
    )
}

const PORT: &str = "0000:00:0b.0";
const COMMAND: u64 = 0x04;
const BRIDGE_CONTROL: u64 = 0x3e;
