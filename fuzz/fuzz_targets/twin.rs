//! The file of a machine's identity; a line feed and a second file may follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pellucid_twin::{BootEntry, GuestShare, Scheme, Twin};

fuzz_target!(|bytes: &[u8]| {
    let _ = BootEntry::parse(bytes);
    let mut parts = bytes.split(|&byte| byte == b'\n');
    let mut next = || Twin::from_json(parts.next()?).ok();
    let Some(before) = next() else {
        return;
    };
    assert!(before.diff(&before, None).differences.is_empty());
    let json = before.to_json().expect("every twin has a form in JSON");
    assert_eq!(
        Twin::from_json(json.as_bytes()).expect("what was written is read"),
        before
    );
    let after = next().unwrap_or_else(Twin::empty);
    for version in [238, 247, 252, 257] {
        for (nic, names) in before.names(Scheme::of_version(version).expect("a known scheme")) {
            let kept = before.nics[&nic].name_origin == Some(2);
            assert!(
                kept || names
                    .chosen
                    .is_none_or(|name| name.len() <= 15 && !name.contains('/'))
            );
        }
    }
    let smbios = before.smbios.entry_point.clone().zip(before.smbios.table.clone());
    let guest = before.as_guest(&GuestShare {
        devices: before.pci.functions.keys().map(|bdf| (*bdf, *bdf)).collect(),
        smbios: smbios.map(|(entry_point, table)| [entry_point.0, table.0]),
        ..GuestShare::default()
    });
    assert!(guest.diff(&guest, None).differences.is_empty());
    let _ = before.diff(&guest, None);
    let pairs = before.recognize(&after);
    let (shown, assumed) = after.shown_as(&before, &pairs);
    assert!(assumed.len() <= pairs.len() && shown.nics.len() >= after.nics.len());
    let diff = before.diff(&after, None);
    let page = diff.html(&before, &after, ["before", "after"]);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    assert_eq!(page.matches("<ul").count(), page.matches("</ul>").count());
});
