//! A function's level-triggered interrupt: signalled by one eventfd, unmasked by the guest's acknowledgement on another.

use std::io;
use std::sync::Arc;

use pellucid_partition::ResampleLine;

use crate::sys::borrow;
use crate::transport::{IrqKind, Transport};

/// A connected line.
pub(crate) struct Line {
    transport: Arc<dyn Transport>,
    _line: ResampleLine,
}

impl Line {
    /// The kernel disables the line by itself when the guest turns MSI or MSI-X on, and needs it connected again after.
    pub(crate) fn connect(line: ResampleLine, transport: &Arc<dyn Transport>) -> io::Result<Line> {
        transport.wire(IrqKind::Intx, 0, &[Some(borrow(line.eventfd()))])?;
        let connected = Line {
            transport: Arc::clone(transport),
            _line: line,
        };
        connected
            .transport
            .unmask_by(IrqKind::Intx, borrow(connected._line.resample_eventfd()))?;
        Ok(connected)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Err(error) = self.transport.unwire(IrqKind::Intx) {
            tracing::debug!(%error, "an interrupt line was not disconnected");
        }
    }
}
