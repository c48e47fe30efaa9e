//! The slots of a machine as systemd looks them up: by the beginning of a function's address.

use std::collections::BTreeMap;

use pellucid_partition::Bdf;

use crate::pci::Pci;

/// Numbers of slots by the address that they are at.
pub(super) struct Slots<'t>(BTreeMap<&'t str, u32>);

impl<'t> Slots<'t> {
    pub(super) fn of(pci: &'t Pci) -> Slots<'t> {
        let numbered = pci
            .slots
            .iter()
            .filter_map(|(name, address)| Some((address.as_str(), slot_number(name)?)));
        Slots(numbered.collect())
    }

    /// The number of the slot whose address this function's begins with.
    pub(super) fn at(&self, bdf: Bdf) -> Option<u32> {
        let address = bdf.to_string();
        (1..=address.len())
            .rev()
            .find_map(|length| self.0.get(address.get(..length)?).copied())
    }
}

/// A slot's name as a number above 0, as C reads integers: `2`, `0x10`, `010`. None: it has letters, as in `2-1`.
fn slot_number(name: &str) -> Option<u32> {
    let (digits, radix) = match name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if name.len() > 1 && name.starts_with('0') => (name, 8),
        None => (name, 10),
    };
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    plain
        .then(|| u32::from_str_radix(digits, radix).ok())?
        .filter(|number| *number > 0)
}
