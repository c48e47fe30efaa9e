//! Open BARs: what of a BAR is mapped into the guest, what is trapped, and the two done and undone together.

mod parts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pellucid_partition::{Access, Bdf, BusRange, GuestAddress, Mapping, MmioHandler, PioHandler, Slot};

use crate::bars::{BarShape, Open, range_name};
use crate::error::AssignError;
use crate::guest::Guest;
use crate::inventory::BarKind;
use crate::messages::Messages;
use crate::msix::Part;
use crate::peers::{Peer, PeerWindow};
use crate::transport::{RegionIndex, Transport};
use parts::{Parts, parts};

/// The BARs of one function, and which are open now.
pub(crate) struct Windows {
    device: Bdf,
    guest: Guest,
    bars: BTreeMap<u8, Window>,
    // Teardown order: what peers reach goes before the device is no peer any more.
    open: BTreeMap<u8, Opened>,
    peer: Option<Peer>,
}

/// One BAR: its parts, with what each is made of.
struct Window {
    kind: BarKind,
    size: u64,
    mapped: Vec<(u64, Arc<Mapping>)>,
    trapped: Vec<(u64, u64, Arc<Trap>)>,
}

/// A BAR open to the guest. Dropping it closes it, to the DMA of peers first.
struct Opened {
    address: u64,
    _peers: Vec<PeerWindow>,
    _slots: Vec<Slot>,
    _memory: Vec<BusRange<dyn MmioHandler>>,
    _ports: Vec<BusRange<dyn PioHandler>>,
}

/// A part of a BAR that the guest leaves KVM for.
struct Trap {
    bar: u8,
    region: RegionIndex,
    base: u64,
    transport: Arc<dyn Transport>,
    messages: Arc<Messages>,
}

impl Windows {
    /// Maps into this process what can be mapped; the guest sees nothing yet.
    pub(crate) fn new(
        device: Bdf,
        guest: &Guest,
        bars: &[BarShape],
        transport: &Arc<dyn Transport>,
        messages: &Arc<Messages>,
    ) -> Result<Windows, AssignError> {
        let mut windows = BTreeMap::new();
        for bar in bars {
            let index = bar.region();
            let info = transport.region(index).unwrap_or_default();
            let parts = if bar.kind == BarKind::Io || bar.is_rom() {
                Parts::trapped(bar.size)
            } else {
                parts(bar, &info, messages.geometry())
            };
            let mapped = parts.mapped.iter().map(|part| {
                let mapping = transport.map(index, part.start, (part.end - part.start) as usize);
                let failed = |source| AssignError::Device {
                    device,
                    act: "mapping a BAR",
                    source,
                };
                Ok((part.start, Arc::new(mapping.map_err(failed)?)))
            });
            let mapped = mapped.collect::<Result<_, AssignError>>()?;
            let trap = |part: &Range<u64>| {
                let (transport, messages) = (Arc::clone(transport), Arc::clone(messages));
                let trap = Trap {
                    bar: bar.index,
                    region: index,
                    base: part.start,
                    transport,
                    messages,
                };
                (part.start, part.end - part.start, Arc::new(trap))
            };
            let trapped = parts.trapped.iter().map(trap).collect();
            windows.insert(
                bar.index,
                Window {
                    kind: bar.kind,
                    size: bar.size,
                    mapped,
                    trapped,
                },
            );
        }
        Ok(Windows {
            device,
            guest: guest.clone(),
            bars: windows,
            open: BTreeMap::new(),
            peer: guest.peers.as_ref().map(|peers| peers.join(device)),
        })
    }

    /// What is open.
    pub(crate) fn open(&self) -> Vec<Open> {
        self.open
            .iter()
            .map(|(bar, opened)| (*bar, opened.address))
            .collect()
    }

    /// Opens a BAR at an address. All of it or nothing.
    pub(crate) fn show(&mut self, (bar, address): Open) -> Result<(), AssignError> {
        let Some(window) = self.bars.get(&bar) else {
            return Ok(());
        };
        let name = range_name(self.device, bar);
        let bus = |source| AssignError::Bus {
            device: self.device,
            source,
        };
        let mut opened = Opened {
            address,
            _peers: Vec::new(),
            _slots: Vec::new(),
            _memory: Vec::new(),
            _ports: Vec::new(),
        };
        for (offset, size, trap) in &window.trapped {
            if window.kind == BarKind::Io {
                let handler: Arc<dyn PioHandler> = Arc::clone(trap) as _;
                let range = self.guest.pio.insert(address + offset, *size, &name, handler);
                opened._ports.push(range.map_err(bus)?);
            } else {
                let handler: Arc<dyn MmioHandler> = Arc::clone(trap) as _;
                let range = self.guest.mmio.insert(address + offset, *size, &name, handler);
                opened._memory.push(range.map_err(bus)?);
            }
        }
        for (offset, mapping) in &window.mapped {
            let at = GuestAddress(address + offset);
            let slot = self.guest.vm.map_slot(at, Arc::clone(mapping), Access::ReadWrite);
            opened._slots.push(slot.map_err(|source| AssignError::Vm {
                device: self.device,
                source,
            })?);
        }
        // Last, once nothing can fail any more: a peer that finds no way there is told, not the guest.
        if let Some(peer) = &self.peer {
            let parts = window.mapped.iter();
            let shown = parts.map(|(offset, mapping)| peer.show(GuestAddress(address + offset), mapping));
            opened._peers = shown.collect();
        }
        tracing::debug!(device = %self.device, bar, address, size = window.size, "BAR open");
        self.open.insert(bar, opened);
        Ok(())
    }

    /// Closes a BAR.
    pub(crate) fn hide(&mut self, bar: u8) {
        self.open.remove(&bar);
    }

    /// Closes all and forgets the mappings.
    pub(crate) fn end(&mut self) {
        self.open.clear();
        self.bars.clear();
        self.peer = None;
    }
}

impl Trap {
    fn answer(&self, offset: u64, data: &mut [u8]) {
        let part = self
            .messages
            .geometry()
            .map_or(Part::Device, |msix| msix.part(self.bar, offset));
        match part {
            Part::Table(at) => self.messages.read_table(at, data),
            Part::Pending(at) => {
                // A vector that the guest never unmasked is pending in the device, if at all.
                if self.transport.read(self.region, offset, data).is_err() {
                    data.fill(0);
                }
                self.messages.read_pending(at, data);
            }
            Part::Device => {
                if let Err(error) = self.transport.read(self.region, offset, data) {
                    tracing::debug!(bar = self.bar, offset, %error, "a read of a BAR failed");
                    data.fill(0xff);
                }
            }
        }
    }

    fn take(&self, offset: u64, data: &[u8]) {
        let part = self
            .messages
            .geometry()
            .map_or(Part::Device, |msix| msix.part(self.bar, offset));
        match part {
            Part::Table(at) => self.messages.write_table(at, data),
            Part::Pending(_) => {}
            // A ROM is not written: nothing but a programming voltage could.
            Part::Device if self.region == RegionIndex::Rom => {}
            Part::Device => {
                if let Err(error) = self.transport.write(self.region, offset, data) {
                    tracing::debug!(bar = self.bar, offset, %error, "a write of a BAR failed");
                }
            }
        }
    }
}

impl MmioHandler for Trap {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(self.base + offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.take(self.base + offset, data);
    }
}

impl PioHandler for Trap {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.answer(self.base + u64::from(offset), data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        self.take(self.base + u64::from(offset), data);
    }
}
