//! The I/O address space of a partition: one VFIO container that all its devices share, with guest memory mapped once.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, KVM_DEV_VFIO_GROUP_DEL, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::DeviceFd;
use pellucid_partition::Bdf;

use crate::claimed::Claimed;
use crate::dma::{DmaProgress, MappedMemory};
use crate::error::BindError;
use crate::groups::Groups;
use crate::guest::Guest;
use crate::peers::Peers;
use crate::sys::{Container, Group, VfioDevice};

/// An I/O address space. Empty of memory until a device is assigned.
pub struct IoSpace {
    pub(crate) container: Arc<Container>,
    pub(crate) mapped: Mutex<Weak<MappedMemory>>,
    kvm: Mutex<Option<DeviceFd>>,
    groups: Arc<Groups>,
    peers: Arc<Peers>,
    pub(crate) progress: Mutex<Option<DmaProgress>>,
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
        let container = Arc::new(container);
        Ok(Arc::new(IoSpace {
            peers: Peers::new(Arc::clone(&container) as _),
            container,
            mapped: Mutex::default(),
            kvm: Mutex::default(),
            progress: Mutex::default(),
            groups: Arc::default(),
        }))
    }

    /// The I/O address ranges that the IOMMU behind it accepts; known once a device is bound. Empty: the kernel does not say.
    pub fn iova_ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
        Ok(self.container.limits()?.ranges)
    }

    /// The open BARs of its devices, and which of them the others reach by DMA.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Takes the group of a claimed function in and opens the function.
    pub(crate) fn admit(&self, claimed: &Claimed) -> Result<(Arc<Group>, VfioDevice), BindError> {
        let (device, group, node) = (claimed.bdf(), claimed.group(), claimed.node());
        let failed = |source| BindError::Group {
            device,
            node: node.to_owned(),
            source,
        };
        let opened = self.groups.join(group, || {
            let opened = Group::open(node, &self.container).map_err(failed)?;
            opened.ok_or(BindError::NotViable { device, group })
        })?;
        match self.container.choose_iommu() {
            // The second group of a container finds the choice made.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.container.limits().is_ok() => {}
            other => other.map_err(|source| BindError::Iommu { device, source })?,
        }
        match opened.device(&claimed.vfio_name(), &self.groups) {
            Ok(vfio) => Ok((opened, vfio)),
            Err(source) => {
                self.leave(device, opened);
                Err(BindError::Open { device, source })
            }
        }
    }

    /// Ends a function's part in its group, which the last of them closes.
    pub(crate) fn leave(&self, device: Bdf, group: Arc<Group>) {
        self.groups.rests(device, false);
        self.groups
            .leave(group, |group| self.untell_kvm(group.as_fd().as_raw_fd()));
    }

    /// The groups that are open in it.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
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
    fn untell_kvm(&self, group: i32) {
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

impl std::fmt::Debug for IoSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoSpace")
            .field("container", &self.container)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
