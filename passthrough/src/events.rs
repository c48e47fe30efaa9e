//! What a host says about a lent device: an uncorrectable error, or that it wants it back. One thread waits for both.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use pellucid_partition::Bdf;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::sys::borrow;
use crate::transport::{IrqKind, Transport};

/// Something that the host says about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The device reported an uncorrectable error (AER); what it does from now on cannot be trusted.
    Error {
        /// The function.
        device: Bdf,
    },
    /// The host asks for the device back (unbind, removal).
    Wanted {
        /// The function.
        device: Bdf,
    },
}

/// Who is told. Called from a thread of its own; it must not wait for the device.
pub type EventSink = Arc<dyn Fn(DeviceEvent) + Send + Sync>;

/// Listens until dropped.
pub(crate) struct Listener {
    stop: Arc<EventFd>,
    transport: Arc<dyn Transport>,
    wired: Vec<IrqKind>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(crate) fn start(
        device: Bdf,
        transport: &Arc<dyn Transport>,
        sink: EventSink,
    ) -> io::Result<Listener> {
        let flags = EFD_NONBLOCK | EFD_CLOEXEC;
        let stop = Arc::new(EventFd::new(flags)?);
        let (error, request) = (EventFd::new(flags)?, EventFd::new(flags)?);
        let mut wired = Vec::new();
        for (kind, event) in [(IrqKind::Error, &error), (IrqKind::Request, &request)] {
            if transport.irq(kind).count > 0 {
                transport.wire(kind, 0, &[Some(borrow(event))])?;
                wired.push(kind);
            }
        }
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(format!("events-{device}"))
            .stack_size(STACK)
            .spawn(move || listen(device, &stopped, (&error, &request), sink.as_ref()))?;
        Ok(Listener {
            stop,
            transport: Arc::clone(transport),
            wired,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for kind in &self.wired {
            if let Err(error) = self.transport.unwire(*kind) {
                tracing::debug!(?kind, %error, "an event was not unwired");
            }
        }
        let stopped = self.stop.write(1).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| stopped)
            && thread.join().is_err()
        {
            tracing::error!("the sink of a device's events panicked");
        }
    }
}

fn listen(device: Bdf, stop: &EventFd, (error, request): (&EventFd, &EventFd), sink: &dyn Fn(DeviceEvent)) {
    let wait = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let fds: [BorrowedFd<'_>; 3] = [borrow(stop), borrow(error), borrow(request)];
    loop {
        let mut polled = fds.map(wait);
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%device, %error, "no longer listening to the device's events");
                return;
            }
            Ok(_) => {}
        }
        if error.read().is_ok() {
            tracing::error!(%device, "the device reported an uncorrectable error");
            sink(DeviceEvent::Error { device });
        }
        if request.read().is_ok() {
            tracing::warn!(%device, "the host wants the device back");
            sink(DeviceEvent::Wanted { device });
        }
        if stop.read().is_ok() {
            return;
        }
    }
}

/// Ample for a sink. The usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;
