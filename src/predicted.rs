//! What a guest would find, told before anything is touched: the twin of the server as planned.

use std::collections::BTreeMap;

use pellucid_chipset::{Board, HostBridge, Lpc, RootPortSpec};
use pellucid_partition::{Bdf, ConfigHandler, Layout, Plan, board::PM_BASE};
use pellucid_passthrough::{Bridge, Ids};
use pellucid_twin::{GuestPort, GuestShare, Origin, Twin};

use crate::check::Examination;
use crate::machine::Machine;
use crate::topology::Topology;

impl Examination {
    /// The machine that the guest would find, from a capture of this host; `None` where it has no share or no place for its devices.
    /// Virtual functions that are yet to be made, and devices that other processes serve, are not in it. For a server that is to be a captured
    /// machine, [`Machine::host`] is that capture.
    #[must_use]
    pub fn predict(&self, host: &Twin) -> Option<Twin> {
        self.predict_of(host, self.machine())
    }

    /// The same for a guest that is to be `machine`.
    pub(crate) fn predict_of(&self, host: &Twin, machine: Option<&Machine>) -> Option<Twin> {
        let (plan, topology) = (self.plan()?, self.topology()?);
        let lent = self
            .devices()
            .filter_map(|(offer, at)| Some((offer.spec().host()?, at?)));
        let mut share = share(plan, topology, lent.collect(), self.smbios());
        if let Some(machine) = machine {
            share.threads_per_core = machine.threads_per_core(plan.vcpus());
        }
        let mut guest = host.as_guest(&share);
        guest.firmware.efi = self.has_firmware();
        if let Some(machine) = machine {
            let captured = machine.captured();
            // Its operating system comes along, and so do the records that the kernel takes its ids from.
            let withheld = guest.origin.withheld.iter();
            guest.origin = Origin {
                guest: true,
                withheld: withheld.filter_map(|here| machine.address_of(*here)).collect(),
                ..captured.origin.clone()
            };
            if self.smbios().is_some() {
                guest.smbios.ids = captured.smbios.ids.clone();
            }
        }
        Some(guest)
    }
}

pub(crate) fn share(
    plan: &Plan,
    topology: &Topology,
    devices: BTreeMap<Bdf, Bdf>,
    smbios: Option<&pellucid_image::SmbiosTables>,
) -> GuestShare {
    GuestShare {
        devices,
        ports: topology.ports().map(|(bdf, spec)| (bdf, port(spec))).collect(),
        board: BTreeMap::from([
            (Board::HOST_BRIDGE, ids(&HostBridge::new(Layout::ECAM.start))),
            (Board::LPC, ids(&Lpc::new(PM_BASE))),
        ]),
        cpus: plan.vcpus(),
        threads_per_core: 1,
        memory: plan.layout().memory(),
        smbios: smbios.map(|tables| [tables.anchor().to_vec(), tables.table().to_vec()]),
    }
}

fn port(spec: &RootPortSpec) -> GuestPort {
    let identity = spec.identity;
    let (vendor, device) = identity.subsystem.unwrap_or_default();
    GuestPort {
        ids: Ids {
            vendor: identity.vendor,
            device: identity.device,
            class: 0x06_0400,
            revision: identity.revision,
            subsystem: [vendor, device],
        },
        bridge: Bridge {
            secondary: spec.buses.secondary,
            subordinate: spec.buses.subordinate,
            express: Some(4),
        },
        slot: spec.slot,
    }
}

/// What a function of the board says that it is.
fn ids(function: &dyn ConfigHandler) -> Ids {
    let mut header = [0; 0x30];
    for at in (0..header.len()).step_by(4) {
        function.read(at as u16, &mut header[at..at + 4]);
    }
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    Ids {
        vendor: word(0),
        device: word(2),
        class: u32::from(word(0xa)) << 8 | u32::from(header[9]),
        revision: header[8],
        subsystem: [word(0x2c), word(0x2e)],
    }
}
