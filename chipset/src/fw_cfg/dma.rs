//! Transfers: a descriptor in guest memory says which item, how many bytes and where to, and is answered there.

use pellucid_partition::GuestAddress;

use super::FwCfg;

impl FwCfg {
    /// Carries out the transfer that the descriptor at `address` asks for. One that is not in RAM is answered by nobody.
    pub(super) fn transfer(&self, address: u64) {
        let mut descriptor = [0; 16];
        let at = GuestAddress(address);
        if self.memory.read(at, &mut descriptor).is_err() {
            tracing::debug!(address, "a transfer's descriptor is not in RAM");
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, to @ ..] = descriptor;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & READ != 0 {
            self.copy(u64::from_be_bytes(to), length)
        } else if control & WRITE != 0 {
            // No item here can be written.
            false
        } else {
            if control & SKIP != 0 {
                let mut state = self.state();
                state.at = state.at.saturating_add(length as usize);
            }
            true
        };
        let answer = if done { 0 } else { ERROR };
        if self.memory.write(at, &answer.to_be_bytes()).is_err() {
            tracing::debug!(address, "a transfer's descriptor is RAM no more");
        }
    }

    /// Copies `length` bytes of the selected item, and zeros behind its end.
    fn copy(&self, to: u64, length: u32) -> bool {
        let all_there = to.checked_add(u64::from(length)).is_some();
        if length > MOST || !all_there || !self.memory.contains(GuestAddress(to), u64::from(length)) {
            return false;
        }
        let mut state = self.state();
        let (mut buffer, mut copied) = ([0; 4096], 0);
        while copied < length as usize {
            let piece = &mut buffer[..(length as usize - copied).min(4096)];
            state.take(piece);
            if self
                .memory
                .write(GuestAddress(to + copied as u64), piece)
                .is_err()
            {
                return false;
            }
            copied += piece.len();
        }
        true
    }
}

const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;
/// One transfer holds the guest's vCPU for no longer than these bytes take.
const MOST: u32 = 16 << 20;
