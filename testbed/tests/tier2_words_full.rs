//! The machine with every device that a word can ask for, as its own operating system finds it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Every function of these ids, in the order of its address.
fn functions(vendor: &str, device: &str) -> Vec<PathBuf> {
    let is = |path: &Path, file: &str, id: &str| fs::read_to_string(path.join(file)).unwrap().trim() == id;
    let mut found: Vec<_> = fs::read_dir("/sys/bus/pci/devices")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is(path, "vendor", vendor) && is(path, "device", device))
        .map(|path| fs::canonicalize(path).unwrap())
        .collect();
    found.sort();
    found
}

/// How many functions there are from the root bus to this one.
fn depth(function: &Path) -> usize {
    function.components().count() - Path::new("/sys/devices/pci0000:00").components().count()
}

#[test]
fn every_device_is_where_its_word_says() {
    let nvme: Vec<_> = functions("0x1b36", "0x0010");
    assert_eq!(
        nvme.iter()
            .map(|path| depth(path))
            .filter(|depth| *depth == 1)
            .count(),
        1,
        "{nvme:?}"
    );
    assert_eq!(
        nvme.iter()
            .map(|path| depth(path))
            .filter(|depth| *depth == 4)
            .count(),
        1,
        "{nvme:?}"
    );
    assert_eq!(functions("0x1234", "0x11e8").len(), 2, "edu");
    assert_eq!(functions("0x104c", "0x8232").len(), 1, "the switch's upper side");
    let [old] = functions("0x8086", "0x100e").try_into().unwrap();
    assert_eq!(old.file_name().unwrap(), "0000:00:08.0");
    let [igb] = functions("0x8086", "0x10c9").try_into().unwrap();
    assert_eq!(
        fs::read_to_string(igb.join("sriov_totalvfs")).unwrap().trim(),
        "7"
    );
    let cards = functions("0x8086", "0x10d3");
    assert_eq!(cards.len(), 3, "{cards:?}");
    let second = cards
        .iter()
        .find(|card| card.to_string_lossy().ends_with(".1"))
        .unwrap();
    let first = second.to_string_lossy().replace(".1", ".0");
    assert!(
        nvme.iter().any(|path| path.to_string_lossy() == first),
        "two functions in one slot: {nvme:?}"
    );
}

#[test]
fn the_server_reaches_its_own_monitor() {
    let ports = fs::read_dir("/sys/class/virtio-ports").unwrap();
    let port = ports
        .map(|entry| entry.unwrap())
        .find(|entry| {
            fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == "pellucid.monitor")
        })
        .unwrap();
    let path = Path::new("/dev").join(port.file_name());
    let mut port = BufReader::new(File::options().read(true).write(true).open(path).unwrap());
    port.get_mut()
        .write_all(b"{\"execute\":\"qmp_capabilities\",\"id\":1}\n{\"execute\":\"query-status\",\"id\":2}\n")
        .unwrap();
    let mut line = String::new();
    // The greeting comes first, but only to the first who opens the port.
    while !line.contains("\"id\": 2") {
        line.clear();
        port.read_line(&mut line).unwrap();
    }
    assert!(line.contains("\"running\": true"), "{line}");
}
