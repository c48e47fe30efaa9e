//! Machines that nobody built: whatever a twin holds, it is compared, named and drawn.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use pellucid_passthrough::{Bar, BarKind, Bridge, Ids, Place};
use pellucid_twin::{
    BootEntry, ConfigSeen, Disk, Leaf, Nic, PciFunction, Scheme, Smbios, Thread, Twin, VirtualOf,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

/// Few addresses, so that they meet.
fn address() -> impl Strategy<Value = Bdf> {
    (0..2_u32, 0..3_u8, 0..10_u8).prop_map(|(domain, bus, devfn)| Bdf::of_devfn(domain, bus, devfn))
}

/// Few words, hostile ones among them.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        ".{0,20}",
        Just("0000:00:00".to_owned()),
        "[0-9]{1,11}"
    ]
}

fn ids() -> impl Strategy<Value = Ids> {
    let class = prop_oneof![Just(0x06_0400), Just(0x01_0802), Just(0x02_0000), any::<u32>()];
    (0..2_u16, 0..2_u16, class, 0..2_u8).prop_map(|(vendor, device, class, revision)| Ids {
        vendor,
        device,
        class,
        revision,
        subsystem: [0, 0],
    })
}

fn place() -> impl Strategy<Value = Place> {
    (of(word()), of(word()), of(any::<u32>()), of(0..3_u32)).prop_map(|(slot, label, index, acpi_index)| {
        Place {
            slot,
            label,
            index,
            acpi_index,
            numa_node: None,
            removable: None,
        }
    })
}

prop_compose! {
    fn function()(
        ids in ids(),
        place in place(),
        upstream in vec(address(), 0..4),
        bus in of(any::<u8>()),
        bar in of((0..9_u8, any::<u64>(), any::<u64>())),
        of_card in of((address(), any::<u32>())),
        (bytes, multifunction, serial) in (any::<u16>(), of(any::<bool>()), of(0..2_u64)),
        (ari, sun) in (any::<bool>(), of(any::<u32>())),
    ) -> PciFunction {
        PciFunction {
            upstream,
            place,
            bridge: bus.map(|secondary| Bridge { secondary, subordinate: 0, express: None }),
            bars: bar.map(|(index, address, size)| Bar { index, kind: BarKind::Io, address, size }).into_iter().collect(),
            virtual_of: of_card.map(|(physical, index)| VirtualOf { physical, index }),
            config: ConfigSeen { bytes, multifunction, standard: vec![bytes], extended: Vec::new(), serial },
            ari,
            sun,
            ..PciFunction::bare(ids)
        }
    }
}

prop_compose! {
    fn nic()(
        mac in word(),
        origins in (of(0..4_u32), of(0..5_u32)),
        kind in prop_oneof![Just(1_u32), Just(32_u32), any::<u32>()],
        words in (of(word()), of(word())),
        ports in (any::<u32>(), any::<u32>()),
        pci in of(address()),
        stacked in any::<bool>(),
    ) -> Nic {
        Nic {
            mac,
            mac_origin: origins.0,
            name_origin: origins.1,
            kind,
            devtype: words.0,
            port_name: words.1,
            dev_port: ports.0,
            dev_id: ports.1,
            driver: None,
            pci,
            stacked,
        }
    }
}

prop_compose! {
    fn twin()(
        functions in btree_map(address(), function(), 0..12),
        slots in btree_map(word(), word(), 0..4),
        nics in btree_map(word(), nic(), 0..6),
        disks in btree_map(word(), (of(word()), of(word()), any::<u64>(), of(address())), 0..4),
        (threads, answers) in (vec((any::<usize>(), any::<i32>(), 0..3_i32), 0..4), vec((0..3_u32, any::<[u32; 4]>()), 0..4)),
        words in btree_set(word(), 0..4),
        entries in btree_map(any::<u16>(), word(), 0..3),
        (guest, efi, scheme) in (any::<bool>(), any::<bool>(), of(word())),
    ) -> Twin {
        let mut twin = Twin::empty();
        twin.pci.functions = functions;
        twin.pci.slots = slots;
        twin.nics = nics;
        let disk = |(model, serial, size, pci)| Disk { model, serial, size, pci, ..Disk::default() };
        twin.disks = disks.into_iter().map(|(name, parts)| (name, disk(parts))).collect();
        twin.cpus.threads = threads.into_iter().map(|(id, package, core)| Thread { id, package, core, node: 0 }).collect();
        twin.cpus.leaves = answers.into_iter().map(|(leaf, answer)| Leaf { leaf, subleaf: 0, answer }).collect();
        twin.smbios = Smbios {
            ids: words.iter().map(|word| (word.clone(), word.clone())).collect(),
            ..Smbios::default()
        };
        twin.cpus.flags = words;
        let entry = |title| BootEntry { title, ..BootEntry::default() };
        twin.firmware.entries = entries.into_iter().map(|(number, title)| (number, entry(title))).collect();
        (twin.firmware.efi, twin.origin.guest, twin.origin.naming_scheme) = (efi, guest, scheme);
        twin
    }
}

proptest! {
    #[test]
    fn no_machine_differs_from_itself(twin in twin()) {
        let diff = twin.diff(&twin.clone(), None);
        prop_assert!(diff.differences.is_empty(), "{:#?}", diff.differences);
        let again = Twin::from_json(twin.to_json().unwrap().as_bytes()).unwrap();
        prop_assert_eq!(again, twin);
    }

    #[test]
    fn any_two_are_compared_and_drawn(before in twin(), after in twin(), version in 238..260_u32) {
        let diff = before.diff(&after, Scheme::of_version(version));
        let page = diff.html(&before, &after, ["a", "b"]);
        prop_assert_eq!(page.matches("class=\"what\"").count(), before.pci.functions.len() + after.pci.functions.len());
        prop_assert_eq!(page.matches("<ul").count(), page.matches("</ul>").count());
        prop_assert!(diff.differences.is_sorted_by(|one, next| one.class >= next.class));
        // Where something is gone on the way there, it is new on the way back.
        let back = after.diff(&before, Some(diff.scheme));
        prop_assert_eq!(diff.differences.is_empty(), back.differences.is_empty());
    }

    #[test]
    fn whatever_is_recognized_is_there_and_is_one_thing(captured in twin(), here in twin()) {
        let pairs = captured.recognize(&here);
        let there: std::collections::BTreeSet<_> = pairs.values().collect();
        prop_assert_eq!(there.len(), pairs.len());
        for (own, before) in &pairs {
            prop_assert!(here.pci.functions.contains_key(own) && captured.pci.functions.contains_key(before));
        }
        let (shown, assumed) = here.shown_as(&captured, &pairs);
        prop_assert!(shown.nics.len() >= here.nics.len() && shown.disks.len() >= here.disks.len());
        prop_assert!(assumed.iter().all(|function| pairs.contains_key(function)));
        // A machine is itself, whatever its parts say.
        prop_assert!(captured.recognize(&captured).iter().all(|(own, before)| own == before));
    }

    #[test]
    fn names_are_fit_for_the_kernel_and_nobodys_twice(twin in twin(), version in 238..260_u32) {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (nic, names) in twin.names(Scheme::of_version(version).unwrap()) {
            let Some(chosen) = names.chosen else { continue };
            if twin.nics[&nic].name_origin == Some(2) {
                continue;
            }
            prop_assert!((1..=15).contains(&chosen.len()) && !chosen.contains('/'), "{}", chosen);
            prop_assert!(given.insert(chosen.clone(), nic).is_none(), "{} twice", chosen);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..200), text in ".{0,100}") {
        let _ = Twin::from_json(&bytes);
        let _ = Twin::from_json(text.as_bytes());
        let _ = BootEntry::parse(&bytes);
    }
}
