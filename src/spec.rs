//! What a logical server is asked to be.

use std::fmt;
use std::path::PathBuf;

use pellucid_partition::{Bdf, CpuShare, PartitionSpec};
use pellucid_passthrough::VfSettings;

use crate::firmware::FirmwareSource;
use crate::identity::SmbiosPolicy;
use crate::machine::Machine;
use crate::policy::DevicePolicy;

/// A logical server: its share of the host, what it boots, what it is lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// CPUs and memory.
    pub partition: PartitionSpec,
    /// On which terms it has its CPUs.
    pub cpu: CpuPolicy,
    /// What it boots.
    pub source: Source,
    /// Which SMBIOS tables its operating system finds.
    pub smbios: SmbiosPolicy,
    /// How many seconds its clock is ahead of the host's (UTC) at first.
    pub clock_offset: i64,
    /// PCI functions it is lent.
    pub devices: Vec<DeviceSpec>,
    /// The captured machine that it is to be, if it is not to be this host.
    pub machine: Option<Machine>,
}

/// The terms on which a server has its CPUs at first; they can be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuPolicy {
    /// Its share, where CPUs are shared; without one its vCPUs are ordinary tasks of the host, in no control group of theirs.
    pub share: Option<CpuShare>,
    /// The group of servers that the share is taken from.
    pub group: Option<String>,
    /// SCHED_FIFO priority of its vCPU threads, where CPUs are dedicated.
    pub realtime: Option<u8>,
}

/// Where the operating system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A kernel given as files.
    Kernel {
        /// A bzImage, or an ELF file with a PVH entry.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        command_line: String,
    },
    /// A server's disk: an image file or a block device, read as its own boot loader would, never written.
    BootDisk {
        /// The disk.
        disk: PathBuf,
        /// The entry of its menu to boot (an id, or a volume and an id); without one, what it would boot by itself.
        entry: Option<String>,
    },
    /// UEFI firmware, which starts what it finds on the devices that the server is lent.
    Firmware(FirmwareSource),
}

/// A PCI function to lend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Where it comes from.
    pub from: DeviceSource,
    /// Its address in the guest; if `None`, a function of the host keeps its own, and a served one gets the first that is free.
    pub at: Option<Bdf>,
    /// Whether it is wanted although the host uses it: its disk is mounted, the default route leaves through it.
    pub force: bool,
    /// Whether it can be unplugged and plugged while the guest runs: the port above it has a hot-plug slot then, which goes for all
    /// functions behind that port.
    pub hot_plug: bool,
    /// What is to happen when something happens to it.
    pub policy: DevicePolicy,
}

/// Where a function comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSource {
    /// The host, which has it at this address.
    Host(Bdf),
    /// A card of the host, which stays with its host driver and lends one of its virtual functions.
    Virtual(VirtualFunction),
    /// Another process, which serves it on this vfio-user socket.
    Served(PathBuf),
}

/// One virtual function of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualFunction {
    /// The card's physical function.
    pub card: Bdf,
    /// Its number among the card's, from 0.
    pub index: u16,
    /// How many the card is to have; it is made to have them if it has none.
    pub of: u16,
    /// What the card gives it, out of the guest's reach.
    pub settings: VfSettings,
}

impl DeviceSpec {
    /// A function at no address that is said, of which its owner is only told.
    #[must_use]
    pub fn new(from: DeviceSource) -> DeviceSpec {
        DeviceSpec {
            from,
            at: None,
            force: false,
            hot_plug: false,
            policy: DevicePolicy::default(),
        }
    }

    /// The address in the guest that it is to have, if one is said.
    #[must_use]
    pub fn wanted(&self) -> Option<Bdf> {
        self.at.or(self.hardware())
    }

    /// Its address on the host, if it is the host's.
    #[must_use]
    pub fn host(&self) -> Option<Bdf> {
        match self.from {
            DeviceSource::Host(host) => Some(host),
            DeviceSource::Virtual(_) | DeviceSource::Served(_) => None,
        }
    }

    /// The function of the host that it is, or is a virtual function of. A guest finds a virtual function where the card is.
    #[must_use]
    pub fn hardware(&self) -> Option<Bdf> {
        match self.from {
            DeviceSource::Host(host) => Some(host),
            DeviceSource::Virtual(function) => Some(function.card),
            DeviceSource::Served(_) => None,
        }
    }
}

impl fmt::Display for DeviceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSource::Host(host) => host.fmt(f),
            DeviceSource::Virtual(function) => write!(f, "{} vf {}", function.card, function.index),
            DeviceSource::Served(socket) => write!(f, "unix:{}", socket.display()),
        }
    }
}
