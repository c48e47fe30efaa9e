//! The guest-physical map as others rely on it: written down it never changes, and what must stay unused is left alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::ops::Range;
use std::sync::OnceLock;

use pellucid_partition::{Inventory, Layout, LayoutError, NodeRequest, PageSize, PartitionSpec, Plan, Reach};
use proptest::prelude::*;

#[path = "fixture/mod.rs"]
mod fixture;
use fixture::{GIB, Host, MIB};

/// A host with four nodes of 64 GiB in 1 GiB pages each, and CPUs that address 52 bits.
fn host() -> &'static Inventory {
    static HOST: OnceLock<Inventory> = OnceLock::new();
    HOST.get_or_init(survey)
}

fn survey() -> Inventory {
    let host = Host::one_socket();
    host.write("sys/devices/system/node/online", "0-3\n");
    host.write(
        "proc/cpuinfo",
        "address sizes\t: 52 bits physical, 57 bits virtual\n",
    );
    for node in 0..4 {
        host.node(node, &node.to_string(), (256 * GIB, 64 * GIB), (32_768, 64));
    }
    host.survey()
}

/// The map of a partition in pages of that size.
fn map(memory: u64, pages: PageSize, reach: &Reach) -> Result<Layout, LayoutError> {
    let spec = PartitionSpec::new("map", 1, memory)
        .unwrap()
        .with_pages(pages)
        .unwrap();
    match Plan::fit(host(), &spec.within(reach.clone())) {
        Ok(plan) => Ok(plan.layout().clone()),
        Err(pellucid_partition::PlanError::Layout(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    }
}

/// What an Intel IOMMU of that width reports, one that keeps its interrupt window to itself.
fn iova(bits: u8) -> Reach {
    Reach::iova([0..=0xfedf_ffff, 0xfef0_0000..=(1 << bits) - 1]).unwrap()
}

#[test]
fn the_map_written_down_is_what_it_always_was() {
    let plain = Layout::new(4 * GIB, 39).unwrap();
    assert_eq!(
        serde_json::to_string(&plain).unwrap(),
        concat!(
            r#"{"version":1,"ram":[{"start":0,"end":3221225472,"node":0},{"start":4294967296,"end":5368709120,"node":0}],"#,
            r#""mmio32":{"start":3221225472,"end":3758096384},"mmio64":{"start":274877906944,"end":549755813888},"#,
            r#""address_bits":39}"#
        )
    );
    let reach = iova(48).without(
        "the direct region of device 0000:00:02.0",
        0x8b80_0000..0x9000_0000,
    );
    let holed = map(128 * GIB, PageSize::Size1G, &reach).unwrap();
    assert_eq!(
        serde_json::to_string(&holed).unwrap(),
        concat!(
            r#"{"version":1,"ram":[{"start":0,"end":2147483648,"node":0},{"start":4294967296,"end":70866960384,"node":0},"#,
            r#"{"start":70866960384,"end":139586437120,"node":1}],"#,
            r#""mmio32":{"start":3221225472,"end":3758096384},"mmio64":{"start":140737488355328,"end":281474976710656},"#,
            r#""address_bits":48}"#
        )
    );
    for layout in [plain, holed] {
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
    }
}

#[test]
fn a_map_from_elsewhere_is_read_only_if_it_could_be_one() {
    let good = serde_json::to_value(Layout::new(4 * GIB, 39).unwrap()).unwrap();
    let refused = |path: &str, value: serde_json::Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        serde_json::from_value::<Layout>(bad).unwrap_err().to_string()
    };
    let end = |address: u64| serde_json::json!(address);
    assert!(refused("/version", end(2)).contains("version 2; this library reads version 1"));
    assert!(refused("/address_bits", end(36)).contains("39 to 52"));
    assert!(refused("/ram", serde_json::json!([])).contains("without RAM at address 0"));
    assert!(refused("/ram/0/start", end(2 * MIB)).contains("without RAM at address 0"));
    assert!(refused("/ram/0/end", end(4096)).contains("2 MiB"));
    assert!(refused("/ram/0/end", end(3 * GIB + 2 * MIB)).contains("device hole"));
    assert!(refused("/ram/0/node", end(1)).contains("not in order"));
    assert!(refused("/ram/1/start", end(2 * GIB)).contains("device hole"));
    assert!(refused("/mmio32/end", end(4 * GIB)).contains("32-bit BAR window"));
    assert!(refused("/mmio64/start", end(5 * GIB - 1)).contains("64-bit BAR window"));
    assert!(refused("/mmio64/end", end(1 << 40)).contains("64-bit BAR window"));
    let mut more = good.clone();
    more["more"] = end(1);
    assert!(serde_json::from_value::<Layout>(more).is_err());
}

#[test]
fn the_window_above_is_the_upper_half_of_what_the_iommu_reaches() {
    for bits in [39, 48] {
        let layout = map(8 * GIB, PageSize::Size2M, &iova(bits)).unwrap();
        assert_eq!(layout.mmio64(), 1 << (bits - 1)..1 << bits);
        assert_eq!((layout.mmio32(), layout.address_bits()), (Layout::MMIO32, bits));
    }
}

#[test]
fn an_iommu_that_reaches_further_than_the_cpu_is_not_followed() {
    let spec = PartitionSpec::new("map", 1, GIB).unwrap().within(iova(48));
    let plan = Plan::fit(&Host::one_socket().survey(), &spec).unwrap();
    assert_eq!(plan.layout().address_bits(), 46, "46 bits physical");
}

#[test]
fn interrupt_addresses_are_reserved_without_being_said() {
    for reach in [Reach::default(), Reach::bits(48).unwrap(), iova(39)] {
        let msi = reach.reserved().iter().find(|hole| hole.start == 0xfee0_0000);
        assert_eq!(msi.map(|hole| hole.end), Some(0xfef0_0000));
    }
}

#[test]
fn ram_goes_around_what_is_reserved_below_and_above_4_gib() {
    let reach = iova(40)
        .without("graphics", 0x8b80_0000..0x8fa0_0000)
        .without("HyperTransport", 0x1_8000_0000..0x1_8020_0000);
    let layout = map(8 * GIB, PageSize::Size2M, &reach).unwrap();
    let ram: Vec<_> = layout.ram().iter().map(|range| range.start..range.end).collect();
    let holes = 0x8fa0_0000 - 0x8b80_0000 + 0x20_0000;
    assert_eq!(
        ram,
        [
            0..0x8b80_0000,
            0x8fa0_0000..0xc000_0000,
            0x1_0000_0000..0x1_8000_0000,
            0x1_8020_0000..0x1_0000_0000 + 5 * GIB + holes,
        ]
    );
    assert_eq!(
        layout.ram_below(),
        0x8b80_0000,
        "what a boot loader may use ends at the hole"
    );
}

#[test]
fn a_hole_at_the_bottom_is_refused_by_name() {
    let reach = iova(39).without("the direct region of device 0000:00:1f.0", 0x100_0000..0x110_0000);
    let refusal = map(GIB, PageSize::Size4K, &reach).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "the direct region of device 0000:00:1f.0 at 0x1000000..0x1100000 leaves no place for RAM at the bottom; do not lend the device that it belongs to"
    );
    assert!(
        map(16 * MIB, PageSize::Size4K, &reach).is_ok(),
        "it lies above all RAM"
    );
}

#[test]
fn a_window_shrinks_to_its_largest_free_piece_and_is_refused_by_name_if_none_is_large_enough() {
    let reach = iova(40).without("HyperTransport", 0xfd_0000_0000..0x100_0000_0000);
    let layout = map(GIB, PageSize::Size4K, &reach).unwrap();
    assert_eq!(layout.mmio64(), 0x80_0000_0000..0xfd_0000_0000);
    let split = iova(39).without("stolen", 0xc800_0000..0xc840_0000);
    let layout = map(GIB, PageSize::Size4K, &split).unwrap();
    assert_eq!(layout.mmio32(), 0xc840_0000..0xe000_0000);
    let none = iova(39).without("stolen", 0xc100_0000..0xdf00_0000);
    let refusal = map(GIB, PageSize::Size4K, &none).unwrap_err().to_string();
    assert!(
        refusal.starts_with("stolen at 0xc1000000..0xdf000000 leaves no place for 32-bit BAR window"),
        "{refusal}"
    );
}

#[test]
fn gaps_between_the_ranges_of_an_iommu_are_reserved() {
    let reach = Reach::iova([0..=0x7fff_ffff, 0x1_0000_0000..=(1 << 39) - 1]).unwrap();
    let refusal = map(GIB, PageSize::Size4K, &reach).unwrap_err().to_string();
    assert!(
        refusal.starts_with("what the IOMMU does not translate at 0x80000000..0x100000000"),
        "{refusal}"
    );
    assert_eq!(
        Reach::iova([0..=u64::from(u32::MAX)]).unwrap_err(),
        LayoutError::AddressBits { bits: 32 }
    );
    assert!(Reach::iova([]).is_err());
    assert_eq!(Reach::iova([0..=u64::MAX]).unwrap().address_bits(), 52);
}

#[test]
fn what_two_reach_is_less_than_what_either_reaches() {
    let one = iova(48).without("a", 0x1000..0x2000);
    let other = iova(39).without("b", 0x3000..0x4000);
    let both = one.and(&other);
    assert_eq!(both.address_bits(), 39);
    let names: Vec<_> = both.reserved().iter().map(|hole| hole.name.as_str()).collect();
    assert!(names.contains(&"a") && names.contains(&"b"), "{names:?}");
}

#[test]
fn each_node_of_the_guest_has_ranges_of_its_own_in_order() {
    let spec = PartitionSpec::new("map", 4, 6 * GIB)
        .unwrap()
        .with_pages(PageSize::Size1G)
        .unwrap();
    let spec = spec.with_nodes(NodeRequest::nodes([1, 2]).unwrap());
    let mut host = host().clone();
    (host.nodes[1].free_1g, host.nodes[2].free_1g) = (2, 5);
    let plan = Plan::fit(&host, &spec).unwrap();
    let ram: Vec<_> = plan.ram().collect();
    let of = |nodes: [u32; 2]| nodes.map(Some);
    let [first, second] = of([1, 2]);
    let large = plan.nodes()[0].memory;
    assert_eq!(
        plan.nodes().iter().map(|node| node.host).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(large, GIB, "5 GiB come from the node with the most");
    assert_eq!(
        ram,
        [
            (0..GIB, first),
            (GIB..3 * GIB, second),
            (4 * GIB..7 * GIB, second)
        ]
    );
    assert_eq!(
        plan.layout().ram_below(),
        3 * GIB,
        "adjacent ranges are one to a boot loader"
    );
}

proptest! {
    #[test]
    fn whatever_is_reserved_nothing_lies_on_it(
        gibibytes in 1u64..200,
        bits in prop_oneof![Just(39u8), Just(48u8)],
        holes in prop::collection::vec((0u64..1 << 39, 1u64..1 << 33), 0..6),
        large in any::<bool>(),
    ) {
        let name = |index: usize| format!("hole {index}");
        let reach = holes.iter().enumerate().fold(iova(bits), |reach, (index, (start, size))| {
            reach.without(&name(index), *start..start + size)
        });
        let pages = if large { PageSize::Size1G } else { PageSize::Size2M };
        match map(gibibytes << 30, pages, &reach) {
            Ok(layout) => {
                prop_assert_eq!(layout.memory(), gibibytes << 30);
                let mut used: Vec<Range<u64>> = layout.ram().iter().map(|r| r.start..r.end).collect();
                prop_assert!(used.iter().all(|r| r.start % pages.bytes() == 0 && r.end % pages.bytes() == 0));
                used.extend([layout.mmio32(), layout.mmio64()]);
                let hit = used.iter().find(|range| {
                    reach.reserved().iter().any(|hole| hole.start < range.end && range.start < hole.end)
                });
                prop_assert_eq!(hit, None);
                used.sort_by_key(|range| range.start);
                prop_assert!(used.windows(2).all(|pair| pair[0].end <= pair[1].start), "{used:?}");
            }
            Err(LayoutError::Reserved { by, start, end, .. }) => {
                let known = reach.reserved().iter().any(|hole| (&hole.name, hole.start, hole.end) == (&by, start, end));
                prop_assert!(known || by == "what is out of reach");
            }
            Err(LayoutError::TooLarge { memory, most, .. }) => prop_assert!(memory > most),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
