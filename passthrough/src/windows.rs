//! Open BARs: what of a BAR is mapped into the guest, what is trapped, and the two done and undone together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pellucid_partition::{Access, Bdf, BusRange, GuestAddress, Mapping, MmioHandler, PioHandler, Slot};

use crate::bars::{BarShape, Open, range_name};
use crate::error::AssignError;
use crate::guest::Guest;
use crate::inventory::BarKind;
use crate::messages::Messages;
use crate::msix::{Geometry, Part};
use crate::transport::{RegionIndex, RegionInfo, Transport};

/// The BARs of one function, and which are open now.
pub(crate) struct Windows {
    device: Bdf,
    guest: Guest,
    bars: BTreeMap<u8, Window>,
    open: BTreeMap<u8, Opened>,
}

/// One BAR: its parts, with what each is made of.
struct Window {
    kind: BarKind,
    size: u64,
    mapped: Vec<(u64, Arc<Mapping>)>,
    trapped: Vec<(u64, u64, Arc<Trap>)>,
}

/// A BAR open to the guest. Dropping it closes it.
struct Opened {
    address: u64,
    _slots: Vec<Slot>,
    _memory: Vec<BusRange<dyn MmioHandler>>,
    _ports: Vec<BusRange<dyn PioHandler>>,
}

/// A part of a BAR that the guest leaves KVM for.
struct Trap {
    bar: u8,
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
            let index = RegionIndex::Bar(bar.index);
            let info = transport.region(index).unwrap_or_default();
            let parts = if bar.kind == BarKind::Io {
                Parts {
                    mapped: Vec::new(),
                    trapped: Parts::whole(bar.size),
                }
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
    }
}

/// A BAR's pages: those mapped into the guest, and the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parts {
    pub(crate) mapped: Vec<Range<u64>>,
    pub(crate) trapped: Vec<Range<u64>>,
}

impl Parts {
    fn whole(size: u64) -> Vec<Range<u64>> {
        vec![Range { start: 0, end: size }]
    }
}

/// Divides a BAR: mapped is what the transport can map, in whole pages, less the pages of the MSI-X table and pending bits.
pub(crate) fn parts(bar: &BarShape, info: &RegionInfo, msix: Option<Geometry>) -> Parts {
    let up = |value: u64| value.div_ceil(PAGE) * PAGE;
    let down = |value: u64| value / PAGE * PAGE;
    let mut holes: Vec<Range<u64>> = Vec::new();
    if let Some(msix) = msix {
        for (at, range) in [
            (msix.table.0, msix.table_range()),
            (msix.pending.0, msix.pending_range()),
        ] {
            if at == bar.index {
                holes.push(down(range.start)..up(range.end));
            }
        }
    }
    holes.sort_by_key(|hole| hole.start);
    let mut areas: Vec<Range<u64>> = info
        .mappable
        .iter()
        .map(|area| up(area.start)..down(area.end.min(bar.size)))
        .collect();
    areas.sort_by_key(|area| area.start);
    let mut parts = Parts::default();
    let mut at = 0;
    for area in areas {
        let mut start = area.start.max(at);
        for hole in holes
            .iter()
            .filter(|hole| hole.start < area.end && area.start < hole.end)
        {
            parts.add(&mut at, start..hole.start);
            start = start.max(hole.end);
        }
        parts.add(&mut at, start..area.end);
    }
    if at < bar.size {
        parts.trapped.push(at..bar.size);
    }
    parts
}

impl Parts {
    /// Adds a mapped part, and what lies between `at` and it as trapped.
    fn add(&mut self, at: &mut u64, part: Range<u64>) {
        if part.start >= part.end {
            return;
        }
        if *at < part.start {
            self.trapped.push(*at..part.start);
        }
        *at = part.end;
        self.mapped.push(part);
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
            Part::Pending(at) => self.messages.read_pending(at, data),
            Part::Device => {
                if let Err(error) = self.transport.read(RegionIndex::Bar(self.bar), offset, data) {
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
            Part::Device => {
                if let Err(error) = self.transport.write(RegionIndex::Bar(self.bar), offset, data) {
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

/// KVM maps whole pages.
const PAGE: u64 = 4096;
