//! A function's error registers (PCI Express 6.0, 7.8.4): decoded, and taken, that is read and then cleared. What will not clear is remembered
//! and blamed on nobody again.

use std::collections::BTreeMap;

use super::Severity;
use super::vicinity::Found;
use crate::capabilities::{Capabilities, ID_EXPRESS, dword};
use crate::inventory::Counts;
use crate::transport::{RegionIndex, Transport};

/// Where a function's error registers are, and which of their bits are stuck.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    aer: u16,
    express: Option<u16>,
    /// Uncorrectable status that was set before, or did not clear when it was taken.
    stale: u32,
    /// The same of the correctable status.
    stale_corrected: u32,
}

/// What a function says of its uncorrectable errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing: it reads all ones, or cannot be read.
    Gone,
    /// No error since it was asked last, but for masked ones.
    Nothing,
    /// These, and the header of the packet that the first of them was about, if it is logged.
    Errors(Found, Option<[u32; 4]>),
}

impl Registers {
    /// Clears stale status, and lets the function report every kind of error. None if it has no such registers.
    pub(crate) fn begin(transport: &dyn Transport) -> Option<Registers> {
        let mut registers = Registers::find(transport)?;
        registers.take(transport);
        registers.take_corrected(transport);
        registers.enable(transport);
        Some(registers)
    }

    /// As they are, with what they say.
    pub(crate) fn find(transport: &dyn Transport) -> Option<Registers> {
        let size = transport.region(RegionIndex::Config)?.size;
        let mut space = vec![0; usize::try_from(size).ok()?.min(crate::config::SIZE)];
        for (index, word) in space.chunks_exact_mut(4).enumerate() {
            transport.read(RegionIndex::Config, index as u64 * 4, word).ok()?;
        }
        let aer = place(&space)?;
        Some(Registers {
            aer,
            express: Capabilities::walk(&space).find(ID_EXPRESS),
            stale: 0,
            stale_corrected: 0,
        })
    }

    /// Status bits are cleared by writing ones.
    pub(crate) fn clear(&self, transport: &dyn Transport) {
        for register in [UNCORRECTABLE, CORRECTABLE] {
            write(transport, self.aer + register, &u32::MAX.to_le_bytes());
        }
    }

    fn enable(&self, transport: &dyn Transport) {
        let Some(control) = self.express.map(|express| express + DEVICE_CONTROL) else {
            return;
        };
        let mut value = [0; 2];
        if transport
            .read(RegionIndex::Config, u64::from(control), &mut value)
            .is_ok()
        {
            let wanted = u16::from_le_bytes(value) | REPORT_ALL;
            write(transport, control, &wanted.to_le_bytes());
        }
    }

    /// The uncorrectable errors since the last time.
    pub(crate) fn take(&mut self, transport: &dyn Transport) -> Taken {
        let words = (self.aer..).step_by(4).take(BLOCK / 4);
        let words = words.map(|place| read(transport, place).map(u32::to_le_bytes));
        let Some(block) = words.collect::<Option<Vec<_>>>().map(|words| words.concat()) else {
            return Taken::Gone;
        };
        let taken = Taken::of(&block, self.stale);
        if let Some(status) = uncorrectable(&block) {
            self.stale = self.settle(UNCORRECTABLE, status, transport);
        }
        taken
    }

    /// The corrected errors since the last time, but for masked ones: one of each kind, however many there were. None if the function does not
    /// answer.
    pub(crate) fn take_corrected(&mut self, transport: &dyn Transport) -> Option<Counts> {
        let status = read(transport, self.aer + CORRECTABLE).filter(|status| *status != u32::MAX)?;
        let mask = read(transport, self.aer + CORRECTABLE_MASK)?;
        let new = status & !mask & !self.stale_corrected;
        self.stale_corrected = self.settle(CORRECTABLE, status, transport);
        Some(Counts {
            total: u64::from(new.count_ones()),
            kinds: named(new, &CORRECTED),
        })
    }

    /// Clears the bits of `status`, and says which of them stay.
    fn settle(&self, register: u16, status: u32, transport: &dyn Transport) -> u32 {
        if status == 0 {
            return 0;
        }
        write(transport, self.aer + register, &status.to_le_bytes());
        let left = read(transport, self.aer + register).unwrap_or(0) & status;
        if left != 0 {
            tracing::debug!(register, left, "error status does not clear");
        }
        left
    }
}

impl Taken {
    /// From registers as they lie in configuration space, but for the `stale` ones.
    pub(crate) fn of(block: &[u8], stale: u32) -> Taken {
        let Some(status) = uncorrectable(block) else {
            return Taken::Gone;
        };
        let register = |at| dword(block, at).unwrap_or(0);
        let new = status & !register(UNCORRECTABLE_MASK) & !stale;
        let (severity, bits) = match new & register(UNCORRECTABLE_SEVERITY) {
            0 if new == 0 => return Taken::Nothing,
            0 => (Severity::NonFatal, new),
            fatal => (Severity::Fatal, fatal),
        };
        let kinds = named(bits, &UNCORRECTED);
        // The log is of the first error, which may be an old one.
        let is_new = new >> (register(CONTROL) & FIRST_ERROR) & 1 != 0;
        let header = [0, 4, 8, 12].map(|word| register(HEADER_LOG + word));
        let header = Some(header).filter(|header| is_new && *header != [0; 4]);
        Taken::Errors(Found { severity, kinds }, header)
    }
}

/// Who has reported last to a root port, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported {
    /// A report came that the kernel has not fetched yet.
    pub(crate) pending: bool,
    /// Bus, device and function of its sender.
    pub(crate) source: u16,
}

impl Reported {
    /// From a root port's error registers; None if nobody has reported an uncorrectable error.
    pub(crate) fn of(block: &[u8]) -> Option<Reported> {
        let status = dword(block, ROOT_STATUS)?;
        let source = (dword(block, SOURCE)? >> 16) as u16;
        (status != u32::MAX && source != 0).then_some(Reported {
            pending: status & UNCORRECTABLE_RECEIVED != 0,
            source,
        })
    }
}

/// The error registers in a configuration space, as many as there are; empty if there are none.
pub(crate) fn block_of(space: &[u8]) -> Vec<u8> {
    place(space).map_or_else(Vec::new, |aer| space[usize::from(aer)..].to_vec())
}

/// The uncorrectable status of error registers; None if there are none or nobody answers.
pub(crate) fn uncorrectable(block: &[u8]) -> Option<u32> {
    dword(block, UNCORRECTABLE).filter(|status| *status != u32::MAX)
}

/// Where they begin. Registers that end past the space are nowhere.
fn place(space: &[u8]) -> Option<u16> {
    let extended = Capabilities::walk(space).extended;
    let aer = extended.iter().find(|capability| capability.id == AER)?.offset;
    (usize::from(aer) + BLOCK <= space.len()).then_some(aer)
}

fn named(bits: u32, names: &[(u32, &str)]) -> BTreeMap<String, u64> {
    let name = |bit: u32| {
        let known = names.iter().find(|(known, _)| *known == bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    let set = (0..u32::BITS).filter(|bit| bits >> bit & 1 != 0);
    set.map(|bit| (name(bit), 1)).collect()
}

fn read(transport: &dyn Transport, offset: u16) -> Option<u32> {
    let mut data = [0; 4];
    let read = transport.read(RegionIndex::Config, u64::from(offset), &mut data);
    read.ok().map(|()| u32::from_le_bytes(data))
}

fn write(transport: &dyn Transport, offset: u16, data: &[u8]) {
    if let Err(error) = transport.write(RegionIndex::Config, u64::from(offset), data) {
        tracing::debug!(offset, %error, "an error register was not written");
    }
}

/// The extended capability and its registers (7.8.4), up to where those of root ports begin.
const AER: u16 = 0x01;
const UNCORRECTABLE: u16 = 0x04;
const UNCORRECTABLE_MASK: u16 = 0x08;
const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
const CORRECTABLE: u16 = 0x10;
const CORRECTABLE_MASK: u16 = 0x14;
const CONTROL: u16 = 0x18;
const FIRST_ERROR: u32 = 0x1f;
const HEADER_LOG: u16 = 0x1c;
const BLOCK: usize = 0x2c;
/// Those of root ports (7.8.4.10, 7.8.4.11).
const ROOT_STATUS: u16 = 0x30;
const UNCORRECTABLE_RECEIVED: u32 = 1 << 2;
const SOURCE: u16 = 0x34;
/// Device Control in the PCI Express capability (7.5.3.4), and its bits to report correctable, non-fatal, fatal errors and
/// unsupported requests.
const DEVICE_CONTROL: u16 = 0x08;
const REPORT_ALL: u16 = 0xf;
/// Errors by their bits, as the kernel names them (drivers/pci/pcie/aer.c).
const CORRECTED: [(u32, &str); 8] = [
    (0, "RxErr"),
    (6, "BadTLP"),
    (7, "BadDLLP"),
    (8, "Rollover"),
    (12, "Timeout"),
    (13, "NonFatalErr"),
    (14, "CorrIntErr"),
    (15, "HeaderOF"),
];
const UNCORRECTED: [(u32, &str); 18] = [
    (4, "DLP"),
    (5, "SDES"),
    (12, "TLP"),
    (13, "FCP"),
    (14, "CmpltTO"),
    (15, "CmpltAbrt"),
    (16, "UnxCmplt"),
    (17, "RxOF"),
    (18, "MalfTLP"),
    (19, "ECRC"),
    (20, "UnsupReq"),
    (21, "ACSViol"),
    (22, "UncorrIntErr"),
    (23, "BlockedTLP"),
    (24, "AtomicOpBlocked"),
    (25, "TLPBlockedErr"),
    (26, "PoisonTLPBlocked"),
    (27, "DMWrReqBlocked"),
];
