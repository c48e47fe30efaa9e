//! The PCI tree that a machine's devices need: root ports, switches, and which slots have several functions.

use std::collections::BTreeSet;

use crate::MachineError;
use crate::machine::command::Line;
use crate::machine::{Device, Place};

/// The places that are taken. No two devices are at one.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Slots of the root bus with a root port, and whether a switch is behind it.
    ports: BTreeSet<(u8, bool)>,
    /// Root port and downstream port of each device behind a switch.
    downstream: BTreeSet<(u8, u8)>,
    /// Slots, by root port or `None` for the root bus, and their functions.
    functions: BTreeSet<(Option<u8>, u8, u8)>,
}

impl Tree {
    /// The tree for `devices`, or the first address at which there is no room for one.
    pub(crate) fn of(devices: &[Device]) -> Result<Self, MachineError> {
        let mut tree = Self::default();
        for device in devices {
            let place = device.place();
            if !tree.admits(place) {
                return Err(MachineError::Occupied {
                    address: address(place),
                });
            }
        }
        match tree
            .functions
            .iter()
            .find(|(bus, slot, _)| !tree.functions.contains(&(*bus, *slot, 0)))
        {
            Some(&(bus, slot, function)) => Err(MachineError::Unreachable {
                address: address(match bus {
                    Some(port) => Place::Port { slot: port, function },
                    None => Place::Root { slot, function },
                }),
            }),
            None => Ok(tree),
        }
    }

    /// The ports and switches, before the devices that are plugged into them.
    pub(crate) fn build(&self, line: &mut Line) {
        for &(slot, switch) in &self.ports {
            // After a reset of the bus the kernel waits for faster links to train, which the emulator's never say they have.
            let fields =
                format!("id=port{slot},bus=pcie.0,addr={slot:#x},chassis={slot},slot={slot},x-speed=5");
            line.option("-device", format!("pcie-root-port,{fields}"));
            if switch {
                line.option(
                    "-device",
                    format!("x3130-upstream,id=switch{slot},bus=port{slot}"),
                );
            }
        }
        for &(slot, port) in &self.downstream {
            // Chassis and slot together name a port; those of root ports are below 32.
            let (chassis, number) = (slot + 0x20, u16::from(port) + 0x40);
            let fields = format!("id=switch{slot}.{port},bus=switch{slot},addr={port:#x}");
            line.option(
                "-device",
                format!("xio3130-downstream,{fields},chassis={chassis},slot={number}"),
            );
        }
    }

    /// The options that put a device at `place`.
    pub(crate) fn bus_of(&self, place: Place) -> String {
        match place {
            Place::Root { slot, function } => {
                format!(
                    "bus=pcie.0,addr={slot:#x}.{function:#x}{}",
                    self.several(None, slot, function)
                )
            }
            Place::Port { slot, function } => {
                format!(
                    "bus=port{slot},addr=0x0.{function:#x}{}",
                    self.several(Some(slot), 0, function)
                )
            }
            Place::Switch { slot, downstream } => format!("bus=switch{slot}.{downstream},addr=0x0.0x0"),
        }
    }

    /// Function 0 of a slot says whether there are others.
    fn several(&self, bus: Option<u8>, slot: u8, function: u8) -> &'static str {
        let other = self.functions.range((bus, slot, 1)..=(bus, slot, 7)).next();
        if function == 0 && other.is_some() {
            ",multifunction=on"
        } else {
            ""
        }
    }

    /// Takes `place`, if it exists and nobody else has it.
    fn admits(&mut self, place: Place) -> bool {
        match place {
            Place::Root { slot, function } => {
                usable(slot)
                    && function <= 7
                    && !self.has_port(slot)
                    && self.functions.insert((None, slot, function))
            }
            Place::Port { slot, function } => {
                self.leads(slot, false) && function <= 7 && self.functions.insert((Some(slot), 0, function))
            }
            Place::Switch { slot, downstream } => {
                self.leads(slot, true) && downstream < 32 && self.downstream.insert((slot, downstream))
            }
        }
    }

    /// Sees that a root port is at `slot` with a switch behind it or without.
    fn leads(&mut self, slot: u8, switch: bool) -> bool {
        let occupied = self
            .functions
            .iter()
            .any(|&(bus, at, _)| bus.is_none() && at == slot);
        if !usable(slot) || occupied || self.ports.contains(&(slot, !switch)) {
            return false;
        }
        self.ports.insert((slot, switch));
        true
    }

    fn has_port(&self, slot: u8) -> bool {
        [false, true]
            .iter()
            .any(|&switch| self.ports.contains(&(slot, switch)))
    }
}

fn usable(slot: u8) -> bool {
    (1..=0x1e).contains(&slot) && !RESERVED.contains(&slot)
}

fn address(place: Place) -> String {
    match place {
        Place::Root { slot, function } => format!("00:{slot:02x}.{function}"),
        Place::Port { slot, function: 0 } => format!("00:{slot:02x}.0"),
        Place::Port { slot, function } => format!("function {function} behind 00:{slot:02x}.0"),
        Place::Switch { slot, downstream } => {
            format!("port {downstream} of the switch behind 00:{slot:02x}.0")
        }
    }
}

/// What `L1` needs for itself.
const RESERVED: [u8; 3] = [0x10, 0x11, 0x12];
