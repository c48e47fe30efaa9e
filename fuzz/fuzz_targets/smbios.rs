//! A host's SMBIOS table, behind a sound entry point: `_SM3_` if the first byte is even, `_SM_` if it is odd.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_image::{EntryPoint, FreeText, Smbios, SmbiosShare};
use pellucid_partition::Layout;

static SHARE: LazyLock<SmbiosShare> = LazyLock::new(|| {
    let mut share = SmbiosShare::new(&Layout::new(5 << 30, 39).expect("5 GiB fit"), 4);
    let at = |text: &str| text.parse().expect("an address");
    share.devices.insert(at("00:19.0"), at("00:19.0"));
    share.devices.insert(at("3b:00.1"), at("02:00.1"));
    share
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, table)) = bytes.split_first() else {
        return;
    };
    let _ = EntryPoint::parse(table);
    let entry_point = if first % 2 == 0 { modern(table) } else { legacy(table) };
    let Ok(host) = Smbios::parse(&entry_point, table) else {
        return;
    };
    let Ok(guest) = host.for_guest(&SHARE, FreeText::Kept) else {
        return;
    };
    EntryPoint::parse(guest.anchor()).expect("a guest's entry point is sound");
    let handles: BTreeSet<u16> = guest.structures().map(|s| s.handle()).collect();
    assert_eq!(handles.len(), guest.structures().count());
    assert_eq!(guest.structures().last().map(|s| s.kind()), Some(127));
    let walked: usize = guest
        .structures()
        .map(|s| s.formatted().len() + s.strings().map(|text| text.len() + 1).sum::<usize>() + 1)
        .sum();
    let bare = guest.structures().filter(|s| s.strings().next().is_none()).count();
    assert_eq!(walked + bare, guest.table().len());
});

fn modern(table: &[u8]) -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    bytes.extend((table.len() as u32).to_le_bytes());
    bytes.extend([0; 8]);
    bytes[5] = missing(&bytes);
    bytes
}

fn legacy(table: &[u8]) -> Vec<u8> {
    let mut bytes = b"_SM_\0\x1f\x02\x08\x80\0\0\0\0\0\0\0_DMI_\0".to_vec();
    bytes.extend((table.len() as u16).to_le_bytes());
    bytes.extend([0; 7]);
    bytes[21] = missing(&bytes[16..]);
    bytes[4] = missing(&bytes);
    bytes
}

fn missing(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}
