//! Why a function may not be lent, and what to do about it.

use std::fmt;

use pellucid_partition::Bdf;

use crate::admit::Admitted;
use crate::inventory::Use;
use crate::standing::{Member, Standing};

/// A function may not be lent. Its message is one line: the function, the [cause](Refusal::cause), the
/// [remedy](Refusal::remedy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such address.
    NoSuchFunction {
        /// The address asked for.
        device: Bdf,
    },
    /// A bridge carries other devices.
    Bridge {
        /// The address asked for.
        device: Bdf,
        /// Its class.
        class: u32,
    },
    /// It is named more than once.
    Twice {
        /// The address asked for.
        device: Bdf,
    },
    /// It is behind a controller that has a PCI domain of its own.
    Carried {
        /// The address asked for.
        device: Bdf,
        /// The controller.
        carrier: Bdf,
    },
    /// It has virtual functions that somebody has, or that are wanted too; they would go with it.
    HasVirtuals {
        /// The address asked for.
        device: Bdf,
        /// Those virtual functions.
        virtuals: Vec<Bdf>,
    },
    /// The host uses it.
    InUse {
        /// The address asked for.
        device: Bdf,
        /// All that it is used for.
        uses: Vec<Use>,
    },
    /// No IOMMU keeps its DMA inside a guest.
    NoIommu {
        /// The address asked for.
        device: Bdf,
    },
    /// The IOMMU cannot tell it from others.
    SharedGroup {
        /// The address asked for; the first, if several of the group were.
        device: Bdf,
        /// The group's number.
        group: u32,
        /// The members in the way.
        others: Vec<Member>,
    },
    /// vfio-pci is not loaded.
    NoVfioDriver {
        /// The address asked for.
        device: Bdf,
    },
    /// The VFIO node is not there.
    NoVfio {
        /// The address asked for.
        device: Bdf,
    },
    /// The VFIO node is not for this user.
    VfioDenied {
        /// The address asked for.
        device: Bdf,
    },
}

/// Functions that were wanted together may not be lent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(refusals))]
pub struct SetRefused {
    /// Everything that is against it, in the order of asking; what concerns a whole group once for the group.
    pub refusals: Vec<Refusal>,
    /// Those of them that nothing is against: their groups would be whole without the refused ones.
    pub others: Vec<Admitted>,
}

impl Refusal {
    /// The function that it is about.
    #[must_use]
    pub fn device(&self) -> Bdf {
        match self {
            Refusal::NoSuchFunction { device }
            | Refusal::Bridge { device, .. }
            | Refusal::Twice { device }
            | Refusal::Carried { device, .. }
            | Refusal::HasVirtuals { device, .. }
            | Refusal::InUse { device, .. }
            | Refusal::NoIommu { device }
            | Refusal::SharedGroup { device, .. }
            | Refusal::NoVfioDriver { device }
            | Refusal::NoVfio { device }
            | Refusal::VfioDenied { device } => *device,
        }
    }

    /// Why it may not be lent.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Refusal::NoSuchFunction { .. } => "there is no such PCI function".to_owned(),
            Refusal::Bridge { class, .. } => {
                format!("it is a bridge (class {class:06x}) and carries other devices")
            }
            Refusal::Twice { .. } => "it is asked for twice".to_owned(),
            Refusal::Carried { carrier, .. } => {
                format!("it does DMA in the name of {carrier}, which has it in a domain of its own")
            }
            Refusal::HasVirtuals { virtuals, .. } => {
                format!("its virtual functions would go with it ({})", some(virtuals))
            }
            Refusal::InUse { uses, .. } => format!("the host uses it, {}", some(uses)),
            Refusal::NoIommu { .. } => "no IOMMU is in use for it".to_owned(),
            Refusal::SharedGroup { group, others, .. } => {
                format!("IOMMU group {group} also has {}", some(others))
            }
            Refusal::NoVfioDriver { .. } => "the driver vfio-pci is not loaded".to_owned(),
            Refusal::NoVfio { .. } => "/dev/vfio/vfio does not exist".to_owned(),
            Refusal::VfioDenied { .. } => "no permission for /dev/vfio/vfio".to_owned(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Refusal::NoSuchFunction { .. } => "`lspci -D` lists those that exist".to_owned(),
            Refusal::Bridge { .. } => "name a device behind it".to_owned(),
            Refusal::Twice { .. } => "name it once".to_owned(),
            Refusal::Carried { carrier, .. } => {
                format!("lend {carrier} with all that is behind it, or switch VMD off in the firmware")
            }
            Refusal::HasVirtuals { device, .. } => {
                format!(
                    "lend those without it, or remove them first (`echo 0 > /sys/bus/pci/devices/{device}/sriov_numvfs`)"
                )
            }
            Refusal::InUse { uses, .. } => format!("{}, or lend it by force", remedies(uses)),
            Refusal::NoIommu { .. } => {
                "enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on or amd_iommu=on"
                    .to_owned()
            }
            Refusal::SharedGroup { others, .. } => {
                format!("only a whole group can be lent: {}", company(others))
            }
            Refusal::NoVfioDriver { .. } => "`modprobe vfio-pci`".to_owned(),
            Refusal::NoVfio { .. } => "`modprobe vfio_iommu_type1 vfio-pci`".to_owned(),
            Refusal::VfioDenied { .. } => "run as root or give this user access to /dev/vfio".to_owned(),
        }
    }

    /// Whether nothing that is done to the host makes this function one to lend.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Refusal::NoSuchFunction { .. } | Refusal::Bridge { .. } | Refusal::Twice { .. }
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}: {}; {}", self.device(), self.cause(), self.remedy())
    }
}

impl std::error::Error for Refusal {}

fn lines(refusals: &[Refusal]) -> String {
    let lines: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
    lines.join("\n")
}

/// The first few of a list, and how many more there are.
pub(super) fn some(list: &[impl fmt::Display]) -> String {
    let first: Vec<String> = list.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let named = first.join(", ");
    match list.len() - first.len() {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn remedies(uses: &[Use]) -> String {
    let mut remedies: Vec<String> = uses.iter().map(Use::remedy).collect();
    remedies.dedup();
    some(&remedies)
}

/// What to do about members of a group that are in the way.
fn company(others: &[Member]) -> String {
    let names = |members: &[&Member]| {
        let names: Vec<&str> = members.iter().map(|member| member.device.as_str()).collect();
        some(&names)
    };
    let park = |member: &Member| format!("`driverctl set-override {} pci-stub`", member.device);
    let (unknown, known): (Vec<&Member>, Vec<&Member>) = others
        .iter()
        .partition(|member| member.standing == Standing::Unknown);
    let (join, stay): (Vec<&Member>, Vec<&Member>) = known.into_iter().partition(|member| member.can_join());
    let mut advice = Vec::new();
    if let [first, ..] = join[..] {
        let (names, park) = (names(&join), park(first));
        advice.push(format!(
            "lend {names} too, or park what stays on pci-stub ({park})"
        ));
    }
    if let [first, ..] = stay[..] {
        advice.push(format!("park {} on pci-stub ({})", names(&stay), park(first)));
    }
    if !unknown.is_empty() {
        let names = names(&unknown);
        advice.push(format!(
            "nothing is known of {names}, choose a device of another group"
        ));
    }
    advice.join("; ")
}

/// A message is one line that a person reads.
const MOST_NAMED: usize = 4;
