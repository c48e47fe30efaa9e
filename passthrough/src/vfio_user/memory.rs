//! Guest memory in the server: it is given the file of each region, with the guest address at which the device finds it.

use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;

use pellucid_partition::{MemorySubscriber, Region};

use super::link::{Link, Question};
use super::message::{Command, Payload};

/// The subscriber of guest memory that tells the server: private, so that only guest memory itself calls it.
#[derive(Debug)]
pub(crate) struct ServedMemory {
    pub(crate) link: Arc<Link>,
}

impl MemorySubscriber for ServedMemory {
    fn name(&self) -> &str {
        "vfio-user"
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        let payload = Payload::default()
            .u32(32)
            .u32(READ | WRITE)
            .u64(0)
            .u64(region.guest.0)
            .u64(region.size);
        self.link.ask(&Question {
            command: Command::DmaMap,
            payload,
            fds: &[region.file().as_fd()],
            answer: 0..=32,
        })?;
        Ok(())
    }

    fn detach(&self, region: &Region) {
        let payload = Payload::default()
            .u32(24)
            .u32(0)
            .u64(region.guest.0)
            .u64(region.size);
        let asked = self.link.ask(&Question {
            command: Command::DmaUnmap,
            payload,
            fds: &[],
            answer: 0..=24,
        });
        if let Err(error) = asked {
            tracing::warn!(%error, guest = region.guest.0, "the server was not told that guest memory goes; it may keep what it has mapped");
        }
    }
}

const READ: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_READ;
const WRITE: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_WRITE;
