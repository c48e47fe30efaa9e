//! The CPUID table as a pure function: an AMD and an Intel host by heart, and what must hold for any host and topology.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use pellucid_vcpu::cpuid::{CpuidShape, shape};
use pellucid_vcpu::{Hypervisor, Topology};
use proptest::prelude::*;

type Leaf = (u32, u32, [u32; 4]);

fn table(leaves: &[Leaf]) -> Vec<kvm_cpuid_entry2> {
    let entry = |&(function, index, [eax, ebx, ecx, edx]): &Leaf| kvm_cpuid_entry2 {
        function,
        index,
        flags: if INDEXED.contains(&function) {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    leaves.iter().map(entry).collect()
}

fn leaf(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> Option<[u32; 4]> {
    let entry = table
        .iter()
        .find(|e| e.function == function && e.index == index)?;
    Some([entry.eax, entry.ebx, entry.ecx, entry.edx])
}

fn policy(topology: Topology) -> CpuidShape {
    CpuidShape {
        hypervisor: Hypervisor::Visible,
        topology,
        tsc_deadline: true,
        brand: BRAND,
    }
}

#[test]
fn an_amd_host_with_two_flat_vcpus() {
    let table = shape(&table(&AMD), &policy(Topology::flat(2)), 1);
    let expected: &[Leaf] = &[
        (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x00b0_0f21, 0x0102_0800, 0x8120_2000, 0x178b_fbff]),
        (4, 0, [0; 4]),
        (7, 0, [1, 0x0180_0002, 0x104, 0x2000_0000]),
        (0xb, 0, [0, 1, 0x100, 1]),
        (0xb, 1, [1, 2, 0x201, 1]),
        (0xb, 2, [0, 0, 2, 1]),
        (0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        (0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        (
            0x8000_0000,
            0,
            [0x8000_0026, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        ),
        (
            0x8000_0001,
            0,
            [0x00b0_0f21, 0x4000_0000, 0x0040_0393, 0x23d3_fbff],
        ),
        (0x8000_0002, 0, BRAND[0]),
        (0x8000_0003, 0, BRAND[1]),
        (0x8000_0004, 0, BRAND[2]),
        (0x8000_0008, 0, [0x3030, 0x5002_0005, 0x1001, 0]),
        (0x8000_001d, 0, [0x121, 0x02c0_003f, 0x3f, 0]),
        (0x8000_001d, 3, [0x4163, 0x03c0_003f, 0x7fff, 1]),
        (0x8000_001d, 4, [0; 4]),
        (0x8000_001e, 0, [1, 1, 0, 0]),
    ];
    for &(function, index, registers) in expected {
        let got = leaf(&table, function, index);
        assert_eq!(got, Some(registers), "{function:#x}.{index}: {got:x?}");
    }
    assert_eq!(
        table.len(),
        expected.len(),
        "0x80000026 is left out, nothing is added"
    );
}

#[test]
fn an_amd_core_with_two_threads_shares_its_first_caches() {
    let topology = Topology::with_threads(8, 2).unwrap();
    let table = shape(&table(&AMD), &policy(topology), 5);
    let sharing = |index| (leaf(&table, 0x8000_001d, index).unwrap()[0] >> 14 & 0xfff) + 1;
    assert_eq!(
        (sharing(0), sharing(3)),
        (2, 2),
        "level 3 is shared by two on this host, and so here"
    );
    assert_eq!(leaf(&table, 0x8000_001e, 0).unwrap(), [5, 2 | 1 << 8, 0, 0]);
    assert_eq!(leaf(&table, 0x8000_0008, 0).unwrap()[2], 0x3007);
    assert_eq!(leaf(&table, 0xb, 0).unwrap(), [1, 2, 0x100, 5]);
    assert_eq!(leaf(&table, 0xb, 1).unwrap(), [3, 8, 0x201, 5]);
}

#[test]
fn an_intel_host_with_four_cores_of_two_threads() {
    let topology = Topology::with_threads(6, 2).unwrap();
    let table = shape(&table(&INTEL), &policy(topology), 3);
    assert_eq!(leaf(&table, 1, 0).unwrap()[1], 3 << 24 | 8 << 16 | 0x800);
    // Levels 1 and 2: two threads; level 3: at most eight; four possible cores.
    assert_eq!(leaf(&table, 4, 0).unwrap()[0], 3 << 26 | 1 << 14 | 0x121);
    assert_eq!(leaf(&table, 4, 3).unwrap()[0], 3 << 26 | 7 << 14 | 0x163);
    assert_eq!(leaf(&table, 4, 4).unwrap(), [0; 4]);
    assert_eq!(leaf(&table, 0x1f, 1).unwrap(), [3, 6, 0x201, 3]);
    assert_eq!(
        leaf(&table, 0x8000_0002, 0).unwrap(),
        [1, 2, 3, 4],
        "a brand that KVM tells stays"
    );
    assert_eq!(
        leaf(&table, 0x8000_0008, 0).unwrap(),
        [0x3027, 0, 0, 0],
        "core counts here are AMD's"
    );
}

#[test]
fn one_vcpu_is_no_multiprocessor() {
    let table = shape(&table(&AMD), &policy(Topology::flat(1)), 0);
    assert_eq!(leaf(&table, 1, 0).unwrap()[3] >> 28 & 1, 0);
    assert_eq!(leaf(&table, 0x8000_0001, 0).unwrap()[2] & 2, 0);
    assert_eq!(leaf(&table, 0x8000_0008, 0).unwrap()[2] & 0xf0ff, 0);
}

#[test]
fn a_host_without_the_topology_leaf_gets_none() {
    let mut old = AMD.to_vec();
    old[0].2[0] = 7;
    let table = shape(&table(&old), &policy(Topology::flat(2)), 0);
    assert!(table.iter().all(|entry| entry.function != 0xb));
}

#[test]
fn a_hidden_hypervisor_leaves_no_trace_and_no_deadline_timer_is_invented() {
    let hidden = CpuidShape {
        hypervisor: Hypervisor::Hidden,
        tsc_deadline: false,
        ..policy(Topology::flat(2))
    };
    let table = shape(&table(&AMD), &hidden, 0);
    let features = leaf(&table, 1, 0).unwrap()[2];
    assert_eq!((features >> 31, features >> 24 & 1), (0, 0));
    assert!(
        table
            .iter()
            .all(|entry| !(0x4000_0000..0x5000_0000).contains(&entry.function))
    );
}

proptest! {
    #[test]
    fn any_table_is_shaped_without_panic_and_keeps_what_is_not_topology(
        leaves in prop::collection::vec((any::<u32>(), 0u32..8, any::<[u32; 4]>()), 0..60),
        vcpus in 1u32..=255, threads in 0u32..3, pick in any::<prop::sample::Index>(),
    ) {
        let Ok(topology) = Topology::with_threads(vcpus, 1 << threads) else { return Ok(()) };
        let mut host = AMD.to_vec();
        host.extend(leaves.into_iter().filter(|leaf| !AMD.iter().any(|known| known.0 == leaf.0)));
        let shaped = shape(&table(&host), &policy(topology), pick.index(vcpus as usize) as u32);
        for (function, index, registers) in host {
            if !SHAPED.contains(&function) {
                prop_assert_eq!(leaf(&shaped, function, index), Some(registers));
            }
        }
    }

    #[test]
    fn ids_are_distinct_and_every_level_agrees_on_them(vcpus in 1u32..=255, threads in 0u32..3, intel: bool) {
        let Ok(topology) = Topology::with_threads(vcpus, 1 << threads) else { return Ok(()) };
        let host = if intel { table(&INTEL) } else { table(&AMD) };
        let mut cores = std::collections::BTreeMap::<u32, u32>::new();
        for vcpu in 0..vcpus {
            let shaped = shape(&host, &policy(topology), vcpu);
            let [shift, _, _, id] = leaf(&shaped, 0xb, 0).unwrap();
            let [package_shift, logical, ..] = leaf(&shaped, 0xb, 1).unwrap();
            prop_assert_eq!((id, leaf(&shaped, 1, 0).unwrap()[1] >> 24, logical), (vcpu, vcpu, vcpus));
            prop_assert_eq!(id >> package_shift, 0, "one package");
            *cores.entry(id >> shift).or_default() += 1;
            if let Some([eax, ebx, ..]) = leaf(&shaped, 0x8000_001e, 0) {
                prop_assert_eq!((eax, ebx & 0xff), (id, id >> shift & 0xff));
            }
        }
        prop_assert!(cores.len() as u32 == topology.cores() && cores.values().all(|&n| n == 1 << threads));
    }

    #[test]
    fn no_cache_is_shared_by_more_than_the_host_shares(vcpus in 1u32..=255, intel: bool) {
        let (host, function) = if intel { (table(&INTEL), 4) } else { (table(&AMD), 0x8000_001d) };
        let shaped = shape(&host, &policy(Topology::flat(vcpus)), 0);
        let sharing = |table: &[kvm_cpuid_entry2], index| leaf(table, function, index).unwrap()[0] >> 14 & 0xfff;
        for index in [0, 3] {
            prop_assert!(sharing(&shaped, index) <= sharing(&host, index));
            prop_assert!(sharing(&shaped, index) < vcpus.next_power_of_two());
        }
    }
}

const BRAND: [[u32; 4]; 3] = [[0x2044_4d41, 0x4359_5045, 0, 0], [5, 6, 7, 8], [9, 10, 11, 12]];
const INDEXED: [u32; 5] = [4, 7, 0xb, 0x1f, 0x8000_001d];
const SHAPED: [u32; 12] = [
    1,
    4,
    0xb,
    0x1f,
    0x8000_0001,
    0x8000_0002,
    0x8000_0003,
    0x8000_0004,
    0x8000_0008,
    0x8000_001d,
    0x8000_001e,
    0x8000_0026,
];

/// From a real AMD host's KVM, its brand string missing as there; leaf 0x80000026 as a later KVM may have it.
const AMD: [Leaf; 18] = [
    (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (1, 0, [0x00b0_0f21, 0x3f10_0800, 0x0000_2000, 0x078b_fbff]),
    (4, 0, [0; 4]),
    (7, 0, [1, 0x0180_0002, 0x104, 0x2000_0000]),
    (0xb, 0, [0, 0, 0, 1]),
    (0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
    (0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
    (
        0x8000_0000,
        0,
        [0x8000_0026, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    ),
    (
        0x8000_0001,
        0,
        [0x00b0_0f21, 0x4000_0000, 0x0040_0393, 0x23d3_fbff],
    ),
    (0x8000_0002, 0, [0; 4]),
    (0x8000_0003, 0, [0; 4]),
    (0x8000_0004, 0, [0; 4]),
    (0x8000_0008, 0, [0x3030, 0x5002_0005, 0x7001, 0]),
    (0x8000_001d, 0, [0x121, 0x02c0_003f, 0x3f, 0]),
    (0x8000_001d, 3, [0x4163, 0x03c0_003f, 0x7fff, 1]),
    (0x8000_001d, 4, [0; 4]),
    (0x8000_001e, 0, [0; 4]),
    (0x8000_0026, 0, [1, 2, 3, 4]),
];

/// The shape of an Intel server with 32 threads behind its level 3 cache.
const INTEL: [Leaf; 10] = [
    (0, 0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    (1, 0, [0x806f8, 0x5520_0800, 0x7ffa_fbff, 0xbfeb_fbff]),
    (4, 0, [0xfc00_4121, 0x02c0_003f, 0x3f, 0]),
    (4, 1, [0xfc00_4122, 0x01c0_003f, 0x3f, 0]),
    (4, 3, [0xfc07_c163, 0x0380_003f, 0xffff, 4]),
    (4, 4, [0; 4]),
    (0xb, 0, [0; 4]),
    (0x8000_0000, 0, [0x8000_0008, 0, 0, 0]),
    (0x8000_0002, 0, [1, 2, 3, 4]),
    (0x8000_0008, 0, [0x3027, 0, 0, 0]),
];
