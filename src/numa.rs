//! The guest's NUMA nodes as its ACPI tables tell them, from the plan and the host's own distances. Pure.

use std::collections::BTreeMap;

use pellucid_image::{AcpiBoard, AcpiNodes};
use pellucid_partition::{Bdf, Inventory, Plan, PlanNode};
use pellucid_passthrough::Admitted;

use crate::offer::Offer;
use crate::topology::Topology;

/// Nodes, and which of them root ports and root buses are near to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numa {
    pub(crate) nodes: AcpiNodes,
    pub(crate) ports: BTreeMap<Bdf, u32>,
    pub(crate) roots: BTreeMap<u8, u32>,
}

impl Numa {
    /// What a server with this plan and these devices is told; nothing if it has one node.
    pub(crate) fn of(
        plan: &Plan,
        host: &Inventory,
        (topology, offers): (&Topology, &[Offer]),
    ) -> Option<Self> {
        let nodes = plan.nodes();
        if nodes.len() < 2 {
            return None;
        }
        let (mut ports, mut roots) = (BTreeMap::new(), BTreeMap::new());
        for (offer, place) in offers.iter().zip(topology.places()) {
            let on_host = offer
                .admitted()
                .map(Admitted::function)
                .and_then(|function| function.place.numa_node);
            let guest = on_host.and_then(|on_host| guest_node(nodes, on_host));
            if let Some(node) = guest {
                roots.entry(topology.root_of(place.bus())).or_insert(node);
            }
            let port = topology.path(place.bus()).first().copied();
            if let (Some(node), Some(port)) = (guest, port) {
                ports.entry(port).or_insert(node);
            }
        }
        let distances = |from: usize| (0..nodes.len()).map(move |to| distance(host, (nodes, from, to)));
        let of_cpu = |vcpu| {
            nodes
                .iter()
                .position(|node| node.vcpus.contains(&vcpu))
                .unwrap_or(0) as u32
        };
        let nodes = AcpiNodes {
            cpus: (0..plan.vcpus()).map(of_cpu).collect(),
            memory: plan.layout().ram().to_vec(),
            distances: (0..nodes.len()).map(|from| distances(from).collect()).collect(),
        };
        Some(Self { nodes, ports, roots })
    }

    /// Has the tables tell it.
    pub(crate) fn tell(self, tables: &mut AcpiBoard) {
        for port in &mut tables.root_ports {
            port.node = self.ports.get(&port.address).copied();
        }
        for root in &mut tables.root_buses {
            root.node = self.roots.get(&root.bus).copied();
        }
        tables.nodes = Some(self.nodes);
    }
}

/// The guest's node that the host's node `id` backs.
fn guest_node(nodes: &[PlanNode], id: u32) -> Option<u32> {
    nodes
        .iter()
        .position(|node| node.host == Some(id))
        .map(|node| node as u32)
}

/// How far apart the host's nodes are that back two of the guest's; a common distance where the host does not say.
fn distance(host: &Inventory, (nodes, from, to): (&[PlanNode], usize, usize)) -> u8 {
    if from == to {
        return HERE;
    }
    let place = |node: usize| host.nodes.iter().position(|of| Some(of.id) == nodes[node].host);
    let said = place(from)
        .zip(place(to))
        .and_then(|(from, to)| host.nodes.get(from)?.distances.get(to).copied());
    said.and_then(|said| u8::try_from(said).ok())
        .filter(|said| *said > HERE)
        .unwrap_or(ELSEWHERE)
}

const HERE: u8 = 10;
const ELSEWHERE: u8 = 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use super::*;

    /// A host of two nodes of four CPUs and 8 GiB, as sysfs shows it.
    fn host(root: &std::path::Path, distances: [&str; 2]) -> Inventory {
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "proc/meminfo",
            "MemTotal: 16777216 kB\nMemAvailable: 16000000 kB\n",
        );
        write(
            "proc/self/status",
            "CapEff:	000001ffffffffff
Cpus_allowed_list:	0-7
Mems_allowed_list:	0-1
",
        );
        write("proc/self/cgroup", "0::/\n");
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write(
            "proc/cpuinfo",
            "address sizes : 46 bits physical, 48 bits virtual\n",
        );
        write("sys/devices/system/cpu/online", "0-7\n");
        write("sys/devices/system/cpu/isolated", "\n");
        write("sys/devices/system/node/online", "0-1\n");
        for cpu in 0..8 {
            let base = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            write(&format!("{base}/core_id"), &format!("{cpu}\n"));
            write(&format!("{base}/physical_package_id"), &format!("{}\n", cpu / 4));
            write(&format!("{base}/thread_siblings_list"), &format!("{cpu}\n"));
        }
        for (node, distance) in distances.into_iter().enumerate() {
            let base = format!("sys/devices/system/node/node{node}");
            write(&format!("{base}/cpulist"), ["0-3\n", "4-7\n"][node]);
            write(&format!("{base}/distance"), distance);
            write(
                &format!("{base}/meminfo"),
                &format!("Node {node} MemTotal: 8388608 kB\nNode {node} MemFree: 8000000 kB\n"),
            );
        }
        Inventory::survey_at(root).unwrap()
    }

    fn numa(distances: [&str; 2], spec: pellucid_partition::PartitionSpec) -> Option<Numa> {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path(), distances);
        let plan = Plan::fit(&host, &spec).unwrap();
        Numa::of(&plan, &host, (&Topology::default(), &[]))
    }

    fn spec(cpus: usize, gibibytes: u64) -> pellucid_partition::PartitionSpec {
        pellucid_partition::PartitionSpec::new("db1", cpus, gibibytes << 30)
            .unwrap()
            .dedicated()
    }

    #[test]
    fn a_server_on_two_nodes_is_told_of_both_and_how_far_they_are_apart() {
        let told = numa(["10 17\n", "28 10\n"], spec(6, 12)).unwrap().nodes;
        assert_eq!(told.distances, [[10, 17], [28, 10]]);
        assert_eq!(told.cpus.len(), 6);
        assert!(told.cpus.contains(&0) && told.cpus.contains(&1), "{told:?}");
        let of = |node| {
            told.memory
                .iter()
                .filter(move |range| range.node == node)
                .map(|range| range.end - range.start)
        };
        assert_eq!(of(0).chain(of(1)).sum::<u64>(), 12 << 30);
        assert!(of(0).sum::<u64>() > 0 && of(1).sum::<u64>() > 0);
    }

    #[test]
    fn distances_that_make_no_sense_are_replaced() {
        for strange in [
            ["", ""],
            ["10 10\n", "10 10\n"],
            ["10 999\n", "0 10\n"],
            ["10\n", "10\n"],
        ] {
            let told = numa(strange, spec(6, 12)).unwrap().nodes;
            assert_eq!(told.distances, [[10, 20], [20, 10]], "{strange:?}");
        }
    }

    #[test]
    fn a_server_on_one_node_is_told_of_none() {
        assert_eq!(numa(["10 20\n", "20 10\n"], spec(2, 2)), None);
    }
}
