//! The memory that a guest is told of: one array, one device per node, one range per range of RAM; made as the host's are.

use pellucid_partition::RamRange;

use super::draft::Draft;
use super::structure::Structure;

/// Whether an array is system memory: not flash, not a cache.
pub(crate) fn is_system_memory(array: &Structure<'_>) -> bool {
    array.byte(0x05) == Some(SYSTEM_MEMORY)
}

/// Whether a device is in its socket.
pub(crate) fn is_populated(device: &Structure<'_>) -> bool {
    device.word(0x0c).is_some_and(|size| size != 0)
}

/// The array `host` with room for `bytes` in `devices`.
pub(crate) fn array(host: &Structure<'_>, handle: u16, (bytes, devices): (u64, usize)) -> Draft {
    let mut draft = Draft::without_strings(host, handle, &[], &[]);
    let kibibytes = u32::try_from(bytes >> 10)
        .ok()
        .filter(|size| *size < EXTENDED_CAPACITY);
    let length = if kibibytes.is_none() { 0x17 } else { 0x0f };
    draft.reach(draft.length().clamp(length, 0x17) as u8);
    draft.put(0x07, &kibibytes.unwrap_or(EXTENDED_CAPACITY).to_le_bytes());
    draft.put(0x0b, &NO_ERROR_RECORD.to_le_bytes());
    draft.put(0x0d, &u16::try_from(devices).unwrap_or(u16::MAX).to_le_bytes());
    draft.put(0x0f, &if kibibytes.is_none() { bytes } else { 0 }.to_le_bytes());
    draft
}

/// A device like `host` of `bytes` in the array `array`; serial number and asset tag stay with the host.
pub(crate) fn device(host: &Structure<'_>, handle: u16, (array, bytes): (u16, u64)) -> Draft {
    let mut draft = Draft::without_strings(host, handle, &STRINGS, &SECRETS);
    let mebibytes = u16::try_from(bytes >> 20)
        .ok()
        .filter(|size| *size < EXTENDED_SIZE);
    let length = if mebibytes.is_none() { 0x20 } else { 0x15 };
    draft.reach(draft.length().clamp(length, KNOWN_DEVICE) as u8);
    draft.put(0x04, &array.to_le_bytes());
    draft.put(0x06, &NO_ERROR_RECORD.to_le_bytes());
    draft.put(0x0c, &mebibytes.unwrap_or(EXTENDED_SIZE).to_le_bytes());
    // It is no member of a set.
    draft.put(0x0f, &[0]);
    let extended = if mebibytes.is_none() {
        (bytes >> 20) as u32
    } else {
        0
    };
    draft.put(0x1c, &extended.to_le_bytes());
    for (offset, size) in [(0x34, 0), (0x3c, bytes), (0x44, 0), (0x4c, 0)] {
        draft.put(offset, &u64::to_le_bytes(size));
    }
    draft
}

/// The range `ram` of the array `array`, in a structure like `host`.
pub(crate) fn mapped_range(host: &Structure<'_>, handle: u16, (array, ram): (u16, &RamRange)) -> Draft {
    let mut draft = Draft::without_strings(host, handle, &[], &[]);
    let last = u32::try_from((ram.end >> 10).saturating_sub(1))
        .ok()
        .filter(|last| *last < EXTENDED_ADDRESS);
    let length = if last.is_none() { 0x1f } else { 0x0f };
    draft.reach(draft.length().clamp(length, 0x1f) as u8);
    let first = last.map_or(EXTENDED_ADDRESS, |_| (ram.start >> 10) as u32);
    draft.put(0x04, &first.to_le_bytes());
    draft.put(0x08, &last.unwrap_or(EXTENDED_ADDRESS).to_le_bytes());
    draft.put(0x0c, &array.to_le_bytes());
    draft.put(0x0e, &[1]);
    let (start, end) = if last.is_none() {
        (ram.start, ram.end - 1)
    } else {
        (0, 0)
    };
    draft.put(0x0f, &start.to_le_bytes());
    draft.put(0x17, &end.to_le_bytes());
    draft
}

/// Device and bank locator, manufacturer, part number, firmware version.
const STRINGS: [usize; 5] = [0x10, 0x11, 0x17, 0x1a, 0x2b];
/// Serial number, asset tag.
const SECRETS: [usize; 2] = [0x18, 0x19];
/// The length in SMBIOS 3.7; what a later version adds may be strings.
const KNOWN_DEVICE: usize = 0x64;
const SYSTEM_MEMORY: u8 = 3;
const NO_ERROR_RECORD: u16 = 0xfffe;
/// Kibibytes from which on the capacity stands in its extended field.
const EXTENDED_CAPACITY: u32 = 0x8000_0000;
/// Mebibytes, in the same sense.
const EXTENDED_SIZE: u16 = 0x7fff;
/// Kibibytes, in the same sense.
const EXTENDED_ADDRESS: u32 = 0xffff_ffff;
