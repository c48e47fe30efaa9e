//! The capture: reads the running system, part by part, and notes what it could not read. Needs no agent and changes nothing.

use std::path::Path;
use std::time::SystemTime;

use pellucid_partition::Inventory;

use crate::clock::Clock;
use crate::cpus::Cpus;
use crate::disks;
use crate::efi::Firmware;
use crate::files::Files;
use crate::memory::Memory;
use crate::network;
use crate::pci::Pci;
use crate::tables::{self, Smbios};
use crate::twin::{Note, Origin, Twin};

impl Twin {
    /// Captures the machine that this runs on, whether a physical one or a logical one. As another user than root some of it
    /// cannot be read, which the notes tell.
    #[must_use]
    pub fn capture() -> Twin {
        Twin::read(Path::new("/"), true)
    }

    /// Captures from the tree below `root` (its `sys` and `proc`), which stands in for a machine. CPUID leaves are not in it.
    #[must_use]
    pub fn capture_at(root: &Path) -> Twin {
        Twin::read(root, false)
    }

    fn read(root: &Path, live: bool) -> Twin {
        let mut twin = Twin::empty();
        let mut notes: Vec<Note> = Vec::new();
        let mut part = |name: &'static str, read: &mut dyn FnMut(&Files<'_>)| {
            let files = Files::new(root, name);
            read(&files);
            notes.extend(files.notes());
        };
        let mut host = None;
        part("cpus", &mut |files| {
            match Inventory::survey_at(root) {
                Ok(inventory) => host = Some(inventory),
                Err(error) => files.note(format!("topology, caches and nodes are not known: {error}")),
            }
            twin.cpus = Cpus::read(files, host.as_ref(), live);
        });
        part("memory", &mut |files| {
            twin.memory = Memory::read(files, host.as_ref())
        });
        part("pci", &mut |files| twin.pci = Pci::read(files));
        part("smbios", &mut |files| twin.smbios = Smbios::read(files));
        part("acpi", &mut |files| twin.acpi = tables::acpi(files));
        part("nics", &mut |files| twin.nics = network::read(files));
        part("disks", &mut |files| twin.disks = disks::read(files));
        part("clock", &mut |files| {
            twin.clock = Clock::read(files, &twin.cpus.leaves, live.then(SystemTime::now));
        });
        part("firmware", &mut |files| twin.firmware = Firmware::read(files));
        part("origin", &mut |files| twin.origin = Origin::read(files));
        twin.origin.guest = twin.cpus.flags.contains("hypervisor");
        twin.notes = notes;
        twin
    }
}

impl Origin {
    fn read(files: &Files<'_>) -> Origin {
        let line = files.text("proc/cmdline").unwrap_or_default();
        let mut words = line.split_whitespace();
        let scheme = line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("net.naming_scheme="))
            .next_back();
        let folders = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "lib"];
        let libraries = folders.map(|folder| files.names(&format!("{folder}/systemd")));
        let version = |name: &String| {
            let rest = name.strip_prefix("libsystemd-shared-")?;
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        Origin {
            kernel: files.text("proc/sys/kernel/osrelease").unwrap_or_default(),
            systemd: libraries.iter().flatten().find_map(version),
            naming_scheme: scheme.map(str::to_owned),
            kernel_names: words.any(|word| word == "net.ifnames=0"),
            ..Origin::default()
        }
    }
}
