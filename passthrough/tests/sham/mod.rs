//! A device made of what a test says of it, and a guest to wire it to: every part can be made to lie.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a sham that cannot be made ends its test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_partition::{
    GuestMemory, Interrupts, Layout, Mapping, MmioBus, MmioHandler, PageSize, PioBus, Vm,
};
use pellucid_passthrough::{
    AssignError, BarShape, Endpoint, Guest, IrqInfo, IrqKind, PlacementWindows, RegionIndex, RegionInfo,
    Transport, View,
};

/// The device: bytes, regions and counts as told, and a memory of what is connected.
pub(crate) struct Sham {
    pub(crate) space: Mutex<Vec<u8>>,
    regions: BTreeMap<RegionIndex, RegionInfo>,
    memory: BTreeMap<RegionIndex, File>,
    pub(crate) irqs: BTreeMap<IrqKind, IrqInfo>,
    /// Accesses of its configuration space fail.
    pub(crate) deaf: AtomicBool,
    /// How often the host was asked to connect interrupts.
    pub(crate) wirings: AtomicUsize,
    /// How many vectors its host has to give.
    pub(crate) vectors: AtomicUsize,
    /// Message vectors that fired while enabled and not connected: hardware keeps them in its pending bits.
    pended: Mutex<BTreeSet<usize>>,
    wired: Mutex<BTreeMap<IrqKind, Vec<Option<File>>>>,
}

impl Sham {
    /// A function with power management at 0x40, MSI at 0x50, MSI-X at 0x70 (16 vectors, table and pending bits in BAR 0) and
    /// PCI Express at 0x80. No BARs yet.
    pub(crate) fn new() -> Sham {
        let mut space = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x36, 0x1b, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00]);
        put(0x34, &[0x40]);
        put(0x3d, &[0x01]);
        put(0x40, &[0x01, 0x50, 0x03, 0x00]);
        // MSI with up to 8 vectors, 64-bit, maskable.
        put(0x50, &[0x05, 0x70, 0x86, 0x01]);
        put(
            0x70,
            &[0x11, 0x80, 0x0f, 0x00, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0],
        );
        put(0x80, &[0x10, 0x00, 0x02, 0x00]);
        let count = |count| IrqInfo { count, fixed: true };
        Sham {
            space: Mutex::new(space),
            regions: BTreeMap::new(),
            memory: BTreeMap::new(),
            irqs: BTreeMap::from([
                (IrqKind::Intx, count(1)),
                (IrqKind::Msi, count(8)),
                (IrqKind::Msix, count(16)),
            ]),
            deaf: AtomicBool::new(false),
            wirings: AtomicUsize::new(0),
            vectors: AtomicUsize::new(usize::MAX),
            pended: Mutex::default(),
            wired: Mutex::default(),
        }
        .region(RegionIndex::Config, 4096, false)
    }

    /// With a region of this size.
    pub(crate) fn region(mut self, index: RegionIndex, size: u64, mappable: bool) -> Sham {
        let whole = mappable.then_some(0..size);
        let info = RegionInfo {
            size,
            mappable: whole.into_iter().collect(),
            msix_mappable: true,
        };
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(size).unwrap();
        self.regions.insert(index, info);
        self.memory.insert(index, memory);
        self
    }

    /// With these bytes in configuration space.
    pub(crate) fn bytes(self, at: usize, bytes: &[u8]) -> Sham {
        self.space.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With so many interrupts of a kind.
    pub(crate) fn interrupts(mut self, kind: IrqKind, count: u32) -> Sham {
        self.irqs.insert(kind, IrqInfo { count, fixed: true });
        self
    }

    /// With a host that adds vectors to those in use.
    pub(crate) fn growing(mut self) -> Sham {
        self.irqs.values_mut().for_each(|info| info.fixed = false);
        self
    }

    /// Signals an interrupt; whether it is connected. A message of an enabled kind that is not stays pending.
    pub(crate) fn signal(&self, kind: IrqKind, vector: usize) -> bool {
        let wired = self.wired.lock().unwrap();
        let Some(of_kind) = wired.get(&kind) else {
            return false;
        };
        match of_kind.get(vector).and_then(Option::as_ref) {
            Some(event) => fire(event),
            None => {
                self.pended.lock().unwrap().insert(vector);
                false
            }
        }
    }

    /// The interrupts of a kind that are connected, if the kind is enabled.
    pub(crate) fn connected(&self, kind: IrqKind) -> Option<Vec<usize>> {
        let wired = self.wired.lock().unwrap();
        let of_kind = wired.get(&kind)?.iter().enumerate();
        Some(
            of_kind
                .filter(|(_, event)| event.is_some())
                .map(|(vector, _)| vector)
                .collect(),
        )
    }

    fn file(&self, region: RegionIndex, offset: u64, length: usize) -> io::Result<&File> {
        let size = self.regions.get(&region).map_or(0, |info| info.size);
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= size);
        let file = self.memory.get(&region).filter(|_| inside);
        file.ok_or_else(|| io::Error::from_raw_os_error(libc::ERANGE))
    }
}

impl Transport for Sham {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        self.regions.get(&index).cloned()
    }

    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if region != RegionIndex::Config {
            return self.file(region, offset, data.len())?.read_exact_at(data, offset);
        }
        if self.deaf.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let space = self.space.lock().unwrap();
        let there = space.get(offset as usize..offset as usize + data.len());
        data.copy_from_slice(there.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        if region != RegionIndex::Config {
            return self.file(region, offset, data.len())?.write_all_at(data, offset);
        }
        if self.deaf.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let at = offset as usize;
        self.space.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn map(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping> {
        Mapping::shared(self.file(region, offset, size)?.as_fd(), offset, size)
    }

    fn resettable(&self) -> bool {
        true
    }

    fn reset(&self) -> io::Result<()> {
        Ok(())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        self.irqs.get(&kind).copied().unwrap_or_default()
    }

    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        self.wirings.fetch_add(1, Ordering::Relaxed);
        let refused = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let messages = [IrqKind::Intx, IrqKind::Msi, IrqKind::Msix];
        let mut all = self.wired.lock().unwrap();
        let end = start as usize + eventfds.len();
        // As VFIO: one of line, MSI and MSI-X at a time, in the number that there are, which cannot grow while it is on.
        let other = messages.contains(&kind)
            && messages
                .iter()
                .any(|other| *other != kind && all.contains_key(other));
        if other || end > self.irq(kind).count as usize {
            return refused();
        }
        if end > self.vectors.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let wired = all.entry(kind).or_default();
        if !wired.is_empty() && end > wired.len() && self.irq(kind).fixed {
            return refused();
        }
        let longer = wired.len().max(end);
        wired.resize_with(longer, || None);
        for (index, fd) in eventfds.iter().enumerate() {
            let event = fd.map(|fd| File::from(fd.try_clone_to_owned().unwrap()));
            let vector = start as usize + index;
            if let Some(event) = event
                .as_ref()
                .filter(|_| self.pended.lock().unwrap().remove(&vector))
            {
                fire(event);
            }
            wired[vector] = event;
        }
        Ok(())
    }

    fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        self.wired.lock().unwrap().remove(&kind);
        self.pended.lock().unwrap().clear();
        Ok(())
    }
}

fn fire(mut event: &File) -> bool {
    event.write_all(&1_u64.to_ne_bytes()).is_ok()
}

/// A guest without CPUs, with 16 MiB.
pub(crate) fn guest() -> (Guest, PlacementWindows) {
    let layout = Layout::new(16 << 20, 39).unwrap();
    let vm = Arc::new(Vm::create().unwrap());
    let guest = Guest {
        memory: GuestMemory::map("sham", &layout, PageSize::Size4K).unwrap(),
        mmio: Arc::new(MmioBus::new()),
        pio: Arc::new(PioBus::new()),
        interrupts: Arc::new(Interrupts::new(Arc::clone(&vm))),
        peers: None,
        vm,
    };
    (guest, PlacementWindows::of(&layout))
}

/// A view with these BARs and no line.
pub(crate) fn view(windows: &PlacementWindows, bars: &[BarShape]) -> View {
    View {
        bars: bars.to_vec(),
        windows: windows.clone(),
        line: None,
        line_register: 0,
        events: Arc::new(|_| {}),
    }
}

/// Wires `sham` as function 01:00.0, with these BARs.
pub(crate) fn wire(sham: &Arc<Sham>, bars: &[BarShape]) -> Result<(Endpoint, Guest), AssignError> {
    let (guest, windows) = guest();
    let transport = Arc::clone(sham) as Arc<dyn Transport>;
    let view = view(&windows, bars);
    let endpoint = Endpoint::wire("0000:01:00.0".parse().unwrap(), &transport, &guest, view)?;
    Ok((endpoint, guest))
}

pub(crate) fn open_ranges(bus: &pellucid_partition::Bus<dyn MmioHandler>) -> Vec<(u64, u64)> {
    bus.counts()
        .iter()
        .map(|range| (range.base, range.size))
        .collect()
}
