//! Captures with odd parts: bridges that no board can have, sizes that make no sense.

use super::*;

#[test]
fn bridges_that_no_board_can_have_are_refused() {
    let host = Host::new();
    for (bridges, nvme) in [
        (vec![("0000:00:1c.4", 0, 0)], "0000:00:04.0"),
        (vec![("0000:00:1c.4", 9, 3)], "0000:09:00.0"),
        (vec![("0000:00:1f.0", 1, 1)], "0000:01:00.0"),
        (vec![("0000:00:00.0", 1, 1)], "0000:01:00.0"),
        (vec![("0000:00:1c.4", 2, 2)], "0000:01:00.0"),
        (vec![("0000:40:1c.4", 1, 1)], "0000:01:00.0"),
        (vec![("0001:00:1c.4", 1, 1)], "0000:01:00.0"),
        (
            vec![("0000:00:1c.4", 1, 2), ("0000:01:00.0", 3, 3)],
            "0000:03:00.0",
        ),
        (
            vec![("0000:00:1c.4", 1, 2), ("0000:01:00.0", 1, 2)],
            "0000:01:01.0",
        ),
    ] {
        let place = Place {
            bridges,
            nvme,
            ..plain()
        };
        let refusal = host.judged(host.elsewhere(&place), &[CARD, NVME]).err().unwrap();
        assert!(matches!(refusal, TopologyError::Bridge { .. }), "{refusal}");
    }
    let mut captured = host.elsewhere(&plain());
    let at = bdf("0000:00:1c.4");
    captured
        .pci
        .functions
        .get_mut(&at)
        .unwrap()
        .bridge
        .as_mut()
        .unwrap()
        .express = Some(7);
    let refusal = host.judged(captured, &[NVME]).err().unwrap().to_string();
    assert!(refusal.contains("no PCI Express port"), "{refusal}");
}

#[test]
fn a_bus_that_two_ports_lead_to_is_refused() {
    let host = Host::new();
    let mut captured = host.elsewhere(&plain());
    // The card is behind a port of its own, which says that the same buses are behind it.
    let mut port = captured.pci.functions[&bdf("0000:00:1c.4")].clone();
    port.bridge.as_mut().unwrap().subordinate = 2;
    captured.pci.functions.insert(bdf("0000:00:1d.0"), port);
    let mut card = captured.pci.functions.remove(&bdf("0000:00:1f.6")).unwrap();
    card.upstream = vec![bdf("0000:00:1d.0")];
    captured.pci.functions.insert(bdf("0000:01:00.1"), card);
    captured
        .nics
        .values_mut()
        .for_each(|nic| nic.pci = Some(bdf("0000:01:00.1")));
    let refusal = host.judged(captured, &[CARD, NVME]).err().unwrap().to_string();
    assert!(refusal.contains("also behind another port"), "{refusal}");
}

#[test]
fn sizes_are_those_that_the_firmware_told_and_odd_ones_are_none() {
    let host = Twin::empty();
    let mut captured = Twin::empty();
    let sizes = |captured: &Twin| {
        let machine = Machine::new(captured.clone(), &host);
        (machine.vcpus(), machine.memory())
    };
    assert_eq!(sizes(&captured), (None, None));
    captured.memory.nodes = vec![pellucid_twin::MemoryNode {
        id: 0,
        total: (1 << 30) - 4096,
        distances: Vec::new(),
    }];
    captured.cpus.threads = vec![thread(0)];
    assert_eq!(sizes(&captured), (Some(1), Some(1 << 30)));
    let ram = |start, end| pellucid_twin::Range {
        start,
        end,
        depth: 0,
        name: "System RAM".to_owned(),
    };
    captured.memory.firmware = vec![ram(0, 0x9_ffff), ram(0x10_0000, 0x7fff_ffff)];
    assert_eq!(sizes(&captured).1, Some(2 << 30));
    captured.memory.firmware = vec![ram(0, u64::MAX), ram(9, 3)];
    assert_eq!(sizes(&captured).1, None);
}

#[test]
fn cores_have_their_threads_where_that_goes_up() {
    let threads = |cores: &[(i32, i32)], vcpus| {
        let mut captured = Twin::empty();
        let threads = cores.iter().enumerate();
        let thread = |(id, (package, core)): (usize, &(i32, i32))| Thread {
            package: *package,
            core: *core,
            ..thread(id)
        };
        captured.cpus.threads = threads.map(thread).collect();
        Machine::new(captured, &Twin::empty()).threads_per_core(vcpus)
    };
    // Linux numbers the second threads after all first ones.
    let two = [(0, 0), (0, 1), (0, 0), (0, 1)];
    assert_eq!((threads(&two, 4), threads(&two, 2), threads(&two, 3)), (2, 2, 1));
    assert_eq!(threads(&[(0, 0), (1, 0)], 2), 1, "cores of two packages");
    assert_eq!(threads(&[(0, 0), (0, 0), (0, 1)], 4), 1, "one core has less");
    assert_eq!(threads(&[(0, 0); 3], 3), 1, "no guest has three");
    assert_eq!(threads(&[], 4), 1);
}
