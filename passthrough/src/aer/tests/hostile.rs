//! Error registers of a function that says anything, as one that another process serves may, and of a port that does.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Any configuration space of some length, most of them with AER somewhere behind the first extended capability, or at the very end.
fn space() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        Just(0),
        Just(0x100),
        Just(0x1000),
        (0..0x400_usize).prop_map(|words| words * 4)
    ];
    let place = prop_oneof![
        Just(0x100),
        Just(0xffc),
        (0x40..0x400_u16).prop_map(|words| words * 4)
    ];
    (length, place, any::<u64>()).prop_flat_map(|(length, place, aimed)| {
        vec(any::<u8>(), length).prop_map(move |mut space| {
            let mut set = |at: usize, value: u32| {
                if let Some(word) = space.get_mut(at..at + 4) {
                    word.copy_from_slice(&value.to_le_bytes());
                }
            };
            if aimed % 8 != 0 {
                set(0x34, 0x40);
                set(0x40, 0x10);
                set(0x04, 0x10 << 16);
                set(0x100, u32::from(place) << 20 | 0x1_0003);
                set(place.into(), 0x1_0001);
            }
            space
        })
    })
}

proptest! {
    #[test]
    fn whatever_a_function_and_its_port_say_is_a_report(
        spaces in vec(space(), 1..6),
        port in space(),
        gone in any::<bool>(),
    ) {
        let host = Host::new();
        let script = Arc::new(Script::of(spaces[0].clone()));
        fs::write(host.folder("0000:00:01.0").join("config"), &port).unwrap();
        let mut reporter = begun(&script, host.function());
        for space in spaces {
            script.turn(space);
            let report = reporter.report();
            prop_assert!(!report.to_string().is_empty());
            prop_assert!(report.kinds.len() <= 32, "one status register: {:?}", report.kinds);
            // The same registers, of which nothing is new unless it could not be cleared.
            reporter.report();
        }
        if gone {
            script.vanish();
            reporter.report();
        }
    }

    #[test]
    fn corrected_errors_of_any_registers_are_counted_once_each(spaces in vec(space(), 1..6)) {
        let script = Script::of(spaces[0].clone());
        let Some(mut registers) = Registers::begin(&script) else { return Ok(()) };
        for space in spaces {
            script.turn(space);
            if let Some(counts) = registers.take_corrected(&script) {
                prop_assert!(counts.total <= 32 && counts.kinds.values().sum::<u64>() == counts.total);
            }
        }
    }
}
