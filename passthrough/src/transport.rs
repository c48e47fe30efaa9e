//! What a device is to this crate: regions to read and write, ranges to map, interrupts to wire, a reset.
//! VFIO hardware is one; a scripted device in a test is another. Results are never dropped.

use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

use pellucid_partition::{Bdf, Mapping};

/// A PCI function behind some means of reaching it.
///
/// What holds for every one of them: an access is whole or an error; no call waits without a bound; regions and interrupts are the same for as
/// long as it lives; after [`Transport::loss`] has hung up every access fails. A range that is called mappable may still refuse to be mapped.
pub trait Transport: Send + Sync {
    /// What a region is like; None: the device does not have it.
    fn region(&self, index: RegionIndex) -> Option<RegionInfo>;
    /// Reads `data.len()` bytes at `offset` of a region, in one access if that is 1, 2 or 4 bytes.
    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `offset` of a region, in one access if that is 1, 2 or 4 bytes.
    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Maps a page-aligned part of a region that [`RegionInfo::mappable`] contains.
    fn map(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping>;
    /// Whether the function can be reset.
    fn resettable(&self) -> bool;
    /// Resets the function.
    fn reset(&self) -> io::Result<()>;
    /// All functions that a reset of everything behind this one's bridge would reset, itself among them.
    fn reset_scope(&self) -> io::Result<Vec<Bdf>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Resets all of them. Whoever asks for it holds each of them, at rest.
    fn hot_reset(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// How many interrupts of a kind there are.
    fn irq(&self, kind: IrqKind) -> IrqInfo;
    /// Has the interrupts `start..` signal these eventfds (None: none), enabling the kind if it is not yet.
    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()>;
    /// Has a level-triggered interrupt unmasked whenever `eventfd` is signalled.
    fn unmask_by(&self, kind: IrqKind, eventfd: BorrowedFd<'_>) -> io::Result<()>;
    /// Disables all interrupts of a kind.
    fn unwire(&self, kind: IrqKind) -> io::Result<()>;
    /// A descriptor that hangs up when the device is lost for good. `None`: the loss of such a device shows in no descriptor.
    fn loss(&self) -> Option<io::Result<OwnedFd>> {
        None
    }
}

/// One of the regions of a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegionIndex {
    /// Base address register 0 to 5.
    Bar(u8),
    /// The expansion ROM.
    Rom,
    /// Configuration space.
    Config,
}

impl RegionIndex {
    /// The number that `linux/vfio.h` gives it.
    #[must_use]
    pub fn number(self) -> usize {
        match self {
            RegionIndex::Bar(index) => usize::from(index.min(5)),
            RegionIndex::Rom => 6,
            RegionIndex::Config => 7,
        }
    }
}

/// A region's size and what of it may be mapped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegionInfo {
    /// Bytes.
    pub size: u64,
    /// Parts that can be mapped into this process, and so into a guest.
    pub mappable: Vec<Range<u64>>,
    /// Whether mapping the MSI-X table's page is allowed too.
    pub msix_mappable: bool,
}

/// The kinds of interrupt of a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IrqKind {
    /// The level-triggered line.
    Intx,
    /// Message-signalled, up to 32.
    Msi,
    /// Message-signalled by table, up to 2048.
    Msix,
    /// The device reported an error that its host could not recover from.
    Error,
    /// The host asks for the device back.
    Request,
}

impl IrqKind {
    /// The number that `linux/vfio.h` gives it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            IrqKind::Intx => 0,
            IrqKind::Msi => 1,
            IrqKind::Msix => 2,
            IrqKind::Error => 3,
            IrqKind::Request => 4,
        }
    }
}

/// How many interrupts of a kind a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqInfo {
    /// How many; 0: the device has none of the kind.
    pub count: u32,
    /// Once enabled, their number cannot grow without disabling them first.
    pub fixed: bool,
}
