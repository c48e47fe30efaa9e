//! What a host says about a lent device: an uncorrectable error, that it wants it back, that it is lost. One thread waits for all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pellucid_partition::Bdf;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::aer::{ErrorReport, FUNCTIONS, Registers, Reporter};
use crate::dma_fault::DmaFault;
use crate::inventory::Counts;
use crate::sys::borrow;
use crate::transport::{IrqKind, Transport};

/// Something that the host says about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// An uncorrectable error (AER) came through the port that the device is below.
    Error {
        /// The function.
        device: Bdf,
        /// Whose error it was, and which.
        report: ErrorReport,
    },
    /// The device had more corrected errors than its owner wants to be silent about.
    Corrected {
        /// The function.
        device: Bdf,
        /// How many since it is watched.
        corrected: u64,
        /// Those of them since that was last told, or within the time that its owner has set.
        recent: Counts,
    },
    /// The IOMMU blocked what the device wanted to do.
    Blocked {
        /// What that was.
        fault: DmaFault,
    },
    /// The host asks for the device back (unbind, removal). Told once, although the kernel repeats it every 10 s while it waits; one that
    /// gave up and asks again within 30 s is not told from one that waits on.
    Wanted {
        /// The function.
        device: Bdf,
    },
    /// The process that serves the device has gone or was given up: it reads all ones, and nothing that is written reaches it.
    Lost {
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
    registers: Option<Registers>,
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
        let loss = transport.loss().transpose()?;
        let registers = Registers::begin(transport.as_ref());
        // What another process serves is no function of the host, whatever has that address there.
        let function = loss
            .is_none()
            .then(|| Path::new(FUNCTIONS).join(device.to_string()));
        let reporter = Reporter::begin(device, transport, registers.clone(), function);
        // It is whole before anything is wired, so that its drop unwires what was when a later step fails.
        let mut listener = Listener {
            stop: Arc::clone(&stop),
            transport: Arc::clone(transport),
            registers,
            wired: Vec::new(),
            thread: None,
        };
        for (kind, event) in [(IrqKind::Error, &error), (IrqKind::Request, &request)] {
            if transport.irq(kind).count > 0 {
                transport.wire(kind, 0, &[Some(borrow(event))])?;
                listener.wired.push(kind);
            }
        }
        let thread = thread::Builder::new()
            .name(format!("events-{device}"))
            .stack_size(STACK)
            .spawn(move || {
                let told = Told {
                    reporter,
                    error,
                    request,
                    loss,
                };
                listen(device, &stop, told, sink.as_ref());
            })?;
        listener.thread = Some(thread);
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for kind in &self.wired {
            if let Err(error) = self.transport.unwire(*kind) {
                tracing::debug!(?kind, %error, "an event was not unwired");
            }
        }
        // The next user is not to be blamed for what this one leaves.
        if let Some(registers) = &self.registers {
            registers.clear(self.transport.as_ref());
        }
        let stopped = self.stop.write(1).is_ok();
        // The last holder may be that thread itself, in the sink's hands.
        let other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| stopped && other(thread))
            && thread.join().is_err()
        {
            tracing::error!("the sink of a device's events panicked");
        }
    }
}

/// By what the host tells.
struct Told {
    reporter: Reporter,
    error: EventFd,
    request: EventFd,
    loss: Option<OwnedFd>,
}

/// When the host was last heard to ask for the device.
#[derive(Default)]
struct Asking(Option<Instant>);

impl Asking {
    /// Whether what is heard `now` is no repetition.
    fn is_new(&mut self, now: Instant) -> bool {
        let before = self.0.replace(now);
        before.is_none_or(|before| now.duration_since(before) >= FORGOTTEN)
    }
}

fn listen(device: Bdf, stop: &EventFd, mut told: Told, sink: &dyn Fn(DeviceEvent)) {
    let mut asking = Asking::default();
    loop {
        let wait = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut polled = vec![
            wait(borrow(stop)),
            wait(borrow(&told.error)),
            wait(borrow(&told.request)),
        ];
        // What can be read there is the transport's; only the end of it is waited for.
        let end = |fd| PollFd::from_borrowed_fd(fd, PollFlags::RDHUP);
        polled.extend(told.loss.as_ref().map(|fd| end(fd.as_fd())));
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%device, %error, "no longer listening to the device's events");
                return;
            }
            Ok(_) => {}
        }
        let lost = polled.get(3).is_some_and(|fd| !fd.revents().is_empty());
        if told.error.read().is_ok() {
            let report = told.reporter.report();
            tracing::error!(%device, %report, "an uncorrectable error");
            sink(DeviceEvent::Error { device, report });
        }
        if told.request.read().is_ok() && asking.is_new(Instant::now()) {
            tracing::warn!(%device, "the host wants the device back");
            sink(DeviceEvent::Wanted { device });
        }
        if stop.read().is_ok() {
            return;
        }
        if lost {
            tracing::error!(%device, "the process that serves the device is lost");
            told.loss = None;
            sink(DeviceEvent::Lost { device });
        }
    }
}

/// `vfio_unregister_group_dev` of the kernel repeats it every 10 s; a busy host is late.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Ample for a sink. The usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aer::{Blame, Severity};
    use crate::script::Script;
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    fn started(
        script: Script,
    ) -> (
        Arc<Script>,
        io::Result<Listener>,
        std::sync::mpsc::Receiver<DeviceEvent>,
    ) {
        let (told, heard) = channel();
        let told = Mutex::new(told);
        let script = Arc::new(script);
        let transport = Arc::clone(&script) as Arc<dyn Transport>;
        let sink: EventSink = Arc::new(move |event| told.lock().unwrap().send(event).unwrap());
        let listener = Listener::start("0000:01:00.0".parse().unwrap(), &transport, sink);
        (script, listener, heard)
    }

    #[test]
    fn each_event_is_told_once_and_nothing_is_wired_afterwards() {
        let (script, listener, heard) = started(Script::new());
        let device = "0000:01:00.0".parse().unwrap();
        script.signal(IrqKind::Request);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Wanted { device });
        script.signal(IrqKind::Error);
        let told = heard.recv().unwrap();
        assert!(matches!(told, DeviceEvent::Error { device: of, .. } if of == device));
        drop(listener);
        assert!(heard.try_recv().is_err());
        assert!(!script.is_wired());
    }

    #[test]
    fn what_the_host_repeats_while_it_waits_is_one_asking() {
        let mut asking = Asking::default();
        let begun = Instant::now();
        let seconds = [0, 10, 25, 54, 84, 90].map(Duration::from_secs);
        let new = seconds.map(|after| asking.is_new(begun + after));
        assert_eq!(new, [true, false, false, false, true, false]);
        let (script, listener, heard) = started(Script::new());
        script.signal(IrqKind::Request);
        assert!(matches!(heard.recv().unwrap(), DeviceEvent::Wanted { .. }));
        script.signal(IrqKind::Request);
        script.signal(IrqKind::Error);
        assert!(matches!(heard.recv().unwrap(), DeviceEvent::Error { .. }));
        drop(listener);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_function_reports_every_error_and_none_of_an_earlier_user() {
        let (_theirs, script) = Script::new().served();
        script.set(Script::UNCORRECTABLE, 1 << 14);
        script.set(Script::CORRECTABLE, 1);
        let (script, listener, heard) = started(script);
        let status = || [Script::UNCORRECTABLE, Script::CORRECTABLE].map(|at| script.register(at));
        assert_eq!(status(), [0, 0], "stale status");
        assert_eq!(script.register(Script::DEVICE_CONTROL) & 0xffff, 0x1f);
        script.set(Script::UNCORRECTABLE, 1 << 12);
        script.signal(IrqKind::Error);
        let Ok(DeviceEvent::Error { report, .. }) = heard.recv() else {
            panic!("another event")
        };
        assert_eq!((report.source, report.severity), (Blame::Own, Severity::NonFatal));
        assert_eq!(report.to_string(), "a non-fatal error of its own (TLP)");
        script.set(Script::UNCORRECTABLE, 1 << 14);
        drop(listener);
        assert_eq!(status(), [0, 0], "what this user leaves");
    }

    #[test]
    fn a_loss_is_told_once_however_much_was_said_before_and_others_are_still_heard() {
        let (mut theirs, script) = Script::new().served();
        let (script, listener, heard) = started(script);
        let device = "0000:01:00.0".parse().unwrap();
        theirs.write_all(&[1; 16]).unwrap();
        script.signal(IrqKind::Request);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Wanted { device });
        drop(theirs);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Lost { device });
        script.signal(IrqKind::Error);
        let told = heard.recv().unwrap();
        assert!(matches!(told, DeviceEvent::Error { .. }));
        drop(listener);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_host_that_refuses_the_second_event_keeps_none() {
        let (script, listener, _heard) = started(Script::new().refusing(IrqKind::Request));
        assert_eq!(
            listener.err().and_then(|error| error.raw_os_error()),
            Some(libc::EBUSY)
        );
        assert!(!script.is_wired());
    }
}
