//! One error enum per step. Each message says subject, cause and remedy; the kernel's errno is kept as the source.

use std::io;
use std::path::PathBuf;

use pellucid_partition::{Bdf, BusError, ClaimError, InterruptError, MemoryError, VmError};

/// The host could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be read: {source}; is sysfs mounted and readable for this user?", path = path.display())]
pub struct SurveyError {
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

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

/// A function could not be taken off its driver, or given back to it.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Its claim was refused.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A sysfs attribute refused.
    #[error("device {device}: {path}: {source}; driver changes need root", path = path.display())]
    Sysfs {
        /// The function.
        device: Bdf,
        /// The attribute written.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A driver does not let go.
    #[error(
        "device {device}: driver {driver} has not let go for {seconds} s; find what still uses it (open files, mounts), the kernel log may say more"
    )]
    Stuck {
        /// The function.
        device: Bdf,
        /// The driver.
        driver: String,
        /// How long it was given.
        seconds: u64,
    },
    /// The wanted driver did not bind.
    #[error("device {device}: {wanted} did not bind, it has {}; the kernel log says why", driver(found.as_ref()))]
    NotBound {
        /// The function.
        device: Bdf,
        /// The driver wanted.
        wanted: String,
        /// The driver found.
        found: Option<String>,
    },
    /// The group's node did not come.
    #[error("device {device}: {node} did not appear; is /dev a devtmpfs or udev running?", node = node.display())]
    NoNode {
        /// The function.
        device: Bdf,
        /// The node.
        node: PathBuf,
    },
    /// A record that makes no sense.
    #[error("device {device}: its undo record is not readable: {source}; bind its driver by hand")]
    Record {
        /// The function.
        device: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It failed its health proof and is kept away from everybody.
    #[error(
        "device {device}: quarantined: {reason}; it needs a reset that works (power cycle, or heal again)"
    )]
    Quarantined {
        /// The function.
        device: Bdf,
        /// What failed.
        reason: String,
    },
}

/// A function could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The container does not open.
    #[error("{path}: {source}; is vfio_iommu_type1 loaded, and /dev/vfio accessible to this user?", path = path.display())]
    Container {
        /// Its node.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The group does not open.
    #[error("device {device}: {node}: {source}; {}", group_remedy(source), node = node.display())]
    Group {
        /// The function.
        device: Bdf,
        /// The group's node.
        node: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A member of the group is still driven by the host.
    #[error(
        "device {device}: IOMMU group {group} is not viable, a member is still on a host driver; release that member too"
    )]
    NotViable {
        /// The function.
        device: Bdf,
        /// The group.
        group: u32,
    },
    /// The IOMMU backend refused.
    #[error(
        "device {device}: the IOMMU refused to serve it: {source}; the kernel log says why (interrupt remapping missing?)"
    )]
    Iommu {
        /// The function.
        device: Bdf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device does not open.
    #[error("device {device}: cannot be opened through VFIO: {source}; the kernel log says why")]
    Open {
        /// The function.
        device: Bdf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It does not answer as itself.
    #[error(
        "device {device}: it answers {found:08x} instead of {wanted:08x}; it needs a reset or a power cycle"
    )]
    WrongIds {
        /// The function.
        device: Bdf,
        /// Device and vendor id surveyed.
        wanted: u32,
        /// Device and vendor id read.
        found: u32,
    },
}

/// A function could not be wired to a guest.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// The IOMMU's address ranges do not hold the guest's memory.
    #[error(
        "guest memory {start:#x}..{end:#x} is outside what this IOMMU maps ({accepted}); give the guest less memory"
    )]
    OutsideIommu {
        /// First byte.
        start: u64,
        /// Byte behind the last.
        end: u64,
        /// The ranges that would do.
        accepted: String,
    },
    /// Too few mappings left.
    #[error(
        "the IOMMU has {available} mappings left and {wanted} are needed; raise vfio_iommu_type1.dma_entry_limit"
    )]
    TooManyMappings {
        /// How many are left.
        available: u32,
        /// How many are needed.
        wanted: usize,
    },
    /// The guest's memory was not mapped.
    #[error("guest memory cannot be mapped for DMA: {0}")]
    Memory(#[from] MemoryError),
    /// Access to the device failed.
    #[error("device {device}: {act}: {source}")]
    Device {
        /// The function.
        device: Bdf,
        /// What was being done.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A range is taken.
    #[error("device {device}: {source}")]
    Bus {
        /// The function.
        device: Bdf,
        /// Which range, and by whom.
        source: BusError,
    },
    /// KVM refused a mapping.
    #[error("device {device}: {source}")]
    Vm {
        /// The function.
        device: Bdf,
        /// What KVM said.
        source: VmError,
    },
    /// KVM refused an interrupt.
    #[error("device {device}: {source}")]
    Interrupt {
        /// The function.
        device: Bdf,
        /// What KVM said.
        source: InterruptError,
    },
}

/// Giving back went wrong. What could be given back has been.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A step on the device failed.
    #[error("device {device}: {act}: {source}; the rest was given back")]
    Device {
        /// The function.
        device: Bdf,
        /// What was being done.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host driver did not get it back.
    #[error(transparent)]
    Driver(#[from] TakeError),
}

/// BARs that find no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The window is too small or too full.
    #[error(
        "device {device}: BAR {bar} of {size:#x} bytes does not fit the guest's {window} window {start:#x}..{end:#x}; lend fewer devices or a wider address space"
    )]
    NoRoom {
        /// The function.
        device: Bdf,
        /// Its register.
        bar: u8,
        /// Bytes.
        size: u64,
        /// Which window.
        window: &'static str,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
}

fn list(devices: &[Bdf]) -> String {
    devices.iter().map(Bdf::to_string).collect::<Vec<_>>().join(", ")
}

fn driver(found: Option<&String>) -> String {
    found.map_or_else(|| "no driver".to_owned(), |name| format!("driver {name}"))
}

fn group_remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => "another process has the group open; stop it first",
        Some(libc::EPERM) => "the platform gives no interrupt isolation, or the group is not for this user",
        Some(libc::EACCES) => "run as root or give this user access to the node",
        _ => "the kernel log says why",
    }
}
