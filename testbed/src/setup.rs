//! Makes the developer's machine ready: programs, emulator, kernel, initramfs.
//! Everything that is not installed by the distribution lives in the cache.

pub(crate) mod apt;
pub(crate) mod archive;
pub(crate) mod emulator;
pub(crate) mod guest;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod modules;
pub(crate) mod packages;
pub(crate) mod program;
pub mod sources;

use std::path::PathBuf;

use crate::{Cache, Machine, Progress, SetupError};
pub use emulator::{Emulator, Version};
pub use guest::GuestFiles;
pub use kernel::Kernel;
pub use packages::{Needs, Shortage, install_missing, remedy, survey};

/// A developer's machine on which the physical server can be started.
#[derive(Debug, Clone)]
pub struct Testbed {
    /// Where everything was put.
    pub cache: Cache,
    /// The emulator and what it can do.
    pub emulator: Emulator,
    /// The kernel of the physical server.
    pub kernel: Kernel,
    /// The initramfs of the physical server.
    pub initramfs: PathBuf,
}

impl Testbed {
    /// Installs what is missing (as root on a Debian), downloads and builds what is
    /// not cached yet. Costs a minute the first time and a second from then on.
    ///
    /// # Errors
    /// A program is missing and cannot be installed, or a download or build fails.
    pub fn ready(progress: Progress) -> Result<Self, SetupError> {
        packages::install_missing(Needs::Run, progress)?;
        let cache = Cache::open()?;
        let lock = cache.lock()?;
        let emulator = Emulator::ready(&cache, progress)?;
        let kernel = Kernel::ready(&cache, progress)?;
        let initramfs = initramfs::ready(&cache, &kernel)?;
        drop(lock);
        Ok(Self {
            cache,
            emulator,
            kernel,
            initramfs,
        })
    }

    /// The kernel and a small initramfs for logical servers, as tests boot them.
    ///
    /// # Errors
    /// The initramfs cannot be built.
    pub fn guest(&self) -> Result<GuestFiles, SetupError> {
        let _lock = self.cache.lock()?;
        guest::ready(&self.cache, &self.kernel)
    }

    /// What tests and commands in the machine are told: that it is the testbed, which
    /// guest to boot and which emulator to compare with.
    ///
    /// # Errors
    /// The guest's initramfs cannot be built.
    pub fn variables(&self) -> Result<Vec<(&'static str, String)>, SetupError> {
        let guest = self.guest()?;
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        Ok(vec![
            ("PELLUCID_TESTBED", "1".to_owned()),
            ("PELLUCID_KERNEL", text(&guest.kernel)),
            ("PELLUCID_INITRD", text(&guest.initrd)),
            ("PELLUCID_QEMU", text(&self.emulator.program)),
        ])
    }

    /// The machine that tests get unless they ask for another.
    pub fn standard_machine(&self) -> Machine {
        Machine::standard()
    }
}
