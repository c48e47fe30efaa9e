//! Initrds that are only looked into.

/// An archive, as `cpio -H newc` writes it, with an empty file of each name.
pub(crate) fn of_names(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names.iter().chain(&["TRAILER!!!"]) {
        let zeros = "00000000".repeat(11);
        bytes.extend(format!("070701{zeros}{:08x}00000000{name}\0", name.len() + 1).bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
