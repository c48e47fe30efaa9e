//! What a server boots, opened for reading: a kernel, a disk whose boot menu was read, or firmware.

use pellucid_image::{BootDisk, BootPlan, DiskImage, Linux, SourceFile};
use pellucid_partition::{GuestMemory, Layout};

use crate::error::BootError;
use crate::firmware::FirmwareFiles;
use crate::identity::CheckWarning;
use crate::loaded::Loaded;
use crate::server::EventSink;
use crate::spec::Source;
use crate::topology::RootBuses;

/// What will be booted, opened for reading.
pub(crate) enum Boot {
    Kernel(Linux<'static>),
    Disk {
        disk: Box<BootDisk<DiskImage>>,
        plan: Box<BootPlan>,
    },
    Firmware(Box<FirmwareFiles>),
}

impl Source {
    /// The root buses that what is booted can find. Firmware looks at others only where it is told how many, and numbers them as it likes.
    pub(crate) fn roots(&self) -> RootBuses {
        match self {
            Self::Kernel { .. } | Self::BootDisk { .. } => RootBuses::Own,
            Self::Firmware(_) => RootBuses::First,
        }
    }

    /// Opens what is named, and decides what a disk boots.
    pub(crate) fn open(&self) -> Result<Boot, BootError> {
        match self {
            Self::Kernel {
                kernel,
                initrd,
                command_line,
            } => Ok(Boot::Kernel(Linux {
                kernel: SourceFile::open(kernel)?,
                initrds: initrd
                    .iter()
                    .map(|path| SourceFile::open(path))
                    .collect::<Result<_, _>>()?,
                command_line: command_line.clone(),
            })),
            Self::BootDisk { disk, entry } => {
                let disk = Box::new(BootDisk::open(disk)?);
                let plan = Box::new(disk.plan_of(disk.menu()?, entry.as_deref())?);
                Ok(Boot::Disk { disk, plan })
            }
            Self::Firmware(source) => Ok(Boot::Firmware(Box::new(source.open()?))),
        }
    }
}

impl Boot {
    /// What was not read of a boot menu, or is not applied.
    pub(crate) fn warnings(&self) -> Vec<CheckWarning> {
        match self {
            Self::Disk { plan, .. } => {
                let warnings = plan.menu.warnings.iter().cloned();
                warnings.map(CheckWarning::BootMenu).collect()
            }
            Self::Kernel(_) | Self::Firmware(_) => Vec::new(),
        }
    }

    /// Whether the kernel is one, is whole, and fits with its initrds.
    pub(crate) fn check(&mut self, layout: &Layout) -> Result<(), BootError> {
        match self {
            Self::Kernel(linux) => Ok(linux.check(layout)?),
            Self::Disk { disk, plan } => Ok(disk.linux(plan)?.check(layout)?),
            Self::Firmware(_) => Ok(()),
        }
    }

    /// The kernel with its initrds, loaded, or firmware with its variables, held.
    pub(crate) fn load(
        self,
        memory: &GuestMemory,
        layout: &Layout,
        events: &EventSink,
    ) -> Result<Loaded, BootError> {
        match self {
            Self::Kernel(linux) => Ok(Loaded::Kernel(linux.load(memory, layout)?)),
            Self::Disk { disk, plan } => Ok(Loaded::Kernel(disk.linux(&plan)?.load(memory, layout)?)),
            Self::Firmware(files) => Ok(Loaded::Firmware(Box::new(files.hold(events)?))),
        }
    }
}
