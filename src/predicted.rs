//! What a guest would find, told before anything is touched: the twin of the server as planned.

use std::collections::BTreeMap;

use pellucid_chipset::RootPortSpec;
use pellucid_partition::{Bdf, Plan};
use pellucid_passthrough::{Bridge, Ids};
use pellucid_twin::{GuestPort, GuestShare, Twin};

use crate::check::Examination;
use crate::topology::Topology;

impl Examination {
    /// The machine that the guest would find, from a capture of this host; `None` where it has no share or no place for its devices.
    /// Virtual functions that are yet to be made, and devices that other processes serve, are not in it.
    #[must_use]
    pub fn predict(&self, host: &Twin) -> Option<Twin> {
        let (plan, topology) = (self.plan()?, self.topology()?);
        let lent = self
            .devices()
            .filter_map(|(offer, at)| Some((offer.spec().host()?, at?)));
        Some(host.as_guest(&share(plan, topology, lent.collect(), self.smbios())))
    }
}

fn share(
    plan: &Plan,
    topology: &Topology,
    devices: BTreeMap<Bdf, Bdf>,
    smbios: Option<&pellucid_image::SmbiosTables>,
) -> GuestShare {
    GuestShare {
        devices,
        ports: topology.ports().map(|(bdf, spec)| (bdf, port(spec))).collect(),
        board: BOARD
            .into_iter()
            .map(|(devfn, ids)| (Bdf::of_devfn(0, 0, devfn), ids))
            .collect(),
        cpus: plan.vcpus(),
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

/// The host bridge and the LPC bridge of the board.
const BOARD: [(u8, Ids); 2] = [
    (0, bridge(0x29c0, 0x06_0000)),
    (0x1f << 3, bridge(0x2918, 0x06_0100)),
];

const fn bridge(device: u16, class: u32) -> Ids {
    Ids {
        vendor: 0x8086,
        device,
        class,
        revision: 2,
        subsystem: [0, 0],
    }
}
