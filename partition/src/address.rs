//! The three address spaces that must never be mixed: guest-physical, DMA (IOVA) and host-virtual.
//!
//! `GuestAddress` is vm-memory's, so that every rust-vmm crate takes it as it is.

use std::fmt;

pub use vm_memory::GuestAddress;

/// An address that a device puts on the bus, before the IOMMU translates it (IOVA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoAddress(pub u64);

/// An address in this process, as KVM and VFIO want it in their structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(pub u64);

impl fmt::Display for IoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iova {:#x}", self.0)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {:#x}", self.0)
    }
}
