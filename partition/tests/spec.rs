//! What makes no sense on any host cannot be asked.
#![allow(clippy::unwrap_used, reason = "a test")]

use pellucid_partition::{
    CpuMode, CpuRequest, LayoutError, NodeRequest, PageSize, PartitionSpec, Siblings, SpecError,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn a_name_that_is_no_file_name_is_refused_with_the_rule() {
    let long = "x".repeat(65);
    for name in ["", ".", "-db", "a/b", "a b", "ä", "../db", "db\0", &long] {
        let refusal = PartitionSpec::new(name, 1, GIB).unwrap_err();
        let name = name.to_owned();
        assert_eq!(refusal, SpecError::Name { name });
        assert!(refusal.to_string().contains("1 to 64 letters"), "{refusal}");
    }
    for name in ["a", "9", "db-1_x.y", &"x".repeat(64)] {
        assert_eq!(PartitionSpec::new(name, 1, GIB).unwrap().name(), name);
    }
}

#[test]
fn no_vcpus_or_more_than_apic_ids_carry_are_refused() {
    for asked in [0, 256] {
        let refusal = CpuRequest::count(asked).unwrap_err();
        assert_eq!(refusal, SpecError::CpuCount { asked, most: 255 });
        assert_eq!(CpuRequest::list(0..asked).unwrap_err(), refusal);
        assert_eq!(PartitionSpec::new("db1", asked, GIB).unwrap_err(), refusal);
    }
    assert_eq!(CpuRequest::list(0..255).unwrap().vcpus(), 255);
}

#[test]
fn a_cpu_listed_twice_is_refused_by_number() {
    assert_eq!(
        CpuRequest::list([1, 2, 2]).unwrap_err(),
        SpecError::CpuTwice { cpu: 2 }
    );
}

#[test]
fn memory_that_no_map_takes_is_refused_in_the_maps_words() {
    let refusal = PartitionSpec::new("db1", 1, 4 * MIB).unwrap_err();
    assert!(matches!(
        refusal,
        SpecError::Memory(LayoutError::TooSmall { least, .. }) if least == 16 * MIB
    ));
    assert_eq!(
        refusal.to_string(),
        "4 MiB of memory is too little; give the partition at least 16 MiB"
    );
    let uneven = PartitionSpec::new("db1", 1, 64 * MIB + 1).unwrap_err();
    assert!(uneven.to_string().contains("not whole 2 MiB pages"), "{uneven}");
}

#[test]
fn memory_that_is_not_whole_pages_of_its_size_is_refused_with_the_sizes_around_it() {
    let spec = PartitionSpec::new("db1", 1, GIB + 512 * MIB).unwrap();
    assert!(spec.clone().with_pages(PageSize::Size2M).is_ok());
    let refusal = spec.with_pages(PageSize::Size1G).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "1536 MiB of memory are not whole 1g pages; 1 GiB or 2 GiB would be"
    );
}

#[test]
fn what_was_asked_can_be_read_back() {
    let cpus = CpuRequest::list([3, 1]).unwrap();
    let spec = PartitionSpec::on("db1", cpus.clone(), GIB).unwrap();
    assert_eq!(
        (spec.mode(), spec.siblings()),
        (CpuMode::Shared, Siblings::Withheld)
    );
    assert!(!spec.is_locked() && spec.reach().is_none());
    let spec = spec.dedicated().with_siblings(Siblings::Shared).locked();
    assert_eq!(
        (spec.mode(), spec.siblings()),
        (CpuMode::Dedicated, Siblings::Shared)
    );
    assert!(spec.is_locked());
    assert_eq!(
        (spec.cpus(), spec.memory(), spec.pages()),
        (&cpus, GIB, PageSize::Size4K)
    );
    assert_eq!(spec.cpus().listed(), Some(&[3, 1][..]));
}

#[test]
fn a_request_for_cpus_is_a_count_or_a_list() {
    let read = |text: &str| text.parse::<CpuRequest>();
    assert_eq!(read("2"), Ok(CpuRequest::count(2).unwrap()));
    assert_eq!(read("3,"), Ok(CpuRequest::list([3]).unwrap()));
    assert_eq!(read("2-5,8"), Ok(CpuRequest::list([2, 3, 4, 5, 8]).unwrap()));
    assert_eq!(read("2,2"), Ok(CpuRequest::list([2]).unwrap()));
    for text in ["", "two", "5-2", "1,x", "-1", ",", "0-99999"] {
        let refusal = read(text).unwrap_err();
        assert!(refusal.contains("a list such as 2-5,8"), "{text:?}: {refusal}");
    }
    assert_eq!(read("0").unwrap_err(), "0 vCPUs: a partition has 1 to 255");
}

#[test]
fn a_request_for_nodes_is_any_one_or_a_list() {
    let read = |text: &str| text.parse::<NodeRequest>();
    assert_eq!(read("any"), Ok(NodeRequest::any()));
    assert_eq!(read("one"), Ok(NodeRequest::single()));
    assert_eq!(read("2"), Ok(NodeRequest::node(2)));
    assert_eq!(read("0-1,3"), Ok(NodeRequest::nodes([0, 1, 3]).unwrap()));
    assert_eq!(NodeRequest::nodes([]).unwrap_err(), SpecError::NoNodes);
    for text in ["", "some", "1-0", ","] {
        let refusal = read(text).unwrap_err();
        assert!(
            refusal.contains("a list of nodes such as 0-1,3"),
            "{text:?}: {refusal}"
        );
    }
}

#[test]
fn one_named_node_is_a_single_one_and_several_are_not() {
    assert!(NodeRequest::node(1).is_single() && NodeRequest::nodes([1]).unwrap().is_single());
    let several = NodeRequest::nodes([0, 2]).unwrap();
    assert!(!several.is_single() && several.admits(2) && !several.admits(1));
    assert!(NodeRequest::any().admits(7) && NodeRequest::single().admits(7));
}
