//! Whether functions may be lent together, decided on the inventory alone. Nothing is touched here, and the dry run asks the
//! same question as the real one.
//!
//! Two things hold for whatever is admitted: no group of it has a member that is neither admitted nor harmless, and the
//! host's own use of a function is overridden only for that function, by name.

use std::path::Path;

use pellucid_partition::Bdf;

use crate::census::Census;
use crate::error::{Refusal, SetRefused, TakeError};
use crate::inventory::{Function, Inventory, NodeState, Use, uses_now};

/// A function that somebody wants to be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub(crate) device: Bdf,
    pub(crate) forced: bool,
}

/// A function that may be lent: surveyed and admitted. Nothing is held yet, so nothing can be opened:
///
/// ```compile_fail
/// # fn show(admitted: pellucid_passthrough::Admitted, space: std::sync::Arc<pellucid_passthrough::IoSpace>) {
/// admitted.bind(&space);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an admission holds nothing; claim it"]
pub struct Admitted {
    function: Function,
    group: u32,
    companions: Vec<Bdf>,
    overridden: Vec<Use>,
}

impl Wanted {
    /// A function that is wanted if the host does not use it.
    #[must_use]
    pub fn new(device: Bdf) -> Wanted {
        Wanted {
            device,
            forced: false,
        }
    }

    /// Wanted although the host uses it: its disk is mounted, the default route leaves through it, the console is on it. Nothing else
    /// is overridden: a bridge, a function without IOMMU or part of a group stays refused.
    #[must_use]
    pub fn by_force(self) -> Wanted {
        Wanted { forced: true, ..self }
    }

    /// The function's address.
    #[must_use]
    pub fn device(self) -> Bdf {
        self.device
    }
}

impl From<Bdf> for Wanted {
    fn from(device: Bdf) -> Wanted {
        Wanted::new(device)
    }
}

impl Admitted {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// The number of its IOMMU group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The other functions of its group that were admitted with it. Only when all of them are off their host drivers does the kernel
    /// let the group be opened, and it lets it be opened once: its descriptor serves all of them.
    #[must_use]
    pub fn companions(&self) -> &[Bdf] {
        &self.companions
    }

    /// What the host uses it for, and loses it for, because it was wanted by force.
    #[must_use]
    pub fn overridden(&self) -> &[Use] {
        &self.overridden
    }

    /// Refuses it if the host below `root` has begun to use it since it was admitted: the survey may be old, and a file system mounted
    /// since must not lose its disk.
    pub(crate) fn unused_now(&self, root: &Path) -> Result<(), TakeError> {
        let device = self.function.bdf;
        let mut uses = uses_now(root, device)?;
        uses.retain(|new| !self.overridden.contains(new));
        match uses.is_empty() {
            true => Ok(()),
            false => Err(Refusal::InUse { device, uses }.into()),
        }
    }
}

impl Inventory {
    /// Admits the function at `bdf` by itself, or says why not.
    pub fn admit(&self, bdf: Bdf) -> Result<Admitted, Refusal> {
        match self.admit_together(&[Wanted::new(bdf)]) {
            Ok(mut admitted) => admitted.pop().ok_or(Refusal::NoSuchFunction { device: bdf }),
            Err(refused) => {
                let first = refused.refusals.into_iter().next();
                Err(first.unwrap_or(Refusal::NoSuchFunction { device: bdf }))
            }
        }
    }

    /// Admits all of `wanted` to be lent to one guest, in that order, or says everything that is against it. An IOMMU group is lent
    /// whole: each member is wanted too, or harmless ([`Standing::hinders`](crate::Standing::hinders)).
    pub fn admit_together(&self, wanted: &[Wanted]) -> Result<Vec<Admitted>, SetRefused> {
        let verdict = Census::of(self).judge(wanted);
        let mut refusals = verdict.refusals;
        let vfio = wanted.first().and_then(|first| self.without_vfio(first.device));
        let whole = verdict.whole.into_iter().filter(|_| vfio.is_none());
        let admitted = whole.flat_map(|(group, functions)| {
            functions
                .iter()
                .map(|one| admitted(one, group, &functions))
                .collect::<Vec<_>>()
        });
        let mut admitted: Vec<Admitted> = admitted.collect();
        let order = |one: &Admitted| wanted.iter().position(|wanted| wanted.device == one.function.bdf);
        admitted.sort_by_key(order);
        // Without VFIO nothing is lent at all; what is refused for a reason of its own need not hear of it.
        refusals.extend(vfio.filter(|_| refusals.is_empty() || !refusals.iter().all(Refusal::is_final)));
        match refusals.is_empty() {
            true => Ok(admitted),
            false => Err(SetRefused {
                refusals,
                others: admitted,
            }),
        }
    }

    /// The function that has the PCI domain of `function` behind it (an Intel Volume Management Device): no bridge, but above it. What
    /// is behind it does DMA in its name, and is gone when its driver lets go of it.
    pub(crate) fn carrier(&self, function: &Function) -> Option<Bdf> {
        let carries = |above: &&Bdf| self.function(**above).is_some_and(|above| !above.is_bridge());
        function.upstream.iter().find(carries).copied()
    }

    /// What is against lending anything here.
    pub(crate) fn without_vfio(&self, device: Bdf) -> Option<Refusal> {
        match (self.vfio.driver, self.vfio.container) {
            (false, _) => Some(Refusal::NoVfioDriver { device }),
            (true, NodeState::Usable) => None,
            (true, NodeState::Denied) => Some(Refusal::VfioDenied { device }),
            (true, NodeState::Missing) => Some(Refusal::NoVfio { device }),
        }
    }
}

fn admitted(function: &Function, group: u32, whole: &[&Function]) -> Admitted {
    let others = whole.iter().map(|other| other.bdf);
    Admitted {
        function: function.clone(),
        group,
        companions: others.filter(|other| *other != function.bdf).collect(),
        // All that there is: without force, a function with a use is refused.
        overridden: function.uses.clone(),
    }
}
