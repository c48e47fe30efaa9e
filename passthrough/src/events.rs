//! What a host says about a lent device: an uncorrectable error, that it wants it back, that it is lost. One thread waits for all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use pellucid_partition::Bdf;
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::aer::{self, ErrorReport, Reporter};
use crate::dma_fault::DmaFault;
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
    },
    /// The IOMMU blocked what the device wanted to do.
    Blocked {
        /// What that was.
        fault: DmaFault,
    },
    /// The host asks for the device back (unbind, removal).
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
        // What another process serves is no function of the host, whatever has that address there.
        let counted = loss.is_none().then_some(device);
        let reporter = Reporter::begin(counted, transport.as_ref());
        // It is whole before anything is wired, so that its drop unwires what was when a later step fails.
        let mut listener = Listener {
            stop: Arc::clone(&stop),
            transport: Arc::clone(transport),
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
        aer::clear(self.transport.as_ref());
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

fn listen(device: Bdf, stop: &EventFd, mut told: Told, sink: &dyn Fn(DeviceEvent)) {
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
        if told.request.read().is_ok() {
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

/// Ample for a sink. The usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{IrqInfo, RegionIndex, RegionInfo};
    use pellucid_partition::Mapping;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    /// A device of nothing but event interrupts; `refused` cannot be wired.
    #[derive(Default)]
    struct Host {
        refused: Option<IrqKind>,
        end: Option<UnixStream>,
        wired: Mutex<Vec<(IrqKind, File)>>,
        space: Mutex<Vec<u8>>,
    }

    impl Host {
        fn signal(&self, wanted: IrqKind) {
            let wired = self.wired.lock().unwrap();
            let (_, event) = wired.iter().find(|(kind, _)| *kind == wanted).unwrap();
            let mut event: &File = event;
            event.write_all(&1_u64.to_ne_bytes()).unwrap();
        }
    }

    impl Transport for Host {
        fn region(&self, _: RegionIndex) -> Option<RegionInfo> {
            let size = self.space.lock().unwrap().len() as u64;
            Some(RegionInfo {
                size,
                ..RegionInfo::default()
            })
        }
        fn read(&self, _: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
            let at = offset as usize;
            data.copy_from_slice(&self.space.lock().unwrap()[at..at + data.len()]);
            Ok(())
        }
        fn write(&self, _: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
            let (at, mut space) = (offset as usize, self.space.lock().unwrap());
            for (old, new) in space[at..].iter_mut().zip(data) {
                // Status registers are cleared by ones; that is all that this device has above 0x100.
                *old = if at >= 0x100 { *old & !new } else { *new };
            }
            Ok(())
        }
        fn map(&self, _: RegionIndex, _: u64, _: usize) -> io::Result<Mapping> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn resettable(&self) -> bool {
            false
        }
        fn reset(&self) -> io::Result<()> {
            Ok(())
        }
        fn irq(&self, kind: IrqKind) -> IrqInfo {
            let count = u32::from(matches!(kind, IrqKind::Error | IrqKind::Request));
            IrqInfo { count, fixed: false }
        }
        fn wire(&self, kind: IrqKind, _: u32, fds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
            if self.refused == Some(kind) {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            let event = fds[0].unwrap().try_clone_to_owned().unwrap();
            self.wired.lock().unwrap().push((kind, File::from(event)));
            Ok(())
        }
        fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }
        fn unwire(&self, kind: IrqKind) -> io::Result<()> {
            self.wired.lock().unwrap().retain(|(wired, _)| *wired != kind);
            Ok(())
        }
        fn loss(&self) -> Option<io::Result<OwnedFd>> {
            Some(self.end.as_ref()?.try_clone().map(OwnedFd::from))
        }
    }

    fn started(
        host: Host,
    ) -> (
        Arc<Host>,
        io::Result<Listener>,
        std::sync::mpsc::Receiver<DeviceEvent>,
    ) {
        let (told, heard) = channel();
        let told = Mutex::new(told);
        let host = Arc::new(host);
        let transport = Arc::clone(&host) as Arc<dyn Transport>;
        let sink: EventSink = Arc::new(move |event| told.lock().unwrap().send(event).unwrap());
        let listener = Listener::start("0000:01:00.0".parse().unwrap(), &transport, sink);
        (host, listener, heard)
    }

    #[test]
    fn each_event_is_told_once_and_nothing_is_wired_afterwards() {
        let (host, listener, heard) = started(Host::default());
        let device = "0000:01:00.0".parse().unwrap();
        host.signal(IrqKind::Request);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Wanted { device });
        host.signal(IrqKind::Error);
        let report = ErrorReport::unknown();
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Error { device, report });
        drop(listener);
        assert!(heard.try_recv().is_err());
        assert!(host.wired.lock().unwrap().is_empty());
    }

    #[test]
    fn a_function_reports_every_error_and_none_of_an_earlier_user() {
        let mut space = vec![0_u8; 0x140];
        (space[0x06], space[0x34]) = (0x10, 0x40);
        (space[0x40], space[0x48]) = (0x10, 0x10);
        space[0x100..0x104].copy_from_slice(&0x0001_0001_u32.to_le_bytes());
        (space[0x105], space[0x110]) = (0x40, 0x01);
        let (host, listener, _heard) = started(Host {
            space: Mutex::new(space),
            ..Host::default()
        });
        let register = |at: usize| host.space.lock().unwrap()[at];
        assert_eq!((register(0x105), register(0x110)), (0, 0), "stale status");
        assert_eq!(register(0x48), 0x1f, "device control");
        host.space.lock().unwrap()[0x105] = 0x40;
        drop(listener);
        assert_eq!(register(0x105), 0, "what this user leaves");
    }

    #[test]
    fn a_loss_is_told_once_however_much_was_said_before_and_others_are_still_heard() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let end = Some(ours);
        let (host, listener, heard) = started(Host {
            end,
            ..Host::default()
        });
        let device = "0000:01:00.0".parse().unwrap();
        theirs.write_all(&[1; 16]).unwrap();
        host.signal(IrqKind::Request);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Wanted { device });
        drop(theirs);
        assert_eq!(heard.recv().unwrap(), DeviceEvent::Lost { device });
        host.signal(IrqKind::Error);
        let told = heard.recv().unwrap();
        assert!(matches!(told, DeviceEvent::Error { .. }));
        drop(listener);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_host_that_refuses_the_second_event_keeps_none() {
        let refused = Some(IrqKind::Request);
        let (host, listener, _heard) = started(Host {
            refused,
            ..Host::default()
        });
        assert_eq!(
            listener.err().and_then(|error| error.raw_os_error()),
            Some(libc::EBUSY)
        );
        assert!(host.wired.lock().unwrap().is_empty());
    }
}
