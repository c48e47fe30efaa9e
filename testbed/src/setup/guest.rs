//! The kernel and initramfs that tests boot as a logical server: the same kernel,
//! busybox, an NVMe driver and those of the network cards, and a shell on the serial console.

use std::path::PathBuf;

use crate::SetupError;
use crate::cache::Cache;
use crate::setup::initramfs::{Content, build};
use crate::setup::kernel::Kernel;

/// What a test boots in a logical server.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    /// The bzImage.
    pub kernel: PathBuf,
    /// An initramfs that prints `init: reached` and answers a shell on `ttyS0`.
    pub initrd: PathBuf,
}

pub(crate) fn ready(cache: &Cache, kernel: &Kernel) -> Result<GuestFiles, SetupError> {
    let content = Content {
        name: "guest",
        scripts: &[("init", INIT)],
        modules: &MODULES,
    };
    let initrd = build(cache, kernel, &content)?;
    Ok(GuestFiles {
        kernel: kernel.image.clone(),
        initrd,
    })
}

const INIT: &str = include_str!("guest.sh");
const MODULES: [&str; 6] = ["nvme", "e1000", "e1000e", "igb", "igbvf", "button"];
