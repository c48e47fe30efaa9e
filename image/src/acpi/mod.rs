//! ACPI tables for a logical server, from a plain description of its board.
//!
//! Interrupts go through local and I/O APICs only; power button, power management block and timer are fixed hardware.

mod board;
mod bytes;
mod dsdt;
mod fixed;
mod madt;
mod nodes;
mod pci;
mod roots;
mod tables;

pub use board::{AcpiBoard, RootPort, intx_gsi};
pub use dsdt::SOFT_OFF_TYPE;
pub use nodes::AcpiNodes;
pub use roots::{RootBridge, RootBus};
pub use tables::{AcpiTables, LoaderFiles};
