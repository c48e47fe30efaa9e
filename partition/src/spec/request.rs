//! Which CPUs and which memory nodes: counted, listed, or left to the plan.

use std::collections::BTreeSet;

use crate::error::SpecError;
use crate::inventory::parse_list;

/// How many CPUs, or which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuRequest {
    /// At least one.
    count: usize,
    /// Empty, or as many as are counted, each once.
    list: Vec<usize>,
}

/// The memory nodes that CPUs and memory come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRequest {
    /// Ascending; empty: every node of the host.
    nodes: BTreeSet<u32>,
    single: bool,
}

impl CpuRequest {
    /// The vCPUs that a partition can have: xAPIC ids are one byte, and 255 means all.
    pub const MOST: usize = 255;

    /// That many, chosen by the plan.
    pub fn count(count: usize) -> Result<Self, SpecError> {
        match count {
            1..=Self::MOST => Ok(Self {
                count,
                list: Vec::new(),
            }),
            _ => Err(SpecError::CpuCount {
                asked: count,
                most: Self::MOST,
            }),
        }
    }

    /// These, in this order. Refuses a CPU that is listed twice.
    pub fn list(cpus: impl IntoIterator<Item = usize>) -> Result<Self, SpecError> {
        let list: Vec<_> = cpus.into_iter().collect();
        let mut seen = BTreeSet::new();
        if let Some(&cpu) = list.iter().find(|cpu| !seen.insert(**cpu)) {
            return Err(SpecError::CpuTwice { cpu });
        }
        let Self { count, .. } = Self::count(list.len())?;
        Ok(Self { count, list })
    }

    /// How many vCPUs that makes.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.count
    }

    /// The CPUs that were listed, if any were.
    #[must_use]
    pub fn listed(&self) -> Option<&[usize]> {
        (!self.list.is_empty()).then_some(&self.list)
    }
}

impl std::str::FromStr for CpuRequest {
    type Err = String;

    /// A count (`2`) or a list with a comma or a dash (`2-5,8`, `3,`).
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse() {
            return Self::count(count).map_err(|refusal| refusal.to_string());
        }
        let list = parse_list(text).filter(|list| !list.is_empty()).ok_or_else(|| {
            format!("{text:?} is neither a number of CPUs nor a list such as 2-5,8 (a single CPU: 3,)")
        })?;
        Self::list(list).map_err(|refusal| refusal.to_string())
    }
}

impl NodeRequest {
    /// Any nodes; one, if one has enough.
    #[must_use]
    pub fn any() -> Self {
        Self {
            nodes: BTreeSet::new(),
            single: false,
        }
    }

    /// One node, whichever has enough.
    #[must_use]
    pub fn single() -> Self {
        Self {
            nodes: BTreeSet::new(),
            single: true,
        }
    }

    /// That node.
    #[must_use]
    pub fn node(node: u32) -> Self {
        Self {
            nodes: [node].into(),
            single: true,
        }
    }

    /// These nodes and no other; one of them, if one has enough.
    pub fn nodes(nodes: impl IntoIterator<Item = u32>) -> Result<Self, SpecError> {
        let nodes: BTreeSet<_> = nodes.into_iter().collect();
        match nodes.len() {
            0 => Err(SpecError::NoNodes),
            count => Ok(Self {
                nodes,
                single: count == 1,
            }),
        }
    }

    /// The nodes that were named, ascending, if any were.
    #[must_use]
    pub fn named(&self) -> Option<&BTreeSet<u32>> {
        (!self.nodes.is_empty()).then_some(&self.nodes)
    }

    /// Whether everything must come from one node.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// Whether a node may be used.
    #[must_use]
    pub fn admits(&self, node: u32) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }
}

impl std::str::FromStr for NodeRequest {
    type Err = String;

    /// `any`, `one`, or a list of nodes (`0`, `0-1,3`).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither \"any\" nor \"one\" nor a list of nodes such as 0-1,3");
        match text {
            "any" => Ok(Self::any()),
            "one" => Ok(Self::single()),
            list => {
                let nodes = parse_list(list).ok_or_else(wrong)?;
                Self::nodes(nodes.into_iter().map(|node| node as u32)).map_err(|_| wrong())
            }
        }
    }
}
