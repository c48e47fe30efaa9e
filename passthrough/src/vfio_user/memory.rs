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
        match asked {
            Err(error) if !self.link.is_over() => {
                tracing::warn!(%error, guest = region.guest.0, "guest memory stays with the server");
            }
            // What it has mapped of it stays with it until it ends, as was told when it was given up.
            _ => {}
        }
    }
}

const READ: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_READ;
const WRITE: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_WRITE;
