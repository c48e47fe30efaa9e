//! Where a device is at home: the ports above it on this host, or on the captured machine that the server is to be. Pure.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use pellucid_chipset::{Board, BusNumbers, PortIdentity, RootPortSpec};
use pellucid_partition::Bdf;
use pellucid_passthrough::{Bridge, Inventory};

use super::port::{identity, slot_behind, slot_number};
use crate::error::TopologyError;
use crate::machine::Machine;
use crate::spec::DeviceSpec;

/// A device's own address and the ports above it, outermost first.
pub(super) struct Home {
    pub(super) at: Bdf,
    pub(super) ports: Vec<HomePort>,
}

/// A port as it is at home.
pub(super) struct HomePort {
    pub(super) bdf: Bdf,
    pub(super) identity: PortIdentity,
    pub(super) bridge: Bridge,
    pub(super) slot: Option<u16>,
}

impl Home {
    /// The home of a device that stays there: at its address, or on its bus, as a virtual function that gets another number does. A device
    /// that a captured machine does not have is at home nowhere on it.
    pub(super) fn of(
        device: &DeviceSpec,
        host: &Inventory,
        machine: Option<&Machine>,
    ) -> Result<Option<Home>, TopologyError> {
        let stays = |home: &Bdf| {
            let same_bus =
                |at: Bdf| home.bus() != 0 && (at.domain(), at.bus()) == (home.domain(), home.bus());
            device.wanted().is_some_and(|at| at == *home || same_bus(at))
        };
        let Some(own) = device.hardware() else {
            return Ok(None);
        };
        match machine {
            None => Ok(Some(own).filter(stays).and_then(|own| Home::on_host(own, host))),
            Some(machine) => match machine.address_of(own).filter(stays) {
                None => Ok(None),
                Some(there) => Home::on_machine(there, machine).map(Some),
            },
        }
    }

    fn on_host(at: Bdf, host: &Inventory) -> Option<Home> {
        let port = |bdf: &Bdf| {
            let function = host.function(*bdf)?;
            let bridge = function.bridge?;
            Some(HomePort {
                bdf: *bdf,
                identity: identity(&function.ids),
                bridge,
                slot: slot_behind(host, bridge.secondary),
            })
        };
        let ports = host.function(at)?.upstream.iter().filter_map(port).collect();
        Some(Home { at, ports })
    }

    /// Who wrote the capture is not trusted: ports must lead from a root bus down to the device, one behind the other.
    fn on_machine(at: Bdf, machine: &Machine) -> Result<Home, TopologyError> {
        let refuse = |port: Bdf, why| TopologyError::Bridge {
            device: at,
            bridge: port,
            why,
        };
        let mut ports: Vec<HomePort> = Vec::new();
        let mut inside: Option<RangeInclusive<u8>> = None;
        for bdf in machine
            .function(at)
            .map_or(&[][..], |function| &function.upstream)
        {
            let (function, bridge) = machine
                .bridge(*bdf)
                .ok_or_else(|| refuse(*bdf, "the capture has no such bridge"))?;
            let above = inside.unwrap_or(bdf.bus()..=0xff);
            if bdf.domain() != 0 || bdf.bus() != *above.start() {
                return Err(refuse(
                    *bdf,
                    "no bridge of the capture leads there in domain 0000",
                ));
            }
            if [Board::HOST_BRIDGE, Board::LPC].contains(bdf) {
                return Err(refuse(
                    *bdf,
                    "a logical server's board has a bridge of its own there",
                ));
            }
            if !matches!(bridge.express, None | Some(4..=6)) {
                return Err(refuse(
                    *bdf,
                    "it is no PCI Express port, and the board has no others",
                ));
            }
            let behind = bridge.secondary..=bridge.subordinate;
            if behind.start() <= above.start() || behind.is_empty() || behind.end() > above.end() {
                return Err(refuse(*bdf, "its buses are not inside those of the bridge above"));
            }
            ports.push(HomePort {
                bdf: *bdf,
                identity: identity(&function.ids),
                bridge,
                slot: slot_on(machine, bridge.secondary),
            });
            inside = Some(behind);
        }
        match ports.last() {
            Some(last) if at.bus() != last.bridge.secondary => {
                Err(refuse(last.bdf, "it does not lead to the device's bus"))
            }
            _ => Ok(Home { at, ports }),
        }
    }
}

/// Refuses ports of which two lead to a bus that are not one behind the other.
pub(super) fn apart(ports: &BTreeMap<Bdf, RootPortSpec>) -> Result<(), TopologyError> {
    let within = |inner: BusNumbers, outer: BusNumbers| {
        (outer.secondary..=outer.subordinate).contains(&inner.primary)
            && inner.subordinate <= outer.subordinate
    };
    for (one, before) in ports {
        for (other, after) in ports.range((Bound::Excluded(*one), Bound::Unbounded)) {
            let (one_has, other_has) = (before.buses, after.buses);
            let meet =
                one_has.secondary <= other_has.subordinate && other_has.secondary <= one_has.subordinate;
            if meet && !within(one_has, other_has) && !within(other_has, one_has) {
                return Err(TopologyError::Bridge {
                    device: *other,
                    bridge: *one,
                    why: "its buses are also behind another port; place the device elsewhere with at=BDF",
                });
            }
        }
    }
    Ok(())
}

/// The number of the slot that the functions of a bus are in on the captured machine, if it is one.
fn slot_on(machine: &Machine, bus: u8) -> Option<u16> {
    let first = Bdf::of_devfn(0, bus, 0);
    let mut behind = machine
        .captured()
        .pci
        .functions
        .range(first..=Bdf::of_devfn(0, bus, 0xff));
    behind.find_map(|(_, function)| slot_number(function.place.slot.as_deref()?))
}
