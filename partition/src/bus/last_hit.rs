//! What one vCPU remembers of a bus.

use crate::bus::published::Seen;
use crate::bus::table::{Table, Ways};
use crate::bus::tally::Line;

/// One vCPU's memory of a bus: the table it saw last, and where in it the last accesses were answered.
///
/// It keeps what it saw alive, also a handler whose range has been removed since, until the vCPU's next access or until it is made to
/// [`forget`](Self::forget). It can be used with any bus, but is of use only with one.
pub struct LastHit<H: ?Sized> {
    pub(crate) seen: Seen<Table<H>>,
    pub(crate) ways: Ways,
    pub(crate) line: Line,
}

impl<H: ?Sized> LastHit<H> {
    /// A memory of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seen: Seen::nothing(),
            ways: Ways::new(),
            line: Line::take(),
        }
    }

    /// Lets go of every handler. The next access looks at the bus anew.
    ///
    /// For a vCPU that will be away from the bus for long, so that a removed device is not kept open for its sake.
    pub fn forget(&mut self) {
        self.seen = Seen::nothing();
    }
}

impl<H: ?Sized> Default for LastHit<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: ?Sized> std::fmt::Debug for LastHit<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastHit").finish_non_exhaustive()
    }
}
