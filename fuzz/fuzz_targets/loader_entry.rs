//! A boot loader entry: the first line is the file's name, the rest its content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pellucid_image::{LoaderEntry, compare_versions};

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let name = String::from_utf8_lossy(&bytes[..end]);
    let Some(entry) = LoaderEntry::parse(&name, &bytes[end..]) else {
        return;
    };
    assert!(!entry.command_line().contains(['\n', '\r', '\0']));
    let version = entry.version.unwrap_or_default();
    assert_eq!(
        compare_versions(&version, &entry.id),
        compare_versions(&entry.id, &version).reverse()
    );
});
