//! What becomes of each type of structure in a guest. What is not listed here is left out.

use serde::{Deserialize, Serialize};

/// Whether free text of the host's maker or owner (OEM strings, configuration options) goes to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FreeText {
    /// It stays with the host: keys and passwords have been seen in it.
    #[default]
    LeftOut,
    /// It goes along.
    Kept,
}

/// A structure of the host that the guest does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its type.
    pub kind: u8,
    /// Its handle.
    pub handle: u16,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why a structure was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WhyLeftOut {
    /// It is of a device that the server is not lent.
    NotLent,
    /// It is of CPUs or memory of the whole host; others speak of the server's share.
    WholeHost,
    /// It is of a part that a logical server does not have.
    NotThere,
    /// It is free text of the host's maker or owner.
    FreeText,
    /// It leads to the management of the host: its controller, its logs, its sensors.
    Management,
    /// Only its maker knows what it says.
    Vendor,
}

/// What is done with the structures of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It goes along as it is.
    Keep,
    /// It goes along; the handles in it are the guest's.
    Baseboard,
    /// It goes along if the processor refers to it.
    Cache,
    Processor,
    MemoryArray,
    MemoryDevice,
    MappedRange,
    /// It goes along if what is in the slot is lent.
    Slot,
    /// It goes along if the device is lent.
    Onboard,
    LeaveOut(WhyLeftOut),
}

/// The rule for a type (DSP0134 section 7).
pub(crate) fn rule(kind: u8, free_text: FreeText) -> Rule {
    use WhyLeftOut::{Management, NotThere, Vendor, WholeHost};
    match kind {
        // Firmware, system, chassis, firmware language, boot status.
        0 | 1 | 3 | 13 | 32 => Rule::Keep,
        2 => Rule::Baseboard,
        4 => Rule::Processor,
        7 => Rule::Cache,
        9 => Rule::Slot,
        11 | 12 if free_text == FreeText::Kept => Rule::Keep,
        11 | 12 => Rule::LeaveOut(WhyLeftOut::FreeText),
        16 => Rule::MemoryArray,
        17 => Rule::MemoryDevice,
        19 => Rule::MappedRange,
        41 => Rule::Onboard,
        // Memory controllers, modules, errors, mapped devices and channels; further words on processors.
        5 | 6 | 18 | 20 | 33 | 37 | 44 => Rule::LeaveOut(WholeHost),
        // Event log, hardware security, probes, coolers, remote access, controllers, power supplies, firmware inventory.
        15 | 24 | 26..=30 | 34..=36 | 38 | 39 | 42 | 45 => Rule::LeaveOut(Management),
        // Connectors, unaddressed devices, groups, pointing device, battery, reset, power controls, TPM, additions, inactive ones.
        8 | 10 | 14 | 21..=23 | 25 | 31 | 40 | 43 | 46 | 126 => Rule::LeaveOut(NotThere),
        _ => Rule::LeaveOut(Vendor),
    }
}
