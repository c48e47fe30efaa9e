//! Builds the table from a device's own configuration space: one walk, then one rule for each thing found.

use std::ops::Range;

use crate::bars::BarShape;
use crate::capabilities::{
    Capabilities, EXT_ACS, EXT_ARI, HIDDEN, ID_AF, ID_EXPRESS, ID_MSI, ID_MSIX, ID_PM, LIST,
};
use crate::config::{ConfigTable, Register, SIZE, Source};

/// What a table is made from.
#[derive(Debug, Clone)]
pub struct ConfigOrigin<'a> {
    /// The device's configuration space as read, 256 or 4,096 bytes.
    pub space: &'a [u8],
    /// Its base address registers, with the addresses that the guest begins with.
    pub bars: &'a [BarShape],
    /// Whether the guest can be given its level-triggered line.
    pub intx: bool,
    /// The interrupt line register that firmware would have written.
    pub line: u8,
    /// Standard capabilities that the guest cannot be given: their ids, and how they are called in [`ConfigTable::hidden`].
    pub absent: &'a [(u8, &'static str)],
}

impl ConfigTable {
    /// A table for this device.
    #[must_use]
    pub fn new(origin: &ConfigOrigin<'_>) -> ConfigTable {
        let mut space = [0; SIZE];
        let length = origin.space.len().min(SIZE);
        space[..length].copy_from_slice(&origin.space[..length]);
        let mut table = ConfigTable {
            value: Box::new(space),
            // Everything that is not said otherwise goes to the device, which (or VFIO) knows what is writable.
            mask: Box::new([0xff; SIZE]),
            source: Box::new([Source::Hardware; SIZE]),
            registers: Vec::new(),
            hidden: Vec::new(),
        };
        let capabilities = Capabilities::walk(&space[..length]);
        table.header(origin);
        table.bars(origin.bars);
        table.standard(&capabilities, origin.absent);
        table.extended(&capabilities, length);
        table
    }

    /// Offsets 0x00 to 0x3f (PCI 3.0, 6.1) but the BARs.
    fn header(&mut self, origin: &ConfigOrigin<'_>) {
        self.fix(0x00, 4);
        self.fix(0x08, 4);
        // Whether there are other functions is for the guest's bus to say, which knows which of them are lent.
        self.fix(0x0e, 1);
        self.value[0x0e] &= 0x7f;
        // I/O, memory, bus master, parity, SERR and INTx disable: what a guest may switch.
        self.mask[0x04] = 0x47;
        self.mask[0x05] = 0x05;
        self.watch(0x04, 2, Register::Command);
        self.fix(0x28, 8);
        self.fix(0x34, 8);
        self.fix(0x3c, 4);
        self.source[0x3c] = Source::Shadow;
        self.value[0x3c] = origin.line;
        if !origin.intx {
            self.value[0x3d] = 0;
        }
    }

    fn bars(&mut self, bars: &[BarShape]) {
        self.clear(0x10, 24);
        self.clear(0x30, 4);
        for bar in bars {
            let at = bar.place();
            let width = if bar.is_64bit() { 8 } else { 4 };
            let register = bar.register(bar.address);
            let mask = bar.write_mask();
            for index in 0..width {
                let place = usize::from(at) + index;
                self.source[place] = Source::Shadow;
                self.value[place] = register.to_le_bytes()[index];
                self.mask[place] = mask.to_le_bytes()[index];
            }
            self.watch(at, width as u16, Register::Bar(bar.index));
        }
    }

    /// Shows the capabilities that are sound and wanted, in a list that ends.
    fn standard(&mut self, capabilities: &Capabilities, absent: &[(u8, &'static str)]) {
        let mut pointer = LIST;
        for capability in &capabilities.standard {
            let (at, id) = (capability.offset, capability.id as u8);
            let length = self.length(at, id);
            let truncated =
                (at + length > STANDARD_END).then_some("a capability that does not fit configuration space");
            let unwanted = absent
                .iter()
                .find(|(other, _)| *other == id)
                .map(|(_, name)| *name);
            if let Some(name) = unwanted.or(truncated) {
                self.hidden.push(name);
                self.clear(at, length.min(STANDARD_END - at));
                continue;
            }
            self.fix(at, 2);
            self.value[usize::from(pointer)] = at as u8;
            pointer = at + 1;
            match id {
                ID_PM => self.watch(at + 4, 2, Register::Power),
                ID_MSI => self.msi(at, length),
                ID_MSIX => {
                    self.fix(at + 2, 10);
                    self.shadow(at + 2, &[0, 0xc0]);
                    self.value[usize::from(at) + 3] &= 0x3f;
                    self.watch(at + 2, 2, Register::Msix);
                }
                // Function-level reset is done by the transport, so the bit must not reach the device by itself.
                ID_EXPRESS => {
                    self.watch(at + 8, 2, Register::DeviceControl);
                    self.mask[usize::from(at) + 9] &= 0x7f;
                }
                ID_AF => self.fix(at + 4, 1),
                _ => {}
            }
        }
        // Whatever the device's last pointer says: the guest's list ends here.
        self.value[usize::from(pointer)] = 0;
    }

    /// The bytes of a standard capability that mean something to us.
    fn length(&self, at: u16, id: u8) -> u16 {
        let control = self.word(at.min(STANDARD_END - 4) + 2);
        match id {
            ID_PM => 8,
            ID_MSI => {
                let (wide, maskable) = (control & 0x80 != 0, control & 0x100 != 0);
                10 + if wide { 4 } else { 0 } + if maskable { 10 } else { 0 }
            }
            ID_MSIX => 12,
            ID_EXPRESS => 10,
            ID_AF => 6,
            _ => 2,
        }
    }

    /// The MSI capability is the guest's own: VFIO programs the device's. Enable and count start at zero.
    fn msi(&mut self, at: u16, length: u16) {
        let control = self.word(at + 2);
        let (wide, maskable) = (control & 0x80 != 0, control & 0x100 != 0);
        self.shadow(at + 2, &[0x71, 0]);
        self.value[usize::from(at) + 2] &= !0x71;
        self.shadow(at + 4, &[0xfc, 0xff, 0xff, 0xff]);
        let mut data = at + 8;
        if wide {
            self.shadow(at + 8, &[0xff; 4]);
            data = at + 12;
        }
        self.shadow(data, &[0xff; 2]);
        self.fix(data + 2, 2);
        if maskable {
            self.shadow(data + 4, &[0xff; 4]);
            self.fix(data + 8, 4);
        }
        self.watch(at + 2, length - 2, Register::Msi);
    }

    /// Takes what a guest cannot use out of the extended list, by leading the list around it.
    fn extended(&mut self, capabilities: &Capabilities, length: usize) {
        if length < SIZE {
            // A conventional device behind no extended space: all of it reads zero.
            self.clear(0x100, (SIZE - 0x100) as u16);
            return;
        }
        // What carries the list on: the last one shown, or the place of the first, which must stay, under an id that means nothing (0).
        let mut last = None;
        for capability in &capabilities.extended {
            let at = capability.offset;
            let hidden = HIDDEN.iter().find(|(id, _)| *id == capability.id);
            self.fix(at, 4);
            // The body: up to the next capability of any kind behind it, at least the header.
            let starts = capabilities.extended.iter().map(|other| other.offset);
            let end = starts.filter(|start| *start > at).min().unwrap_or(SIZE as u16);
            if let Some((_, name)) = hidden {
                self.hidden.push(name);
                self.clear(at, end - at);
            }
            // One without an id and a version would read as no header at all at the list's end.
            if hidden.is_some() || self.dword(at) & HEADER == 0 {
                last.get_or_insert(at);
                continue;
            }
            self.isolation(capability.id, at..end);
            if let Some(before) = last.replace(at) {
                self.link(before, at);
            }
        }
        match last {
            // Whatever the device's last pointer says: the guest's list ends.
            Some(last) => self.link(last, 0),
            // An empty list stays so, whatever a guest writes there.
            None => self.clear(0x100, 4),
        }
    }

    /// What stands between devices and between functions is the host's: a guest sees it and cannot change it.
    fn isolation(&mut self, id: u16, body: Range<u16>) {
        match id {
            EXT_ACS => self.fix(body.start, (body.end - body.start).min(ACS_LENGTH)),
            // Function numbers beyond 7 need a port that forwards them, which the guest's ports do not: the list of functions ends.
            EXT_ARI => {
                self.fix(body.start, (body.end - body.start).min(8));
                if body.end - body.start >= 8 {
                    self.value[usize::from(body.start) + 5] = 0;
                }
            }
            _ => {}
        }
    }

    /// Lets the extended header at `at` point to `next`.
    fn link(&mut self, at: u16, next: u16) {
        let header = self.dword(at) & HEADER | u32::from(next) << 20;
        self.preset(at, &header.to_le_bytes());
    }

    fn watch(&mut self, at: u16, length: u16, register: Register) {
        self.registers.push((at..at + length, register));
    }

    /// Bytes that stay as the device had them.
    fn fix(&mut self, at: u16, length: u16) {
        for place in usize::from(at)..(usize::from(at) + usize::from(length)).min(SIZE) {
            self.source[place] = Source::Constant;
        }
    }

    /// Bytes that read zero.
    fn clear(&mut self, at: u16, length: u16) {
        self.fix(at, length);
        for place in usize::from(at)..(usize::from(at) + usize::from(length)).min(SIZE) {
            self.value[place] = 0;
        }
    }

    /// Bytes kept here, of which the guest may write the bits of `mask`.
    fn shadow(&mut self, at: u16, mask: &[u8]) {
        for (index, mask) in mask.iter().enumerate() {
            if let Some(place) = self.mask.get_mut(usize::from(at) + index) {
                *place = *mask;
                self.source[usize::from(at) + index] = Source::Shadow;
            }
        }
    }
}

/// Where the standard capabilities end.
const STANDARD_END: u16 = 0x100;
/// Id and version in an extended header; the rest is where the next one is.
const HEADER: u32 = 0x000f_ffff;
/// The ACS capability with the longest egress control vector (PCI Express base 5.0, 7.7.8).
const ACS_LENGTH: u16 = 8 + 32;
