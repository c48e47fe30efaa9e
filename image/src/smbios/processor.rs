//! The processor that a guest is told of: the host's, with the server's cores and threads.

use super::draft::Draft;
use super::share::SmbiosShare;
use super::structure::Structure;

/// Where a processor refers to its caches: levels 1, 2 and 3.
pub(crate) const CACHES: [usize; 3] = [0x1a, 0x1c, 0x1e];

/// Whether a processor is in its socket.
pub(crate) fn is_populated(processor: &Structure<'_>) -> bool {
    processor
        .byte(0x18)
        .is_some_and(|status| status & SOCKET_POPULATED != 0)
}

/// `host` with the cores of `share`; serial number and asset tag stay with the host. `cache` knows the guest's handles.
pub(crate) fn processor(
    host: &Structure<'_>,
    handle: u16,
    share: &SmbiosShare,
    cache: impl Fn(u16) -> Option<u16>,
) -> Draft {
    let mut draft = Draft::without_strings(host, handle, &STRINGS, &SECRETS);
    draft.reach(draft.length().min(KNOWN) as u8);
    for offset in CACHES {
        let guest = host.word(offset).and_then(&cache).unwrap_or(NO_CACHE);
        draft.put(offset, &guest.to_le_bytes());
    }
    let (cores, threads) = (share.cores, share.threads());
    for (narrow, wide, count) in [(0x23, 0x2a, cores), (0x24, 0x2c, cores), (0x25, 0x2e, threads)] {
        draft.put(narrow, &[u8::try_from(count).unwrap_or(0xff)]);
        draft.put(wide, &u16::try_from(count).unwrap_or(0xfffe).to_le_bytes());
    }
    draft.put(0x30, &u16::try_from(threads).unwrap_or(0xfffe).to_le_bytes());
    if let Some(mut flags) = host.word(0x26) {
        flags &= !(MULTI_CORE | MULTI_THREAD);
        flags |= if cores > 1 { MULTI_CORE } else { 0 };
        flags |= if share.threads_per_core > 1 {
            MULTI_THREAD
        } else {
            0
        };
        draft.put(0x26, &flags.to_le_bytes());
    }
    draft
}

/// Socket, manufacturer, version, part number, socket type.
const STRINGS: [usize; 5] = [0x04, 0x07, 0x10, 0x22, 0x32];
/// Serial number, asset tag.
const SECRETS: [usize; 2] = [0x20, 0x21];
/// The length in SMBIOS 3.8; what a later version adds may be strings.
const KNOWN: usize = 0x33;
const SOCKET_POPULATED: u8 = 1 << 6;
const NO_CACHE: u16 = 0xffff;
const MULTI_CORE: u16 = 1 << 3;
const MULTI_THREAD: u16 = 1 << 4;
