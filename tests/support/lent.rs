//! Devices as a test of a machine uses them: found by what they are, driven by the guest, used by the host afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{disk_of, driver_of};
use super::{Server, Vmm, eventually, linux};

/// Starts Linux with one vCPU and these devices, each as `--device` names it; ready at its shell.
#[track_caller]
pub(crate) fn lent(vmm: &Vmm, name: &str, memory: &str, devices: &[&str]) -> Server {
    lent_with(vmm, (name, memory), devices, "")
}

/// The same, with more on the kernel's command line.
#[track_caller]
pub(crate) fn lent_with(vmm: &Vmm, (name, memory): (&str, &str), devices: &[&str], line: &str) -> Server {
    let (kernel, initrd) = (linux::named("PELLUCID_KERNEL"), linux::named("PELLUCID_INITRD"));
    let mut words = vec!["--kernel", &kernel, "--initrd", &initrd];
    let line = format!("console=ttyS0 quiet {line}");
    words.extend(["--cmdline", &line]);
    words.extend(devices.iter().flat_map(|device| ["--device", device]));
    let mut server = vmm.start(name, memory, &words);
    linux::to_shell(&mut server);
    server
}

/// Lets the guest power off; the VMM has nothing to complain of.
#[track_caller]
pub(crate) fn powers_off(mut server: Server) {
    server.types("poweroff -f\n");
    assert_eq!(server.ends(), (Some(0), String::new()));
}

/// One guest drives both, and the host has both afterwards.
#[track_caller]
pub(crate) fn together(memory: &str, disk: &Disk, card: &Card) {
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", memory, &[&disk.at, &card.at]);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    let digest = disk.is_written_by(&mut server);
    powers_off(server);
    disk.holds(&digest);
    card.is_back();
}

/// An NVMe controller with one namespace.
pub(crate) struct Disk {
    pub(crate) at: String,
    serial: &'static str,
}

impl Disk {
    #[track_caller]
    pub(crate) fn of(serial: &'static str) -> Self {
        let at = eventually(&format!("the controller {serial}"), || {
            let controllers = std::fs::read_dir("/sys/class/nvme").ok()?;
            let is = |path: &Path| {
                let found = std::fs::read_to_string(path.join("serial"));
                found.is_ok_and(|found| found.trim() == serial)
            };
            let controller = controllers
                .flatten()
                .map(|entry| entry.path())
                .find(|path| is(path))?;
            name_of(&std::fs::canonicalize(controller.join("device")).ok()?)
        });
        disk_of(&at);
        Self { at, serial }
    }

    /// The guest writes 1 MiB that nobody else knows, and flushes it; returns its digest.
    #[track_caller]
    pub(crate) fn is_written_by(&self, server: &mut Server) -> String {
        let found = format!(
            "$(grep -l {} /sys/class/nvme/*/serial | cut -d/ -f5)",
            self.serial
        );
        server.asks(&format!("until test -b /dev/{found}n1; do sleep 0.1; done"));
        server.asks("head -c 1048576 /dev/urandom >/tmp/data");
        let status = server.asks(&format!(
            "dd if=/tmp/data of=/dev/{found}n1 bs=64k seek={PLACE} conv=fsync 2>/dev/null; echo $?"
        ));
        assert_eq!(status, "0");
        server.asks("md5sum </tmp/data | cut -c1-32")
    }

    /// The controller is on its driver again, and what is on the disk has that digest.
    #[track_caller]
    pub(crate) fn holds(&self, digest: &str) {
        eventually(&format!("the return of {} to nvme", self.at), || {
            (driver_of(&self.at)? == "nvme").then_some(())
        });
        let disk = disk_of(&self.at);
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
        let read = format!(
            "dd if={} bs=64k skip={PLACE} count=16 2>/dev/null | md5sum",
            disk.display()
        );
        let output = Command::new("sh").args(["-c", &read]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap()[..32],
            *digest,
            "what is on {}",
            disk.display()
        );
    }
}

/// A network card.
pub(crate) struct Card {
    pub(crate) at: String,
    driver: String,
}

impl Card {
    /// The card at an address, which a driver of the host has.
    #[track_caller]
    pub(crate) fn at(at: &str) -> Self {
        let driver = eventually(&format!("a driver for {at}"), || driver_of(at));
        Self {
            at: at.to_owned(),
            driver,
        }
    }

    /// The first card of these ids that is behind `above`, or on the root bus.
    #[track_caller]
    pub(crate) fn of(vendor: &str, device: &str, above: Option<&str>) -> Self {
        let mut found: Vec<PathBuf> = std::fs::read_dir("/sys/bus/pci/devices")
            .unwrap()
            .map(|entry| std::fs::canonicalize(entry.unwrap().path()).unwrap())
            .filter(|path| is(path, "vendor", vendor) && is(path, "device", device))
            .filter(|path| name_of(path.parent().unwrap()).as_deref() == Some(above.unwrap_or("pci0000:00")))
            .collect();
        found.sort();
        Self::at(&name_of(found.first().unwrap_or_else(|| panic!("no {vendor}:{device}"))).unwrap())
    }

    /// A packet of the guest, whose card is at `seen` there, crosses to the network's gateway, and its answer comes back;
    /// returns the line of `/proc/interrupts` by which it did.
    #[track_caller]
    pub(crate) fn reaches_by(&self, server: &mut Server, seen: &str, own: &str) -> String {
        let name = format!("$(ls /sys/bus/pci/devices/{seen}/net)");
        server.asks(&format!(
            "until test -n \"{name}\"; do sleep 0.1; done; ifconfig {name} {own} up"
        ));
        let tries = format!("until ping -c 1 -W 1 {GATEWAY}; do usleep 100000; done");
        let said = server.asks(&format!("{tries} | grep -o '1 packets received'"));
        assert_eq!(said, "1 packets received");
        let (received, line) = (
            server.asks(&format!("cat /sys/class/net/{name}/statistics/rx_packets")),
            server.asks(&format!("grep -m 1 {name} /proc/interrupts")),
        );
        assert!(
            received.parse::<u32>().unwrap() > 0,
            "packets received: {received}"
        );
        line
    }

    /// The card is on the host's driver again, and a packet of the host crosses.
    #[track_caller]
    pub(crate) fn is_back(&self) {
        eventually(&format!("the return of {} to {}", self.at, self.driver), || {
            (driver_of(&self.at)? == self.driver).then_some(())
        });
        let name = self.name();
        let (own, name) = ("10.0.2.17", name.as_str());
        run(&["ifconfig", name, own, "up"]);
        eventually(&format!("an answer of {GATEWAY} to {name}"), || {
            let ping = ["ping", "-c", "1", "-W", "1", "-I", name, GATEWAY];
            Command::new("busybox")
                .args(ping)
                .output()
                .unwrap()
                .status
                .success()
                .then_some(())
        });
        run(&["ifconfig", name, "0.0.0.0", "down"]);
    }

    /// What the host calls it.
    #[track_caller]
    pub(crate) fn name(&self) -> String {
        eventually(&format!("the interface of {}", self.at), || {
            let names = std::fs::read_dir(format!("/sys/bus/pci/devices/{}/net", self.at)).ok()?;
            Some(names.flatten().next()?.file_name().to_string_lossy().into_owned())
        })
    }
}

/// Runs one of busybox's commands.
#[track_caller]
pub(crate) fn run(words: &[&str]) {
    let output = Command::new("busybox").args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is(path: &Path, file: &str, id: &str) -> bool {
    std::fs::read_to_string(path.join(file)).is_ok_and(|found| found.trim() == id)
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// Where the emulator answers on each card's network.
pub(crate) const GATEWAY: &str = "10.0.2.2";
/// In blocks of 64 KiB.
const PLACE: u32 = 16;
