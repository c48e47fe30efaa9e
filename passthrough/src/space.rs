//! The I/O address space of a partition: one VFIO container that all its devices share, with guest memory mapped once.

use std::error::Error;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, KVM_DEV_VFIO_GROUP_DEL, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::DeviceFd;
use pellucid_partition::{Bdf, GuestMemory, MemorySubscriber, Region, Subscription};

use crate::error::{AssignError, BindError};
use crate::guest::Guest;
use crate::sys::{Container, Group, VfioDevice};

/// An I/O address space. Empty of memory until a device is assigned.
#[derive(Debug)]
pub struct IoSpace {
    container: Arc<Container>,
    mapped: Mutex<Weak<MappedMemory>>,
    kvm: Mutex<Option<DeviceFd>>,
}

/// Guest memory that the devices of a space can reach; unmapped when the last of them lets go.
pub(crate) struct MappedMemory {
    _subscription: Subscription,
}

impl IoSpace {
    /// Opens `/dev/vfio/vfio`.
    pub fn open() -> Result<Arc<IoSpace>, BindError> {
        IoSpace::open_at(Path::new("/dev/vfio/vfio"))
    }

    /// Opens another container node.
    pub fn open_at(node: &Path) -> Result<Arc<IoSpace>, BindError> {
        let container = Container::open(node).map_err(|source| BindError::Container {
            path: node.to_owned(),
            source,
        })?;
        Ok(Arc::new(IoSpace {
            container: Arc::new(container),
            mapped: Mutex::default(),
            kvm: Mutex::default(),
        }))
    }

    /// The I/O address ranges that the IOMMU behind it accepts; known once a device is bound. Empty: the kernel does not say.
    pub fn iova_ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
        Ok(self.container.limits()?.ranges)
    }

    /// Takes a group in and opens `device` of it.
    pub(crate) fn admit(
        &self,
        device: Bdf,
        group: u32,
        node: &Path,
    ) -> Result<(Group, VfioDevice), BindError> {
        let failed = |source| BindError::Group {
            device,
            node: PathBuf::from(node),
            source,
        };
        let opened = Group::open(node, &self.container).map_err(failed)?;
        let opened = opened.ok_or(BindError::NotViable { device, group })?;
        match self.container.choose_iommu() {
            // The second group of a container finds the choice made.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.container.limits().is_ok() => {}
            other => other.map_err(|source| BindError::Iommu { device, source })?,
        }
        let vfio = opened
            .device(&device.to_string())
            .map_err(|source| BindError::Open { device, source })?;
        Ok((opened, vfio))
    }

    /// Tells KVM of a group, so that it knows of DMA that is not cache coherent (Documentation/virt/kvm/devices/vfio.rst).
    pub(crate) fn tell_kvm(&self, guest: &Guest, group: i32) -> io::Result<()> {
        let mut kvm = self.kvm.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |error: kvm_ioctls::Error| io::Error::from_raw_os_error(error.errno());
        if kvm.is_none() {
            let mut device = kvm_create_device {
                type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
                ..Default::default()
            };
            *kvm = Some(guest.vm.fd().create_device(&mut device).map_err(refused)?);
        }
        match kvm
            .as_ref()
            .map(|kvm| group_attribute(kvm, KVM_DEV_VFIO_GROUP_ADD, group))
        {
            // A group that KVM knows already.
            Some(Err(error)) if error.errno() == libc::EEXIST => Ok(()),
            Some(other) => other.map_err(refused),
            None => Ok(()),
        }
    }

    /// Lets KVM forget a group; while it knows it, the group stays open.
    pub(crate) fn untell_kvm(&self, group: i32) {
        let kvm = self.kvm.lock().unwrap_or_else(PoisonError::into_inner);
        match kvm
            .as_ref()
            .map(|kvm| group_attribute(kvm, KVM_DEV_VFIO_GROUP_DEL, group))
        {
            // Never told of this one.
            Some(Err(error)) if error.errno() == libc::ENOENT => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "KVM does not forget a VFIO group; it stays open until the VM ends")
            }
            Some(Ok(())) | None => {}
        }
    }

    /// Maps the guest's memory for DMA, if that is not done yet. Checked as a whole before the first byte is mapped.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<Arc<MappedMemory>, AssignError> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = mapped.upgrade() {
            return Ok(mapped);
        }
        if let Ok(limits) = self.container.limits() {
            let regions: Vec<(u64, u64)> = memory
                .regions()
                .iter()
                .map(|region| (region.guest.0, region.guest.0 + region.size))
                .collect();
            fits(&regions, &limits.ranges, limits.dma_avail)?;
        }
        let mapper = Mapper {
            container: Arc::clone(&self.container),
        };
        let subscription = memory.subscribe(Arc::new(mapper))?;
        let fresh = Arc::new(MappedMemory {
            _subscription: subscription,
        });
        *mapped = Arc::downgrade(&fresh);
        Ok(fresh)
    }
}

fn group_attribute(kvm: &DeviceFd, attribute: u32, group: i32) -> Result<(), kvm_ioctls::Error> {
    let addr = &raw const group as u64;
    let attr = u64::from(attribute);
    kvm.set_device_attr(&kvm_device_attr {
        group: KVM_DEV_VFIO_GROUP,
        attr,
        addr,
        flags: 0,
    })
}

/// Whether all of `regions` (start, end) lie in `ranges`, and there are mappings enough. Pure.
fn fits(
    regions: &[(u64, u64)],
    ranges: &[RangeInclusive<u64>],
    available: Option<u32>,
) -> Result<(), AssignError> {
    if let Some(available) = available
        && (available as usize) < regions.len()
    {
        return Err(AssignError::TooManyMappings {
            available,
            wanted: regions.len(),
        });
    }
    for (start, end) in regions {
        let inside = ranges
            .iter()
            .any(|range| range.start() <= start && end - 1 <= *range.end());
        if !ranges.is_empty() && !inside {
            let accepted: Vec<String> = ranges
                .iter()
                .map(|range| format!("{:#x}..{:#x}", range.start(), range.end()))
                .collect();
            return Err(AssignError::OutsideIommu {
                start: *start,
                end: *end,
                accepted: accepted.join(", "),
            });
        }
    }
    Ok(())
}

/// The one subscriber that maps guest memory: private, so that only guest memory itself calls it.
#[derive(Debug)]
struct Mapper {
    container: Arc<Container>,
}

impl MemorySubscriber for Mapper {
    fn name(&self) -> &str {
        "iommu"
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        // One request for the whole region: the kernel then uses the largest pages that the memory allows.
        self.container
            .map(region)
            .map_err(|source| MapRefused { source }.into())
    }

    fn detach(&self, region: &Region) {
        let Err(error) = self.container.unmap(region) else {
            return;
        };
        // A container that its last group has left has no IOMMU any more, and no mappings.
        if error.raw_os_error() == Some(libc::EINVAL) {
            tracing::debug!(
                guest = region.guest.0,
                "guest memory was unmapped with the last group"
            );
        } else {
            tracing::error!(%error, guest = region.guest.0, "guest memory was not unmapped; closing the container does so");
        }
    }
}

/// The IOMMU did not map a region.
#[derive(Debug, thiserror::Error)]
#[error("VFIO_IOMMU_MAP_DMA: {source}; {}", remedy(source))]
struct MapRefused {
    source: io::Error,
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => {
            "RLIMIT_MEMLOCK is too small for the guest's memory (raise it: `ulimit -l unlimited`), or the host is out of memory"
        }
        Some(libc::EINVAL) => "the address is beyond the IOMMU's width; give the guest less memory",
        Some(libc::ENOSPC) => "no mappings left; raise vfio_iommu_type1.dma_entry_limit",
        Some(libc::EEXIST) => "another guest's memory is mapped there; use one I/O space per partition",
        _ => "the kernel log says why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_a_narrow_iommu_is_refused_before_it_is_mapped() {
        let narrow = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];
        assert!(fits(&[(0, 0xc000_0000), (1 << 32, 1 << 39)], &narrow, Some(2)).is_ok());
        let refusal = fits(&[(1 << 32, (1 << 39) + 4096)], &narrow, None)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("0x7fffffffff"), "{refusal}");
    }

    #[test]
    fn memory_across_a_reserved_range_is_refused() {
        let reserved = [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff];
        assert!(fits(&[(0xfed0_0000, 0xfef1_0000)], &reserved, None).is_err());
    }

    #[test]
    fn too_few_mappings_left_are_counted() {
        assert!(matches!(
            fits(&[(0, 1), (2, 3)], &[], Some(1)),
            Err(AssignError::TooManyMappings {
                available: 1,
                wanted: 2
            })
        ));
    }

    #[test]
    fn a_refused_map_names_the_limit_that_helps() {
        let refused = MapRefused {
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        assert!(refused.to_string().contains("ulimit -l"));
    }
}
