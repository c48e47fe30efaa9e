//! A machine is a value: what the physical server is made of. Tests vary it; turning
//! it into a command line is the work of `command`.

mod command;
mod device;
mod identity;
mod plug;
mod tree;

use std::path::PathBuf;

pub use command::Chardev;
pub use device::{Device, Disk, Place};
pub(crate) use tree::Tree;

/// A physical server to be emulated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// How many CPUs it has.
    pub cpus: u32,
    /// How much memory, in MiB.
    pub memory_mib: u32,
    /// Over how many NUMA nodes CPUs and memory are spread evenly.
    pub numa_nodes: u32,
    /// How wide its IOMMU's addresses are: 39 or 48 bits.
    pub iommu_width: u32,
    /// Its PCI devices.
    pub devices: Vec<Device>,
    /// What it starts.
    pub boot: Boot,
    /// Where its first serial port goes.
    pub console: Chardev,
    /// Channels to the guest, by name: virtio-serial ports.
    pub ports: Vec<(String, PathBuf)>,
    /// A console of its own for interactive use (`/dev/hvc0`), if any.
    pub terminal: Option<PathBuf>,
    /// Folders of the developer's machine it can mount by 9p.
    pub shares: Vec<Share>,
    /// By what it is managed from outside.
    pub management: Management,
    /// What its SMBIOS calls it; the emulator's own words without one.
    pub identity: Option<Identity>,
}

/// What a machine's SMBIOS says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Serial number of the system; its board and chassis have it too, with a letter before it.
    pub serial: String,
    /// Free text of its owner.
    pub free_text: String,
    /// Places of network cards that are onboard: instance 1, 2 and so on.
    pub onboard: Vec<Place>,
}

/// Where one listens who manages an emulated machine, if anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Management {
    /// The monitor (QMP).
    pub monitor: Option<PathBuf>,
    /// A second monitor that the machine reaches itself, as a server reaches its management controller: by the virtio-serial
    /// port `pellucid.monitor`.
    pub service: Option<PathBuf>,
    /// The emulator's debugger (the remote protocol of gdb).
    pub debugger: Option<PathBuf>,
}

/// What a machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A kernel that is given to it directly.
    Kernel {
        /// The bzImage.
        image: PathBuf,
        /// The initramfs.
        initrd: PathBuf,
        /// The kernel's command line.
        arguments: String,
    },
    /// UEFI firmware, which finds a boot loader on a disk.
    Firmware {
        /// The firmware's code; never written.
        code: PathBuf,
        /// The firmware's variables; written, so give it a copy.
        variables: PathBuf,
    },
}

/// A folder of the developer's machine, visible in the emulated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The tag by which it is mounted.
    pub tag: String,
    /// The folder.
    pub path: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

impl Machine {
    /// Three CPUs, of which guests run on all but the first (decision 0022), 4 GiB, an IOMMU of 39 bits; NVMe controllers at 01:00.0
    /// (`PELLUCID-BOOT`) and 02:00.0 (`PELLUCID-DATA`) behind root ports at 00:02.0 and
    /// 00:03.0, an `edu` at 00:05.0 and an e1000e at 00:19.0, which is the onboard NIC. Boots what `L1` gives it.
    pub fn standard() -> Self {
        let nvme = |slot, serial: &str| Device::Nvme {
            place: Place::port(slot),
            serial: serial.to_owned(),
            disk: Disk::Scratch { mebibytes: 64 },
        };
        Self {
            cpus: 3,
            devices: vec![
                nvme(2, "PELLUCID-BOOT"),
                nvme(3, "PELLUCID-DATA"),
                Device::Edu {
                    place: Place::root(5),
                },
                Device::E1000e {
                    place: Place::root(0x19),
                },
            ],
            identity: Some(Identity {
                serial: "PELLUCID-L1".into(),
                free_text: "for the owner alone".into(),
                onboard: vec![Place::root(0x19)],
            }),
            ..Self::bare()
        }
    }

    /// Two CPUs, the same memory and IOMMU, no PCI device.
    pub fn bare() -> Self {
        Self {
            cpus: 2,
            memory_mib: 4096,
            numa_nodes: 1,
            iommu_width: 39,
            devices: Vec::new(),
            boot: Boot::Kernel {
                image: PathBuf::new(),
                initrd: PathBuf::new(),
                arguments: KERNEL_ARGUMENTS.to_owned(),
            },
            console: Chardev::Stdio,
            ports: Vec::new(),
            terminal: None,
            shares: Vec::new(),
            management: Management::default(),
            identity: None,
        }
    }

    /// With `cpus` CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// With `mebibytes` of memory.
    #[must_use]
    pub fn memory_mib(mut self, mebibytes: u32) -> Self {
        self.memory_mib = mebibytes;
        self
    }

    /// With CPUs and memory spread over `nodes` NUMA nodes.
    #[must_use]
    pub fn numa_nodes(mut self, nodes: u32) -> Self {
        self.numa_nodes = nodes;
        self
    }

    /// With an IOMMU whose addresses have `bits` bits: 39 or 48.
    #[must_use]
    pub fn iommu_width(mut self, bits: u32) -> Self {
        self.iommu_width = bits;
        self
    }

    /// With one device more.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// With `disk` in the NVMe controller of the serial number `serial`.
    #[must_use]
    pub fn disk(mut self, serial: &str, disk: Disk) -> Self {
        for device in &mut self.devices {
            if let Device::Nvme {
                serial: found,
                disk: slot,
                ..
            } = device
                && found == serial
            {
                *slot = disk.clone();
            }
        }
        self
    }

    /// Starting `boot`.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// With a kernel that keeps its timer tick off `cpus` (a list such as `1-3`) while a single task runs there, as hosts
    /// for work that must not be disturbed are set up. A machine that starts by firmware has its own kernel's arguments.
    #[must_use]
    pub fn tickless(mut self, cpus: &str) -> Self {
        if let Boot::Kernel { arguments, .. } = &mut self.boot {
            arguments.push_str(&format!(" nohz_full={cpus} rcu_nocbs={cpus}"));
        }
        self
    }

    /// With its first serial port at `console`.
    #[must_use]
    pub fn console(mut self, console: Chardev) -> Self {
        self.console = console;
        self
    }

    /// With a debugger that listens at the socket `path`.
    #[must_use]
    pub fn debugger(mut self, path: impl Into<PathBuf>) -> Self {
        self.management.debugger = Some(path.into());
        self
    }

    /// With a monitor that listens at the socket `path`.
    #[must_use]
    pub fn monitor(mut self, path: impl Into<PathBuf>) -> Self {
        self.management.monitor = Some(path.into());
        self
    }
}

const KERNEL_ARGUMENTS: &str = "console=ttyS0 intel_iommu=on panic=-1 oops=panic loglevel=5 \
    mitigations=off tsc=reliable no_timer_check random.trust_cpu=on";
