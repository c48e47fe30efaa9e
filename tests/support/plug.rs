//! The second controller in a hot-plug slot: where it is, as the guest and the host see it.

use super::host::{DATA, Pattern, driver_of};
use super::standing::blocked;
use super::{Server, Vmm, eventually};

/// How it is lent.
pub(crate) fn hot() -> String {
    format!("{DATA},hotplug")
}

/// Runs a command that has nothing to complain of.
#[track_caller]
pub(crate) fn does(vmm: &Vmm, words: &[&str]) {
    let answer = vmm.ask(words);
    let fine = (answer.status, answer.err.as_str()) == (Some(0), "");
    assert!(fine, "{words:?}: {answer:?}\n{}", blocked());
}

/// The guest's name for the disk with that serial, once it is there.
#[track_caller]
pub(crate) fn named(server: &mut Server, serial: &str) -> String {
    let found = format!("$(grep -l {serial} /sys/class/nvme/*/serial 2>/dev/null | cut -d/ -f5)");
    server.asks(&format!(
        "until test -b /dev/{found}n1; do usleep 50000; done; echo {found}"
    ))
}

/// The guest finds the controller where it was, and its first MiB as it is; returns its name for it.
#[track_caller]
pub(crate) fn is_there(server: &mut Server, pattern: &Pattern) -> String {
    let name = named(server, "PELLUCID-DATA");
    let seen = server.asks(&format!(
        "basename $(readlink -f /sys/class/nvme/{name}/device); dd if=/dev/{name}n1 bs=64k count=16 2>/dev/null | md5sum | cut -c1-32"
    ));
    assert_eq!(seen, format!("{DATA}\n{}", pattern.sum(1)));
    name
}

/// The host's driver has it, and the host reads its disk.
#[track_caller]
pub(crate) fn is_with_the_host(pattern: &Pattern, moment: &str) {
    eventually(&format!("{moment}: the driver of {DATA}"), || {
        (driver_of(DATA)? == "nvme").then_some(())
    });
    pattern.begins(moment);
}

/// The guest's name for its slot.
#[track_caller]
pub(crate) fn slot_of(server: &mut Server) -> String {
    server.asks("grep -l 0000:02:00 /sys/bus/pci/slots/*/address | cut -d/ -f6")
}

/// The guest's administrator switches the slot on, which after the button takes five seconds else.
#[track_caller]
pub(crate) fn switched_on(server: &mut Server) {
    let slot = slot_of(server);
    server.asks(&format!("echo 1 >/sys/bus/pci/slots/{slot}/power"));
}
