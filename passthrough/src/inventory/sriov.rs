//! Virtual functions: which function can have how many, which has how many now, and whose each is.

use std::path::Path;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use super::attribute::{count, link, names};

/// A function's part in SR-IOV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Sriov {
    /// How many virtual functions it can have; 0: it is no physical function.
    pub total: u16,
    /// How many it has at the moment.
    pub active: u16,
    /// The virtual functions that it has, in their order.
    pub virtuals: Vec<Bdf>,
    /// Whose virtual function it is, if it is one.
    pub physical: Option<Bdf>,
}

impl Sriov {
    pub(super) fn read(path: &Path) -> Sriov {
        let number = |name: &String| name.strip_prefix("virtfn")?.parse::<u16>().ok();
        let mut links: Vec<(u16, String)> = names(path)
            .into_iter()
            .filter_map(|name| Some((number(&name)?, name)))
            .collect();
        links.sort_unstable();
        let target = |name: &str| link(path, name)?.parse::<Bdf>().ok();
        Sriov {
            total: count(path, "sriov_totalvfs").unwrap_or(0),
            active: count(path, "sriov_numvfs").unwrap_or(0),
            virtuals: links.iter().filter_map(|(_, name)| target(name)).collect(),
            physical: target("physfn"),
        }
    }
}
