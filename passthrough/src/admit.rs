//! Whether a function may be lent, decided on the inventory alone. Nothing is touched here, and the dry run asks the
//! same question as the real one.

use pellucid_partition::Bdf;

use crate::error::Refusal;
use crate::inventory::{Function, Inventory, NodeState, Use};

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
}

impl Inventory {
    /// Admits the function at `bdf`, or says why not.
    pub fn admit(&self, bdf: Bdf) -> Result<Admitted, Refusal> {
        let function = self
            .function(bdf)
            .ok_or(Refusal::NoSuchFunction { device: bdf })?;
        if function.is_bridge() {
            return Err(Refusal::Bridge {
                device: bdf,
                class: function.ids.class,
            });
        }
        unused(bdf, &function.uses)?;
        let group = function.group.as_ref().ok_or(Refusal::NoIommu { device: bdf })?;
        let others = self.blockers(function);
        if !others.is_empty() {
            return Err(Refusal::SharedGroup {
                device: bdf,
                group: group.id,
                others,
            });
        }
        if !self.vfio.driver {
            return Err(Refusal::NoVfioDriver { device: bdf });
        }
        match self.vfio.container {
            NodeState::Usable => Ok(Admitted {
                function: function.clone(),
                group: group.id,
            }),
            NodeState::Denied => Err(Refusal::VfioDenied { device: bdf }),
            NodeState::Missing => Err(Refusal::NoVfio { device: bdf }),
        }
    }
}

/// Refuses a function that the host uses.
pub(crate) fn unused(device: Bdf, uses: &[Use]) -> Result<(), Refusal> {
    match uses.first() {
        Some(Use::Mount {
            device: disk,
            mount_point,
        }) => {
            let (disk, mount_point) = (disk.clone(), mount_point.clone());
            Err(Refusal::Mounted {
                device,
                disk,
                mount_point,
            })
        }
        Some(Use::Swap { device: disk }) => Err(Refusal::Swap {
            device,
            disk: disk.clone(),
        }),
        None => Ok(()),
    }
}
