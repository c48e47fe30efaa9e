//! Guest memory: memfd-backed, shared, with subscribers who are told of every region.
//!
//! KVM slots and IOMMU mappings are subscribers: attaching replays all live regions, detaching undoes them, so nobody can forget one.
//! Guest memory is read and written by volatile copies; no reference into it exists.

use std::error::Error;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::MemfdFlags;
use vm_memory::{Address, Bytes, FileOffset, GuestAddress, GuestRegionCollection};

use crate::address::HostAddress;
use crate::error::MemoryError;
use crate::layout::Layout;
use crate::plan::PageSize;
use crate::sys::ram::{RamMapping, RamRegion};

/// All RAM of a guest, as vm-memory and the crates on top of it take it.
pub type VmMemory = GuestRegionCollection<RamRegion>;

/// One contiguous piece of guest RAM.
#[derive(Debug, Clone)]
pub struct Region {
    /// Where the guest sees it.
    pub guest: GuestAddress,
    /// Bytes.
    pub size: u64,
    /// Where it is mapped in this process; valid while the region is attached.
    pub host: HostAddress,
    pub(crate) mapping: Arc<RamMapping>,
}

/// Somebody who must know where RAM is: KVM, an IOMMU, a device in another process.
pub trait MemorySubscriber: Send + Sync {
    /// Its name in errors and logs.
    fn name(&self) -> &str;
    /// Takes a region into use. If this fails, the region is not in use and [`MemorySubscriber::detach`] is not called for it.
    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>>;
    /// Lets go of a region attached before; cannot refuse.
    fn detach(&self, region: &Region);
}

/// The RAM of one guest; clones are the same memory.
#[derive(Clone)]
pub struct GuestMemory {
    inner: Arc<Inner>,
}

/// A subscriber being served; dropping it detaches every region, last attached first.
#[must_use = "dropping the subscription detaches the memory"]
pub struct Subscription {
    memory: Arc<Inner>,
    subscriber: Arc<dyn MemorySubscriber>,
    attached: Vec<Region>,
}

struct Inner {
    mmap: VmMemory,
    regions: Vec<Region>,
    /// Who is attached, by name; for diagnosis.
    subscribers: Mutex<Vec<String>>,
}

impl GuestMemory {
    /// Maps RAM as `layout` says, in pages of the given size, named `name` in `/proc/PID/maps`. Nothing is populated yet.
    pub fn map(name: &str, layout: &Layout, pages: PageSize) -> Result<Self, MemoryError> {
        let file = Arc::new(memfd(name, layout.memory(), pages)?);
        let (mut parts, mut regions, mut offset) = (Vec::new(), Vec::new(), 0);
        for range in layout.ram() {
            let size = range.end - range.start;
            let map_error = |source: Box<dyn Error + Send + Sync>| MemoryError::Map { size, source };
            let part_of_file = FileOffset::from_arc(Arc::clone(&file), offset);
            let mapping =
                RamMapping::of(&part_of_file, size as usize, pages).map_err(|e| map_error(e.into()))?;
            let (mapping, guest) = (Arc::new(mapping), GuestAddress(range.start));
            parts.push(RamRegion::new(guest, part_of_file, Arc::clone(&mapping)));
            let host = HostAddress(mapping.as_ptr() as u64);
            regions.push(Region {
                guest,
                size,
                host,
                mapping,
            });
            offset += size;
        }
        let mmap = VmMemory::from_regions(parts).map_err(|e| MemoryError::Map {
            size: layout.memory(),
            source: e.into(),
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                mmap,
                regions,
                subscribers: Mutex::new(Vec::new()),
            }),
        })
    }

    /// Every region, ascending.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.inner.regions.clone()
    }

    /// The same memory as other rust-vmm crates take it.
    #[must_use]
    pub fn as_vm_memory(&self) -> &VmMemory {
        &self.inner.mmap
    }

    /// Copies from the guest; refuses a range that is not all RAM.
    pub fn read(&self, address: GuestAddress, data: &mut [u8]) -> Result<(), MemoryError> {
        self.check(address, data.len())?;
        let copied = self.inner.mmap.read_slice(data, address);
        copied.map_err(|_| outside(address, data.len()))
    }

    /// Copies to the guest; refuses a range that is not all RAM, and then has written nothing.
    pub fn write(&self, address: GuestAddress, data: &[u8]) -> Result<(), MemoryError> {
        self.check(address, data.len())?;
        let copied = self.inner.mmap.write_slice(data, address);
        copied.map_err(|_| outside(address, data.len()))
    }

    fn check(&self, address: GuestAddress, size: usize) -> Result<(), MemoryError> {
        match self.contains(address, size as u64) {
            true => Ok(()),
            false => Err(outside(address, size)),
        }
    }

    /// Whether the bytes from `address` on are all RAM.
    #[must_use]
    pub fn contains(&self, address: GuestAddress, size: u64) -> bool {
        let end = address.checked_add(size);
        end.is_some_and(|end| {
            self.inner
                .regions
                .iter()
                .any(|r| r.guest <= address && end.0 <= r.guest.0 + r.size)
        })
    }

    /// Attaches every region to `subscriber`; when one fails, those before it are detached again.
    pub fn subscribe(&self, subscriber: Arc<dyn MemorySubscriber>) -> Result<Subscription, MemoryError> {
        self.inner.names().push(subscriber.name().to_owned());
        let mut subscription = Subscription {
            memory: Arc::clone(&self.inner),
            subscriber,
            attached: Vec::new(),
        };
        for region in &self.inner.regions {
            let attached = subscription.subscriber.attach(region);
            attached.map_err(|source| MemoryError::Subscriber {
                subscriber: subscription.subscriber.name().to_owned(),
                guest: region.guest.0,
                size: region.size,
                source,
            })?;
            subscription.attached.push(region.clone());
        }
        Ok(subscription)
    }

    /// The names of those attached now.
    #[must_use]
    pub fn subscribers(&self) -> Vec<String> {
        self.inner.names().clone()
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Vec<String>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.inner.regions.iter().map(|r| (r.guest, r.size)))
            .finish()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for region in self.attached.drain(..).rev() {
            self.subscriber.detach(&region);
        }
        let mut names = self.memory.names();
        if let Some(index) = names.iter().position(|name| name == self.subscriber.name()) {
            names.remove(index);
        }
    }
}

fn memfd(name: &str, size: u64, pages: PageSize) -> Result<File, MemoryError> {
    let flags = match pages {
        PageSize::Size4K => MemfdFlags::CLOEXEC,
        PageSize::Size2M => MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        PageSize::Size1G => MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let failed = |source: std::io::Error| MemoryError::Memfd { size, pages, source };
    let file = File::from(rustix::fs::memfd_create(name, flags).map_err(|e| failed(e.into()))?);
    file.set_len(size).map_err(failed)?;
    Ok(file)
}

fn outside(address: GuestAddress, size: usize) -> MemoryError {
    MemoryError::Outside {
        address: address.0,
        size,
    }
}
