//! Port devices whose registers are one byte wide: an access of any size is its bytes, in ascending order.

/// Fills `data` with the registers from `offset` on.
pub(crate) fn read_bytes(offset: u16, data: &mut [u8], mut register: impl FnMut(u16) -> u8) {
    for (byte, at) in data.iter_mut().zip(offset..=u16::MAX) {
        *byte = register(at);
    }
}

/// Hands `data` to the registers from `offset` on.
pub(crate) fn write_bytes(offset: u16, data: &[u8], mut register: impl FnMut(u16, u8)) {
    for (&byte, at) in data.iter().zip(offset..=u16::MAX) {
        register(at, byte);
    }
}
