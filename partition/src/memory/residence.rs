//! Where guest memory really is: what the kernel says of its pages, not what was asked for.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};

use vm_memory::GuestMemoryBackend;

use super::GuestMemory;
use crate::error::PopulateError;
use crate::sys::ram::RamRegion;

/// The pages of guest memory as this process's `smaps` and `numa_maps` show them. All in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Residence {
    /// Mapped.
    pub size: u64,
    /// In memory.
    pub resident: u64,
    /// Of what is resident, mapped by entries of 2 MiB or 1 GiB.
    pub huge: u64,
    /// Of what is resident, what the kernel may not take away: locked, or from the hugetlb pool.
    pub locked: u64,
    /// On each node; empty where the kernel keeps no account of nodes.
    pub nodes: BTreeMap<u32, u64>,
    /// What lies on another node than the one that it is bound to.
    pub misplaced: Vec<Misplaced>,
}

/// A part of guest memory with pages from another node than it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// The part, in guest addresses.
    pub part: Range<u64>,
    /// The node that it is bound to.
    pub node: u32,
    /// Bytes on each other node.
    pub found: BTreeMap<u32, u64>,
}

impl GuestMemory {
    /// Asks the kernel where all regions are. Walks their page tables: fast for huge pages, some milliseconds per GiB for others.
    pub fn residence(&self) -> Result<Residence, PopulateError> {
        let table = self.as_vm_memory();
        let account = Account::read()?;
        let mut sum = Residence::default();
        table.iter().for_each(|region| sum += account.of(region));
        Ok(sum)
    }
}

impl RamRegion {
    /// Asks the kernel where this region is.
    pub fn residence(&self) -> Result<Residence, PopulateError> {
        Ok(Account::read()?.of(self))
    }
}

impl Residence {
    /// Refuses pages on a wrong node, the first of them.
    pub fn well_placed(&self) -> Result<(), PopulateError> {
        let Some(Misplaced { part, node, found }) = self.misplaced.first() else {
            return Ok(());
        };
        let found: Vec<_> = found
            .iter()
            .map(|(node, bytes)| format!("node {node} ({bytes:#x} bytes)"))
            .collect();
        Err(PopulateError::Misplaced {
            guest: part.start,
            size: part.end - part.start,
            node: *node,
            found: found.join(" and "),
        })
    }
}

impl AddAssign for Residence {
    fn add_assign(&mut self, other: Self) {
        self.size += other.size;
        self.resident += other.resident;
        self.huge += other.huge;
        self.locked += other.locked;
        for (node, bytes) in other.nodes {
            *self.nodes.entry(node).or_default() += bytes;
        }
        self.misplaced.extend(other.misplaced);
    }
}

/// The kernel's account of all mappings of this process at one moment.
struct Account {
    smaps: String,
    numa_maps: String,
}

impl Account {
    fn read() -> Result<Self, PopulateError> {
        let text = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| PopulateError::Proof {
                path: path.into(),
                source,
            })
        };
        let numa_maps = match text("/proc/self/numa_maps") {
            // A kernel without NUMA has none, and binds nothing either.
            Err(PopulateError::Proof { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            other => other?,
        };
        Ok(Self {
            smaps: text("/proc/self/smaps")?,
            numa_maps,
        })
    }

    fn of(&self, region: &RamRegion) -> Residence {
        let spec = region.spec();
        let host = region.mapping().as_ptr() as u64;
        let mut residence = pages(&self.smaps, &(host..host + spec.size));
        residence.size = spec.size;
        residence.nodes = on_nodes(&self.numa_maps, &(host..host + spec.size));
        for (part, node) in &spec.nodes {
            let place = |guest: u64| host + (guest - spec.guest.0);
            let mut found = on_nodes(&self.numa_maps, &(place(part.start)..place(part.end)));
            found.remove(node);
            if !found.is_empty() {
                let (part, node) = (part.clone(), *node);
                residence.misplaced.push(Misplaced { part, node, found });
            }
        }
        residence
    }
}

/// What `smaps` says of the mappings that begin in `range`. A region's memory file is mapped nowhere else, so none reaches out of it.
fn pages(smaps: &str, range: &Range<u64>) -> Residence {
    let mut sum = Residence::default();
    let (mut inside, mut resident) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(key) = key.strip_suffix(':') else {
            let start = key.split_once('-').map(|(start, _)| start);
            inside = start.and_then(hexadecimal).is_some_and(|s| range.contains(&s));
            resident = 0;
            continue;
        };
        if !inside {
            continue;
        }
        let bytes = value.parse::<u64>().unwrap_or(0) << 10;
        match key {
            "Rss" => resident += bytes,
            "ShmemPmdMapped" | "FilePmdMapped" => sum.huge += bytes,
            "Shared_Hugetlb" | "Private_Hugetlb" => {
                resident += bytes;
                sum.huge += bytes;
            }
            // The last line of a mapping.
            "VmFlags" => {
                let kept = std::iter::once(value)
                    .chain(words)
                    .any(|flag| matches!(flag, "lo" | "ht"));
                sum.locked += if kept { resident } else { 0 };
                sum.resident += resident;
            }
            _ => {}
        }
    }
    sum
}

/// What `numa_maps` says of the mappings that begin in `range`: bytes by node. A policy of its own makes a mapping of its own.
fn on_nodes(numa_maps: &str, range: &Range<u64>) -> BTreeMap<u32, u64> {
    let mut nodes = BTreeMap::new();
    for line in numa_maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let start = words.next().and_then(hexadecimal);
        if !start.is_some_and(|start| range.contains(&start)) {
            continue;
        }
        let page = words
            .clone()
            .find_map(|word| word.strip_prefix("kernelpagesize_kB=")?.parse::<u64>().ok())
            .unwrap_or(4);
        for word in words {
            let pair = word.strip_prefix('N').and_then(|pair| pair.split_once('='));
            let pair = pair.and_then(|(node, count)| Some((node.parse().ok()?, count.parse::<u64>().ok()?)));
            if let Some((node, count)) = pair {
                *nodes.entry(node).or_default() += count * (page << 10);
            }
        }
    }
    nodes
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;
    const SMAPS: &str = "\
7f0000000000-7f0004000000 rw-s 00000000 00:01 1025 /memfd:db1 (deleted)
Size:              65536 kB
Rss:               65536 kB
ShmemPmdMapped:    61440 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Locked:                0 kB
VmFlags: rd wr sh mr mw me ms lo sd hg
7f0004000000-7f0008000000 rw-s 00000000 00:01 1026 /memfd:db1 (deleted)
Rss:                4096 kB
ShmemPmdMapped:        0 kB
VmFlags: rd wr sh mr mw me ms sd hg
7f0040000000-7f0080000000 rw-s 00000000 00:0f 1027 /memfd:db2 (deleted)
Rss:                   0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb: 1048576 kB
VmFlags: rd wr sh mr mw me ms de ht sd
7f0080000000-7f0080001000 rw-p 00000000 00:00 0
Rss:                   4 kB
VmFlags: rd wr mr mw me ac sd
";
    const NUMA_MAPS: &str = "\
7f0000000000 bind:0 file=/memfd:db1\\040(deleted) dirty=16384 N0=16384 kernelpagesize_kB=4
7f0004000000 bind:1 file=/memfd:db1\\040(deleted) dirty=1024 N0=256 N1=768 kernelpagesize_kB=4
7f0040000000 default file=/memfd:db2\\040(deleted) huge dirty=1 N1=1 kernelpagesize_kB=1048576
7f0080000000 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4
";

    #[test]
    fn only_the_mappings_of_the_region_count() {
        let first = pages(SMAPS, &(0x7f00_0000_0000..0x7f00_0400_0000));
        assert_eq!(
            (first.resident, first.huge, first.locked),
            (64 * MIB, 60 * MIB, 64 * MIB)
        );
        let both = pages(SMAPS, &(0x7f00_0000_0000..0x7f00_0800_0000));
        assert_eq!(
            (both.resident, both.huge, both.locked),
            (68 * MIB, 60 * MIB, 64 * MIB)
        );
        assert_eq!(pages(SMAPS, &(0x1000..0x2000)), Residence::default());
    }

    #[test]
    fn pool_pages_are_resident_huge_and_locked_by_nature() {
        let pool = pages(SMAPS, &(0x7f00_4000_0000..0x7f00_8000_0000));
        assert_eq!(
            (pool.resident, pool.huge, pool.locked),
            (1 << 30, 1 << 30, 1 << 30)
        );
    }

    #[test]
    fn pages_are_counted_on_their_nodes_in_their_size() {
        let on = |start, end| on_nodes(NUMA_MAPS, &(start..end)).into_iter().collect::<Vec<_>>();
        assert_eq!(on(0x7f00_0000_0000, 0x7f00_0400_0000), [(0, 64 * MIB)]);
        assert_eq!(
            on(0x7f00_0000_0000, 0x7f00_0800_0000),
            [(0, 65 * MIB), (1, 3 * MIB)]
        );
        assert_eq!(on(0x7f00_4000_0000, 0x7f00_8000_0000), [(1, 1 << 30)]);
        assert_eq!(on(0x1000, 0x2000), []);
    }

    #[test]
    fn a_page_on_a_wrong_node_is_refused_by_part_and_node() {
        let misplaced = Misplaced {
            part: 0x400_0000..0x800_0000,
            node: 1,
            found: BTreeMap::from([(0, MIB)]),
        };
        let mut residence = Residence::default();
        assert!(residence.well_placed().is_ok());
        residence += Residence {
            misplaced: vec![misplaced],
            ..Residence::default()
        };
        assert_eq!(
            residence.well_placed().unwrap_err().to_string(),
            "guest memory at 0x4000000, 0x4000000 bytes, is bound to node 1 but lies on node 0 (0x100000 bytes); free memory on node 1 and start again"
        );
    }

    #[test]
    fn text_that_is_no_account_is_no_memory() {
        let all = 0..u64::MAX;
        for text in [
            "",
            "\n\n",
            "7f-",
            "VmFlags:",
            "zz-zz rw-s\nRss: 4 kB\nVmFlags: lo\n",
            "7f00 N=1 N1= Nx=4 N1=x",
        ] {
            assert_eq!(pages(text, &all).resident, 0, "{text:?}");
            assert!(on_nodes(text, &all).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_region_split_between_nodes_is_judged_part_by_part() {
        let spec = crate::memory::RegionSpec::new(vm_memory::GuestAddress(16 * MIB), 8 * MIB);
        let mapped = RamRegion::map("judged", &spec).unwrap();
        let host = mapped.mapping().as_ptr() as u64;
        let split = crate::memory::RegionSpec {
            nodes: vec![(16 * MIB..20 * MIB, 0), (20 * MIB..24 * MIB, 1)],
            ..spec
        };
        let file = vm_memory::FileOffset::from_arc(Arc::clone(mapped.file()), 0);
        let region = RamRegion::new(split, file, Arc::clone(mapped.mapping()));
        let account = |second: &str| Account {
            smaps: String::new(),
            numa_maps: format!(
                "{host:x} bind:0 N0=1024 kernelpagesize_kB=4\n{:x} bind:1 {second} kernelpagesize_kB=4\n",
                host + 4 * MIB
            ),
        };
        assert_eq!(account("N1=1024").of(&region).misplaced, []);
        let wrong = account("N0=24 N1=1000").of(&region);
        assert_eq!(wrong.nodes, BTreeMap::from([(0, 1048 << 12), (1, 1000 << 12)]));
        let [misplaced] = wrong.misplaced.as_slice() else {
            panic!("{wrong:?}");
        };
        assert_eq!((misplaced.node, &misplaced.part), (1, &(20 * MIB..24 * MIB)));
        assert_eq!(misplaced.found, BTreeMap::from([(0, 24 << 12)]));
    }
}
