//! Little-endian numbers in bytes that are known to be long enough.

pub(crate) fn half(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

pub(crate) fn long(raw: &[u8], at: usize) -> u32 {
    u32::from(half(raw, at)) | u32::from(half(raw, at + 2)) << 16
}

pub(crate) fn quad(raw: &[u8], at: usize) -> u64 {
    u64::from(long(raw, at)) | u64::from(long(raw, at + 4)) << 32
}
