//! Base address registers, as the kernel's resources tell them.

use serde::{Deserialize, Serialize};

/// A base address register in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5; a 64-bit register also takes the next number.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Where the host has it.
    pub address: u64,
    /// Bytes, a power of two.
    pub size: u64,
}

/// What a base address register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory, with a 32-bit address.
    Memory32 {
        /// Reads have no side effect.
        prefetchable: bool,
    },
    /// Memory, with a 64-bit address.
    Memory64 {
        /// Reads have no side effect.
        prefetchable: bool,
    },
}

impl BarKind {
    /// Whether reads have no side effect.
    #[must_use]
    pub fn prefetchable(self) -> bool {
        matches!(
            self,
            BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true }
        )
    }
}

/// The lines of `resource`: start, end and flags of BAR 0 to 5, then of the ROM and more.
pub(super) fn bars(resource: &str) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (index, line) in resource.lines().take(6).enumerate() {
        let mut fields = line
            .split_whitespace()
            .map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let size = end.wrapping_sub(start).wrapping_add(1);
        let prefetchable = flags & IORESOURCE_PREFETCH != 0;
        let kind = match flags {
            flags if flags & IORESOURCE_IO != 0 => BarKind::Io,
            flags if flags & IORESOURCE_MEM == 0 => continue,
            flags if flags & IORESOURCE_MEM_64 != 0 => BarKind::Memory64 { prefetchable },
            _ => BarKind::Memory32 { prefetchable },
        };
        if end > start && size.is_power_of_two() {
            bars.push(Bar {
                index: index as u8,
                kind,
                address: start,
                size,
            });
        }
    }
    bars
}

// include/linux/ioport.h
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_MEM: u64 = 0x200;
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;
