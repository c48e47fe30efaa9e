//! A function's level-triggered interrupt: signalled by one eventfd, unmasked by the guest's acknowledgement on another.
//! The kernel refuses message-signalled interrupts while it is connected, so it is taken off when those are switched on.

use std::io;
use std::sync::Arc;

use pellucid_partition::ResampleLine;

use crate::sys::borrow;
use crate::transport::{IrqKind, Transport};

/// A line, connected to the device or not.
pub(crate) struct Line {
    transport: Arc<dyn Transport>,
    line: ResampleLine,
    connected: bool,
}

impl Line {
    pub(crate) fn new(line: ResampleLine, transport: Arc<dyn Transport>) -> Line {
        Line {
            transport,
            line,
            connected: false,
        }
    }

    /// Connects or disconnects the device.
    pub(crate) fn switch(&mut self, on: bool) {
        let switched = match (self.connected, on) {
            (false, true) => self.connect(),
            (true, false) => self.transport.unwire(IrqKind::Intx),
            _ => return,
        };
        self.connected = on && switched.is_ok();
        if let Err(error) = switched {
            tracing::error!(on, %error, "the interrupt line was not switched");
        }
    }

    fn connect(&self) -> io::Result<()> {
        self.transport
            .wire(IrqKind::Intx, 0, &[Some(borrow(self.line.eventfd()))])?;
        self.transport
            .unmask_by(IrqKind::Intx, borrow(self.line.resample_eventfd()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.switch(false);
    }
}
