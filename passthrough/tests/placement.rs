//! Where BARs lie: the host's addresses where they fit, else anywhere that is right.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ops::Range;

use pellucid_partition::{Bdf, Layout};
use pellucid_passthrough::{
    Bar, BarKind, BarShape, Function, Ids, Placement, PlacementError, PlacementWindows,
};
use proptest::prelude::*;

fn windows() -> PlacementWindows {
    PlacementWindows::of(&Layout::new(1 << 30, 39).unwrap())
}

fn function(bdf: Bdf, port: Option<Bdf>, bars: Vec<Bar>) -> Function {
    let ids = Ids {
        vendor: 1,
        device: 2,
        class: 0x01_0802,
        revision: 0,
        subsystem: [0, 0],
    };
    Function {
        bars,
        upstream: port.into_iter().collect(),
        ..Function::bare(bdf, ids)
    }
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn memory64(index: u8, address: u64, size: u64, prefetchable: bool) -> Bar {
    Bar {
        index,
        kind: BarKind::Memory64 { prefetchable },
        address,
        size,
    }
}

#[test]
fn the_hosts_addresses_are_kept_where_they_fit() {
    let nvme = function(
        bdf("01:00.0"),
        Some(bdf("00:02.0")),
        vec![memory64(0, 0xc050_4000, 0x4000, false)],
    );
    let placement = Placement::fit(&windows(), &[&nvme]).unwrap();
    assert_eq!(placement.bars(nvme.bdf)[0].address, 0xc050_4000);
    let port = &placement.ports()[&bdf("00:02.0")];
    assert_eq!(
        (
            port.memory.clone(),
            port.prefetchable.is_empty(),
            port.io.is_empty()
        ),
        (0xc050_0000..0xc060_0000, true, true)
    );
}

#[test]
fn an_address_outside_the_guests_window_is_replaced() {
    let nvme = function(
        bdf("01:00.0"),
        Some(bdf("00:02.0")),
        vec![memory64(0, 0xfe60_0000, 0x4000, false)],
    );
    let placement = Placement::fit(&windows(), &[&nvme]).unwrap();
    assert_eq!(placement.bars(nvme.bdf)[0].address, 0xc000_0000);
}

#[test]
fn behind_a_port_only_prefetchable_memory_goes_above_four_gibibytes() {
    let bars = vec![memory64(0, 0, 0x4000, false), memory64(2, 0, 1 << 30, true)];
    let gpu = function(bdf("01:00.0"), Some(bdf("00:02.0")), bars);
    let placement = Placement::fit(&windows(), &[&gpu]).unwrap();
    let [low, high] = placement.bars(gpu.bdf) else {
        panic!("two BARs")
    };
    assert!(Layout::MMIO32.contains(&low.address));
    assert!(windows().memory64.contains(&high.address));
    assert_eq!(
        placement.ports()[&bdf("00:02.0")].prefetchable,
        high.address..high.address + (1 << 30)
    );
}

#[test]
fn a_bar_that_does_not_fit_is_refused_with_its_window() {
    let bar = Bar {
        index: 1,
        kind: BarKind::Memory32 { prefetchable: false },
        address: 0,
        size: 1 << 30,
    };
    let refusal = Placement::fit(&windows(), &[&function(bdf("01:00.0"), None, vec![bar])]).unwrap_err();
    let PlacementError::NoRoom {
        device, bar, window, ..
    } = &refusal;
    assert_eq!((*device, *bar, *window), (bdf("01:00.0"), 1, "32-bit memory"));
}

#[test]
fn two_devices_that_the_host_has_at_one_place_are_told_apart() {
    let one = function(
        bdf("01:00.0"),
        Some(bdf("00:02.0")),
        vec![memory64(0, 0xc000_0000, 0x4000, false)],
    );
    let two = function(
        bdf("02:00.0"),
        Some(bdf("00:03.0")),
        vec![memory64(0, 0xc000_8000, 0x4000, false)],
    );
    let placement = Placement::fit(&windows(), &[&one, &two]).unwrap();
    assert_eq!(placement.bars(one.bdf)[0].address, 0xc000_0000);
    assert_eq!(
        placement.bars(two.bdf)[0].address,
        0xc010_0000,
        "another megabyte, as ports' windows need"
    );
}

#[test]
fn two_devices_behind_a_switch_share_the_window_of_the_port_before_it() {
    let behind = |bus: u8, downstream: &str| {
        let mut function = function(
            Bdf::new(0, bus, 0, 0).unwrap(),
            None,
            vec![memory64(0, 0, 0x4000, false)],
        );
        function.upstream = vec![bdf("00:02.0"), bdf("01:00.0"), bdf(downstream)];
        function
    };
    let (one, two) = (behind(3, "02:00.0"), behind(4, "02:01.0"));
    let other = function(
        bdf("05:00.0"),
        Some(bdf("00:03.0")),
        vec![memory64(0, 0, 0x4000, false)],
    );
    let placement = Placement::fit(&windows(), &[&one, &other, &two]).unwrap();
    let memory = |port: &str| placement.ports()[&bdf(port)].memory.clone();
    let (left, right) = (memory("02:00.0"), memory("02:01.0"));
    assert_eq!((left.end, right.end - right.start), (right.start, 1 << 20));
    assert_eq!(
        (memory("00:02.0"), memory("01:00.0")),
        (left.start..right.end, left.start..right.end)
    );
    assert!(!overlap(&memory("00:02.0"), &memory("00:03.0")));
}

fn kind() -> impl Strategy<Value = (BarKind, u32)> {
    let prefetch = any::<bool>();
    prop_oneof![
        (Just(BarKind::Io), 2u32..8),
        prefetch.prop_flat_map(|prefetchable| (Just(BarKind::Memory32 { prefetchable }), 4u32..24)),
        prefetch.prop_flat_map(|prefetchable| (Just(BarKind::Memory64 { prefetchable }), 4u32..26)),
    ]
}

fn bar() -> impl Strategy<Value = Bar> {
    (kind(), 0u64..0x4000, any::<bool>()).prop_map(|((kind, bits), at, high)| {
        let size = 1u64 << bits;
        let base = match kind {
            BarKind::Io => 0,
            BarKind::Memory64 { prefetchable: true } if high => 0x40_0000_0000,
            _ => 0xbff0_0000,
        };
        let address = base + if kind == BarKind::Io { at * 4 } else { at << 14 };
        Bar {
            index: 0,
            kind,
            address: address / size * size,
            size,
        }
    })
}

fn functions() -> impl Strategy<Value = Vec<Function>> {
    let one = (0u8..6, proptest::collection::vec(bar(), 0..4));
    proptest::collection::vec(one, 1..8).prop_map(|all| {
        let mut functions = Vec::new();
        for (index, (port, mut bars)) in all.into_iter().enumerate() {
            bars.iter_mut()
                .enumerate()
                .for_each(|(number, bar)| bar.index = number as u8);
            let own = Bdf::new(0, port, index as u8, 0).unwrap();
            let mut function = function(own, None, bars);
            function.upstream = upstream(port);
            functions.push(function);
        }
        functions
    })
}

/// On the root bus, behind one of three ports of it, or behind one of two ports of a switch that is behind a fourth.
fn upstream(port: u8) -> Vec<Bdf> {
    match port {
        0 => Vec::new(),
        1..4 => vec![Bdf::new(0, 0, port, 0).unwrap()],
        _ => vec![bdf("00:04.0"), bdf("07:00.0"), Bdf::new(0, 8, port, 0).unwrap()],
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn range(shape: &BarShape) -> Range<u64> {
    shape.address..shape.address + shape.size
}

proptest! {
    #[test]
    fn every_placement_is_aligned_apart_and_inside_its_ports_windows(functions in functions()) {
        let windows = windows();
        let all: Vec<&Function> = functions.iter().collect();
        let Ok(placement) = Placement::fit(&windows, &all) else { return Ok(()) };
        let mut shapes: Vec<(bool, Range<u64>)> = Vec::new();
        for function in &functions {
            let placed = placement.bars(function.bdf);
            prop_assert_eq!(placed.len(), function.bars.len());
            for shape in placed {
                let own = range(shape);
                let io = shape.kind == BarKind::Io;
                prop_assert_eq!(shape.address % shape.size, 0);
                let inside = |window: &Range<u64>| window.start <= own.start && own.end <= window.end;
                match shape.kind {
                    BarKind::Io => prop_assert!(inside(&windows.io)),
                    BarKind::Memory32 { .. } => prop_assert!(inside(&windows.memory32)),
                    BarKind::Memory64 { .. } => prop_assert!(inside(&windows.memory32) || inside(&windows.memory64)),
                }
                for port in &function.upstream {
                    let port = &placement.ports()[port];
                    let window = match shape.kind {
                        BarKind::Io => &port.io,
                        kind if kind.prefetchable() => &port.prefetchable,
                        _ => &port.memory,
                    };
                    prop_assert!(inside(window), "{shape:?} outside {port:?}");
                }
                prop_assert!(shapes.iter().all(|(other_io, other)| *other_io != io || !overlap(other, &own)));
                shapes.push((io, own));
            }
        }
        // The ports of a switch are inside the one before it, which is checked above.
        let ports: Vec<_> = placement.ports().iter().filter(|(port, _)| port.bus() != 7).collect();
        for (at, (place, port)) in ports.iter().enumerate() {
            prop_assert_eq!((port.memory.start | port.memory.end | port.prefetchable.start | port.prefetchable.end) & 0xf_ffff, 0);
            prop_assert_eq!((port.io.start | port.io.end) & 0xfff, 0);
            prop_assert!(!overlap(&port.memory, &port.prefetchable) || port.memory.is_empty() || port.prefetchable.is_empty());
            for (elsewhere, other) in &ports[..at] {
                if (place.bus(), elsewhere.bus(), elsewhere.device()) == (8, 0, 4) {
                    continue;
                }
                let memory = [&port.memory, &port.prefetchable];
                let others = [&other.memory, &other.prefetchable];
                let clash = memory.iter().any(|one| others.iter().any(|two| !one.is_empty() && !two.is_empty() && overlap(one, two)));
                prop_assert!(!clash && (port.io.is_empty() || other.io.is_empty() || !overlap(&port.io, &other.io)));
            }
        }
    }
}
