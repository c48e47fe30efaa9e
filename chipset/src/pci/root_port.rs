//! A PCI Express port that looks like the host's, of the root complex or of a switch: a type 1 header, PCI Express, power
//! management and MSI.
//!
//! Windows and bus numbers are registers as on hardware. What is behind the port answers whatever the windows say, since
//! BARs are decoded by the machine's bus. No error reporting; only a hot-plug slot raises interrupts.

use pellucid_partition::{ConfigHandler, MsiMessage};

use crate::error::PciError;
use crate::pci::slot::{Slot, SlotState};
use crate::pci::space::{Change, Space};
use crate::pci::windows::{BusNumbers, Link, PortKind, RootPortSpec};

/// A root port; placed by [`PciConfig::place_port`](crate::PciConfig::place_port).
pub struct RootPort {
    space: Space,
    slot: Option<Slot>,
    bus_reset: Box<dyn Fn() + Send + Sync>,
}

impl RootPort {
    /// The port that `spec` describes; refuses bus numbers, windows, slots and links that no port has.
    pub fn new(spec: &RootPortSpec) -> Result<Self, PciError> {
        spec.check()?;
        let identity = spec.identity;
        let header = Space::new(identity.vendor, identity.device, CLASS_BRIDGE, identity.revision);
        let mut space = subsystem(capabilities(header_type_1(header, spec), spec), spec);
        if spec.hot_plug {
            space = Slot::describe(space);
        }
        Ok(Self {
            space,
            slot: spec.hot_plug.then(Slot::new),
            bus_reset: Box::new(|| ()),
        })
    }

    /// Has `bus_reset` called when the guest starts a reset of the secondary bus (on a vCPU thread).
    #[must_use]
    pub fn on_bus_reset(mut self, bus_reset: impl Fn() + Send + Sync + 'static) -> Self {
        self.bus_reset = Box::new(bus_reset);
        self
    }

    /// Has `interrupt` called with what is to be written for an interrupt of the hot-plug slot (on any thread).
    #[must_use]
    pub fn on_interrupt(mut self, interrupt: impl Fn(MsiMessage) + Send + Sync + 'static) -> Self {
        if let Some(slot) = &mut self.slot {
            slot.message = Box::new(interrupt);
        }
        self
    }

    /// Has `switched` called when the guest has switched the hot-plug slot's power or its indicator (on a vCPU thread).
    #[must_use]
    pub fn on_slot_switched(mut self, switched: impl Fn(SlotState) + Send + Sync + 'static) -> Self {
        if let Some(slot) = &mut self.slot {
            slot.switched = Box::new(switched);
        }
        self
    }

    /// The bus numbers as they are programmed now.
    #[must_use]
    pub fn buses(&self) -> BusNumbers {
        BusNumbers::of_register(self.space.load(BUSES))
    }

    /// The hot-plug slot as it is now; `None` if it has none.
    #[must_use]
    pub fn slot(&self) -> Option<SlotState> {
        self.slot.as_ref().map(|_| SlotState::of(&self.space))
    }

    /// Presses the hot-plug slot's attention button: an operating system that listens switches the slot off (or on), or does not
    /// if it is pressed again while the indicator blinks.
    pub fn press_attention_button(&self) {
        if let Some(slot) = &self.slot {
            slot.press(&self.space);
        }
    }

    /// Takes what is behind the port out of its hot-plug slot: from here on nothing answers there, and the guest is told.
    pub fn pull(&self) {
        if let Some(slot) = &self.slot {
            slot.occupy(&self.space, false);
        }
    }

    /// Puts an adapter into the hot-plug slot and tells the guest. What is behind the port answers once the guest has the slot's
    /// power on.
    pub fn insert(&self) {
        if let Some(slot) = &self.slot {
            slot.occupy(&self.space, true);
        }
    }

    /// Whether what is behind the port can be reached: always, but for a hot-plug slot that is empty or switched off.
    pub(crate) fn is_up(&self) -> bool {
        self.slot.is_none() || Slot::is_up(&self.space)
    }

    fn change(&self, offset: u16, data: &[u8]) -> Option<Change> {
        match &self.slot {
            Some(slot) => slot.write(&self.space, offset, data),
            None => self.space.write(offset, data),
        }
    }
}

impl ConfigHandler for RootPort {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let Some(change) = self.change(offset, data) else {
            return;
        };
        let raised = change.after & !change.before;
        if change.register == INTERRUPT && raised & SECONDARY_BUS_RESET != 0 {
            (self.bus_reset)();
        }
    }
}

impl std::fmt::Debug for RootPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootPort")
            .field("buses", &self.buses())
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}

/// The header (PCI-to-PCI bridge architecture 1.2, section 3.2).
fn header_type_1(space: Space, spec: &RootPortSpec) -> Space {
    let [prefetchable, upper_base, upper_limit] = spec.windows.prefetchable_registers();
    space
        .with_u16(COMMAND, command(spec))
        .writable(COMMAND, 0x0547)
        .with_u16(STATUS, 0x0010)
        .clearable(STATUS, 0xf900)
        .writable(CACHE_LINE, 0xff)
        .with_u8(HEADER_TYPE, 1)
        .with_u32(BUSES, spec.buses.register())
        .writable(BUSES, 0x00ff_ffff)
        .with_u16(IO_WINDOW, spec.windows.io_register())
        .writable(IO_WINDOW, 0xf0f0)
        .clearable(SECONDARY_STATUS, 0xf900)
        .with_u32(MEMORY_WINDOW, spec.windows.memory_register())
        .writable(MEMORY_WINDOW, 0xfff0_fff0)
        .with_u32(PREFETCHABLE_WINDOW, prefetchable)
        .writable(PREFETCHABLE_WINDOW, 0xfff0_fff0)
        .with_u32(PREFETCHABLE_UPPER_BASE, upper_base)
        .writable(PREFETCHABLE_UPPER_BASE, u32::MAX)
        .with_u32(PREFETCHABLE_UPPER_LIMIT, upper_limit)
        .writable(PREFETCHABLE_UPPER_LIMIT, u32::MAX)
        .with_u8(CAPABILITIES, EXPRESS as u8)
        .writable(INTERRUPT, 0x00ff)
        .writable(BRIDGE_CONTROL, 0x005f)
}

/// As firmware leaves it: bus mastering, and what the windows that are open need.
fn command(spec: &RootPortSpec) -> u16 {
    let windows = &spec.windows;
    let memory = !windows.memory.is_empty() || !windows.prefetchable.is_empty();
    BUS_MASTER | u16::from(memory) << 1 | u16::from(!windows.io.is_empty())
}

/// PCI Express (base 5.0, section 7.5.3), power management, MSI.
fn capabilities(space: Space, spec: &RootPortSpec) -> Space {
    let Link { speed, width } = spec.link;
    let link = u32::from(width) << 4 | u32::from(speed);
    let (slot_implemented, slot) = spec.slot.map_or((0, 0), |slot| (1 << 8, u32::from(slot)));
    let slot_capabilities = if slot == 0 {
        0
    } else {
        slot << 19 | NO_COMMAND_COMPLETED
    };
    let present = if slot == 0 { 0 } else { PRESENCE_DETECTED };
    let kind = match spec.kind {
        PortKind::Root => 4,
        PortKind::Upstream => 5,
        PortKind::Downstream => 6,
    };
    // An upstream port's link is the business of the port before it.
    let (reporting, active) = match spec.kind {
        PortKind::Upstream => (0, 0),
        _ => (LINK_ACTIVE_REPORTING, LINK_ACTIVE),
    };
    let root = u32::from(spec.kind == PortKind::Root);
    let space = space
        .with_u32(
            EXPRESS,
            (kind << 4 | VERSION_2 | slot_implemented) << 16 | u32::from(POWER) << 8 | 0x10,
        )
        // Role-based error reporting, payloads up to 256 bytes.
        .with_u32(EXPRESS + 0x04, 0x8001)
        .writable(EXPRESS + 0x08, 0x78ff)
        .clearable(EXPRESS + 0x0a, 0x000f)
        .with_u32(EXPRESS + 0x0c, u32::from(spec.number) << 24 | reporting | link)
        .writable(EXPRESS + 0x10, 0x0fd3)
        .with_u16(EXPRESS + 0x12, active | link as u16)
        .clearable(EXPRESS + 0x12, 0xc000)
        .with_u32(EXPRESS + 0x14, slot_capabilities)
        .writable(EXPRESS + 0x18, if slot == 0 { 0 } else { 0x1fff })
        .with_u16(EXPRESS + 0x1a, present)
        // Root control and status.
        .writable(EXPRESS + 0x1c, 0x000f * root)
        .clearable(EXPRESS + 0x20, root << 16)
        // Completion timeouts can be disabled; no ARI, since the devices are not shown with it.
        .with_u32(EXPRESS + 0x24, 1 << 4)
        .writable(EXPRESS + 0x28, 1 << 4)
        .with_u32(EXPRESS + 0x2c, ((1 << speed) - 1) << 1)
        .with_u16(EXPRESS + 0x30, u16::from(speed))
        .writable(EXPRESS + 0x30, 0x000f);
    space
        // Version 3; D0 and D3hot, which is kept and changes nothing; no soft reset.
        .with_u32(POWER, 0x0003_0000 | u32::from(MSI) << 8 | 0x01)
        .with_u32(POWER + 4, 0x0008)
        .writable(POWER + 4, 0x0003)
        // One 64-bit message.
        .with_u32(MSI, 0x0080_0005)
        .writable(MSI + 2, 0x0001)
        .writable(MSI + 4, 0xffff_fffc)
        .writable(MSI + 8, u32::MAX)
        .writable(MSI + 12, 0xffff)
}

/// The subsystem ids of a bridge stand in a capability, the last of the list.
fn subsystem(space: Space, spec: &RootPortSpec) -> Space {
    let Some((vendor, device)) = spec.identity.subsystem else {
        return space;
    };
    space
        .with_u8(MSI + 1, SUBSYSTEM as u8)
        .with_u32(SUBSYSTEM, 0x0d)
        .with_u32(SUBSYSTEM + 4, u32::from(device) << 16 | u32::from(vendor))
}

const BUS_MASTER: u16 = 0x0004;
const CLASS_BRIDGE: u32 = 0x06_0400;
const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const CACHE_LINE: u16 = 0x0c;
const HEADER_TYPE: u16 = 0x0e;
const BUSES: u16 = 0x18;
const IO_WINDOW: u16 = 0x1c;
const SECONDARY_STATUS: u16 = 0x1e;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const PREFETCHABLE_UPPER_BASE: u16 = 0x28;
const PREFETCHABLE_UPPER_LIMIT: u16 = 0x2c;
const CAPABILITIES: u16 = 0x34;
/// Interrupt line and pin; bridge control in the upper half.
const INTERRUPT: u16 = 0x3c;
const BRIDGE_CONTROL: u16 = 0x3e;
const SECONDARY_BUS_RESET: u32 = 0x0040 << 16;

/// The capability list: PCI Express, power management, MSI, subsystem.
pub(super) const EXPRESS: u16 = 0x40;
const POWER: u16 = 0x80;
pub(super) const MSI: u16 = 0x90;
const SUBSYSTEM: u16 = 0xa0;
const VERSION_2: u32 = 0x0002;
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
pub(super) const LINK_ACTIVE: u16 = 1 << 13;
const NO_COMMAND_COMPLETED: u32 = 1 << 18;
pub(super) const PRESENCE_DETECTED: u16 = 1 << 6;
