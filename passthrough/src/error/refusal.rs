//! Why a function may not be lent.

use pellucid_partition::Bdf;

/// A function may not be lent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such address.
    #[error("device {device}: there is no such PCI function; `lspci -D` lists those that exist")]
    NoSuchFunction {
        /// The address asked for.
        device: Bdf,
    },
    /// A bridge carries other devices.
    #[error(
        "device {device}: it is a bridge (class {class:06x}) and carries other devices; name a device behind it"
    )]
    Bridge {
        /// The address asked for.
        device: Bdf,
        /// Its class.
        class: u32,
    },
    /// The host has a file system on it.
    #[error(
        "device {device}: the host uses it, {disk} is mounted at {mount_point}; unmount {mount_point} first"
    )]
    Mounted {
        /// The address asked for.
        device: Bdf,
        /// The block device.
        disk: String,
        /// Where it is mounted.
        mount_point: String,
    },
    /// The host swaps to it.
    #[error("device {device}: the host uses {disk} as swap; `swapoff /dev/{disk}` first")]
    Swap {
        /// The address asked for.
        device: Bdf,
        /// The block device.
        disk: String,
    },
    /// No IOMMU keeps its DMA inside a guest.
    #[error(
        "device {device}: no IOMMU is in use for it; enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on"
    )]
    NoIommu {
        /// The address asked for.
        device: Bdf,
    },
    /// The IOMMU cannot tell it from others.
    #[error(
        "device {device}: IOMMU group {group} also has {}; only a whole group can be lent, choose a device in a group of its own",
        list(others)
    )]
    SharedGroup {
        /// The address asked for.
        device: Bdf,
        /// The group's number.
        group: u32,
        /// The members in the way.
        others: Vec<Bdf>,
    },
    /// vfio-pci is not loaded.
    #[error("device {device}: the driver vfio-pci is not loaded; `modprobe vfio-pci`")]
    NoVfioDriver {
        /// The address asked for.
        device: Bdf,
    },
    /// The VFIO node is not there.
    #[error("device {device}: /dev/vfio/vfio does not exist; `modprobe vfio_iommu_type1 vfio-pci`")]
    NoVfio {
        /// The address asked for.
        device: Bdf,
    },
    /// The VFIO node is not for this user.
    #[error(
        "device {device}: no permission for /dev/vfio/vfio; run as root or give this user access to /dev/vfio"
    )]
    VfioDenied {
        /// The address asked for.
        device: Bdf,
    },
}

pub(super) fn list(devices: &[Bdf]) -> String {
    devices.iter().map(Bdf::to_string).collect::<Vec<_>>().join(", ")
}
