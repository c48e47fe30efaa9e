//! How an opened function is held, by each way that leads to one: what maps memory for it, what KVM is told, and what goes back.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pellucid_partition::{Bdf, GuestMemory};

use crate::bound::Released;
use crate::claimed::Claimed;
use crate::dma::MappedMemory;
use crate::error::{AssignError, ReleaseError};
use crate::guest::Guest;
use crate::inventory::Function;
use crate::quarantine::Quarantine;
use crate::reset::{ResetLadder, ResetReport};
use crate::space::IoSpace;
use crate::sys::Group;
use crate::transport::Transport;
use crate::vfio_user::Serving;

/// Where an opened function comes from. A later way (iommufd with a character device) is a further variant.
pub(crate) enum Held {
    /// The host's own hardware, by a VFIO group in a container.
    Host(Box<HostHold>),
    /// Another process, by a vfio-user socket.
    Served(Box<Serving>),
}

/// A function of the host.
pub(crate) struct HostHold {
    // Teardown order: the group, then its driver's claim.
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) claimed: Claimed,
    pub(crate) space: Arc<IoSpace>,
}

impl Held {
    pub(crate) fn function(&self) -> &Function {
        match self {
            Held::Host(host) => host.claimed.function(),
            Held::Served(serving) => serving.function(),
        }
    }

    /// The I/O address space that it is in; a served function is in none, its server has the memory itself.
    pub(crate) fn space(&self) -> Option<&Arc<IoSpace>> {
        match self {
            Held::Host(host) => Some(&host.space),
            Held::Served(_) => None,
        }
    }

    /// Lets the function reach the guest's memory, as it is and as it changes, until the result is dropped.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<Arc<MappedMemory>, AssignError> {
        match self {
            Held::Host(host) => host.space.map(memory),
            Held::Served(serving) => {
                let subscription = memory.subscribe(Arc::new(serving.memory()))?;
                Ok(Arc::new(MappedMemory::new(subscription)))
            }
        }
    }

    /// Tells the guest's KVM what it must know of the function's DMA.
    pub(crate) fn announce(&self, guest: &Guest) -> Result<(), AssignError> {
        let Held::Host(host) = self else { return Ok(()) };
        let act = "telling KVM of its group";
        let group = host.group.as_ref().map_or(-1, |group| group.as_fd().as_raw_fd());
        let told = host.space.tell_kvm(guest, group);
        told.map_err(|source| AssignError::Device {
            device: host.claimed.bdf(),
            act,
            source,
        })
    }

    /// Notes whether the function is in no guest: a hot reset may reset it then.
    pub(crate) fn rests(&self, rests: bool) {
        if let Held::Host(host) = self {
            host.space.groups().rests(host.claimed.bdf(), rests);
        }
    }

    /// Resets and proves it.
    pub(crate) fn climb(&self, transport: &Arc<dyn Transport>) -> ResetReport {
        match self {
            Held::Host(host) => {
                let resting = host.space.groups().resting();
                let ladder = ResetLadder::of(host.claimed.function()).together_with(resting);
                ladder.seen_at(&host.claimed.sysfs()).climb(transport)
            }
            Held::Served(serving) => {
                // No host has placed its BARs.
                let function = Function {
                    bars: Vec::new(),
                    ..serving.function().clone()
                };
                ResetLadder::of(&function).climb(transport)
            }
        }
    }

    /// Gives the closed function back, or keeps it away from everybody if it is not well.
    pub(crate) fn finish(&mut self, mut report: ResetReport) -> Result<Released, ReleaseError> {
        let is_back = match self {
            Held::Host(host) => {
                if let Some(group) = host.group.take() {
                    host.space.leave(host.claimed.bdf(), group);
                }
                if report.is_busy() {
                    // Now that it is closed the kernel goes on with the change, and waits for its end before it resets.
                    report = host.claimed.climb_closed()?.after(report);
                }
                match report.fault() {
                    None => host.claimed.give_back()?,
                    Some(fault) => {
                        let quarantine = Quarantine::now(fault, Some(report.clone()));
                        host.claimed.quarantine(quarantine)?
                    }
                }
            }
            Held::Served(serving) => {
                // The process keeps its device; ending the connection is all that there is to give back.
                if let Some(reason) = report.fault()
                    && !serving.is_lost()
                {
                    let socket = serving.socket().display();
                    tracing::warn!(%socket, reason, "the served device did not end well; its server keeps it");
                }
                serving.give_back()?;
                true
            }
        };
        Ok(Released {
            reset: report,
            is_back,
        })
    }

    /// Its address: on the host, or for a served function in the guest.
    pub(crate) fn bdf(&self) -> Bdf {
        self.function().bdf
    }
}
