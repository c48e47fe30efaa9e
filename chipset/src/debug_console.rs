//! The debug console of Bochs and QEMU at port 0x402, where firmware built for debugging tells what it does.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use pellucid_partition::PioHandler;

/// One port: written bytes go to a sink, reads answer that somebody listens.
pub struct DebugConsole {
    out: Mutex<Box<dyn Write + Send>>,
}

impl DebugConsole {
    /// Where firmware looks for it.
    pub const PORT: u16 = 0x402;

    /// A console that writes to `out`; what `out` refuses is dropped.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl PioHandler for DebugConsole {
    fn read(&self, _: u16, data: &mut [u8]) {
        data.fill(LISTENS);
    }

    fn write(&self, _: u16, data: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Words for people: a sink that is full loses them.
        let _ = out.write_all(data);
    }
}

impl std::fmt::Debug for DebugConsole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugConsole").finish_non_exhaustive()
    }
}

const LISTENS: u8 = 0xe9;
