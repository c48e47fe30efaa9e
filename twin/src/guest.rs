//! The machine that a guest would find that has a share of another: a prediction, made before anything is touched. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_image::{Smbios as Tables, Structure};
use pellucid_partition::Bdf;
use pellucid_passthrough::{Bridge, Ids, Place};

use crate::cpus::Thread;
use crate::disks::Disk;
use crate::memory::{Memory, MemoryNode};
use crate::network::Nic;
use crate::pci::{Carries, ConfigSeen, PciFunction};
use crate::tables::{AcpiTable, Bytes, Smbios};
use crate::twin::{Note, Twin};

/// What a guest has of a machine.
#[derive(Debug, Clone, Default)]
pub struct GuestShare {
    /// Lent functions, with their addresses in the guest.
    pub devices: BTreeMap<Bdf, Bdf>,
    /// The guest's ports.
    pub ports: BTreeMap<Bdf, GuestPort>,
    /// Functions that its board has by itself.
    pub board: BTreeMap<Bdf, Ids>,
    /// How many CPUs it has.
    pub cpus: usize,
    /// How many of them are threads of one core; 0 counts as 1.
    pub threads_per_core: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Its SMBIOS entry point and table, if it has any.
    pub smbios: Option<[Vec<u8>; 2]>,
}

/// A port of a guest.
#[derive(Debug, Clone, Copy)]
pub struct GuestPort {
    /// What it is.
    pub ids: Ids,
    /// The buses behind it.
    pub bridge: Bridge,
    /// The number of the slot behind it.
    pub slot: Option<u16>,
}

impl Twin {
    /// What a guest with `share` of this machine would find. What is not lent is left out and listed as withheld; what only a
    /// running guest can tell is noted.
    #[must_use]
    pub fn as_guest(&self, share: &GuestShare) -> Twin {
        let mut guest = Twin::empty();
        guest.origin = self.origin.clone();
        guest.origin.guest = true;
        let lent = |bdf: &Bdf| share.devices.contains_key(bdf);
        // Bridges of any kind belong to a board, and a guest has its own.
        let withheld =
            |(bdf, function): &(&Bdf, &PciFunction)| !lent(bdf) && function.ids.class >> 16 != 0x06;
        let others = self.pci.functions.iter().filter(withheld);
        guest.origin.withheld = others.map(|(bdf, _)| *bdf).collect();
        guest.smbios = self.smbios_of(share);
        let onboard = onboard(&guest.smbios);
        self.tree(share, &onboard, &mut guest);
        self.share_of(share, &mut guest);
        for name in ["APIC", "DSDT", "FACP", "FACS", "MCFG"] {
            guest.acpi.insert(name.to_owned(), AcpiTable::default());
        }
        guest.clock = self.clock.clone();
        for (part, what) in [
            ("pci", "capabilities, BARs and drivers are those of the machine"),
            (
                "cpus",
                "features are those of the machine, and the hypervisor's; CPUID was not asked",
            ),
            ("clock", "clocks are those of the machine"),
        ] {
            guest.notes.push(Note {
                part: part.to_owned(),
                what: format!("predicted: {what}"),
            });
        }
        guest
    }

    fn smbios_of(&self, share: &GuestShare) -> Smbios {
        let Some([entry_point, table]) = &share.smbios else {
            return Smbios::default();
        };
        Smbios {
            // The records that the kernel takes them from go along as they are.
            ids: self.smbios.ids.clone(),
            entry_point: Some(Bytes(entry_point.clone())),
            table: Some(Bytes(table.clone())),
        }
    }

    fn tree(&self, share: &GuestShare, onboard: &BTreeMap<Bdf, (u32, String)>, guest: &mut Twin) {
        let functions = &mut guest.pci.functions;
        functions.extend(
            share
                .board
                .iter()
                .map(|(bdf, ids)| (*bdf, PciFunction::bare(*ids))),
        );
        for (bdf, port) in &share.ports {
            let mut function = PciFunction::bare(port.ids);
            function.upstream = path(share, *bdf);
            function.bridge = Some(port.bridge);
            functions.insert(*bdf, function);
            if let Some(slot) = port.slot {
                let behind = format!("{:04x}:{:02x}:00", bdf.domain(), port.bridge.secondary);
                guest.pci.slots.insert(slot.to_string(), behind);
            }
        }
        for (host, at) in &share.devices {
            let Some(own) = self.pci.functions.get(host) else {
                continue;
            };
            let slot = path(share, *at)
                .last()
                .and_then(|port| share.ports.get(port)?.slot);
            let known = onboard.get(at);
            let function = PciFunction {
                upstream: path(share, *at),
                place: Place {
                    slot: slot.map(|number| number.to_string()),
                    label: known
                        .map(|(_, label)| label.clone())
                        .filter(|label| !label.is_empty()),
                    index: known.map(|(index, _)| *index),
                    acpi_index: None,
                    numa_node: own.place.numa_node,
                    removable: own.place.removable,
                },
                virtual_of: None,
                ari: false,
                sun: slot.map(u32::from),
                carries: Carries::Nothing,
                config: ConfigSeen {
                    multifunction: None,
                    ..own.config.clone()
                },
                ..own.clone()
            };
            functions.insert(*at, function);
        }
    }

    /// Interfaces and disks of lent functions, CPUs and memory.
    fn share_of(&self, share: &GuestShare, guest: &mut Twin) {
        let at = |pci: Option<Bdf>| pci.and_then(|bdf| share.devices.get(&bdf)).copied();
        for (name, nic) in &self.nics {
            if let Some(pci) = at(nic.pci) {
                let nic = Nic {
                    pci: Some(pci),
                    // It is yet to be named.
                    name_origin: None,
                    ..nic.clone()
                };
                guest.nics.insert(name.clone(), nic);
            }
        }
        for (name, disk) in &self.disks {
            if let Some(pci) = at(disk.pci) {
                let disk = Disk {
                    pci: Some(pci),
                    ..disk.clone()
                };
                guest.disks.insert(name.clone(), disk);
            }
        }
        guest.cpus = self.cpus.clone();
        guest.cpus.leaves.clear();
        // As the guest is told of them: one package of equal cores.
        let node = |id: usize| self.cpus.threads.get(id).map_or(0, |thread| thread.node);
        let siblings = i32::try_from(share.threads_per_core.max(1)).unwrap_or(i32::MAX);
        let thread = |number: i32| {
            let id = usize::try_from(number).ok()?;
            Some(Thread {
                id,
                package: 0,
                core: number / siblings,
                node: node(id),
            })
        };
        let last = i32::try_from(share.cpus).unwrap_or(i32::MAX);
        guest.cpus.threads = (0..last).filter_map(thread).collect();
        guest.cpus.flags.insert("hypervisor".to_owned());
        guest.memory = Memory {
            nodes: vec![MemoryNode {
                id: 0,
                total: share.memory,
                distances: Vec::new(),
            }],
            ..Memory::default()
        };
    }
}

/// The ports above a function, outermost first.
fn path(share: &GuestShare, bdf: Bdf) -> Vec<Bdf> {
    let mut path = Vec::new();
    let mut seen = BTreeSet::from([bdf]);
    let mut below = bdf;
    while let Some(port) = port_above(share, below).filter(|port| seen.insert(*port)) {
        path.push(port);
        below = port;
    }
    path.reverse();
    path
}

fn port_above(share: &GuestShare, bdf: Bdf) -> Option<Bdf> {
    let leads = |(at, port): &(&Bdf, &GuestPort)| {
        at.domain() == bdf.domain() && port.bridge.secondary == bdf.bus() && bdf.bus() != 0
    };
    share.ports.iter().find(leads).map(|(at, _)| *at)
}

/// Numbers and labels of onboard devices by address, from records of type 41 (DSP0134, 7.42), as Linux takes them: those that are
/// enabled, the last one of several.
fn onboard(smbios: &Smbios) -> BTreeMap<Bdf, (u32, String)> {
    let (Some(entry_point), Some(table)) = (&smbios.entry_point, &smbios.table) else {
        return BTreeMap::new();
    };
    let Ok(tables) = Tables::parse(&entry_point.0, &table.0) else {
        return BTreeMap::new();
    };
    let device = |record: Structure<'_>| {
        let enabled = record.byte(5)? & 0x80 != 0;
        let bdf = Bdf::of_devfn(record.word(7)?.into(), record.byte(9)?, record.byte(10)?);
        let label = String::from_utf8_lossy(record.string(4).unwrap_or_default())
            .trim()
            .to_owned();
        enabled.then_some((bdf, (u32::from(record.byte(6)?), label)))
    };
    tables
        .structures()
        .filter(|record| record.kind() == ONBOARD)
        .filter_map(device)
        .collect()
}

const ONBOARD: u8 = 41;
