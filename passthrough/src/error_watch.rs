//! Errors of lent functions that no eventfd tells: DMA that the IOMMU blocked, and corrected errors, which are only counted.
//! One thread for all functions of a partition.

mod corrected;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use pellucid_partition::Bdf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::corrected::Counted;
pub use self::corrected::Threshold;
use crate::aer::FUNCTIONS;
use crate::dma_fault::KernelLog;
use crate::events::{DeviceEvent, EventSink};
use crate::sys::borrow;
use crate::transport::Transport;

/// A function to be watched.
#[derive(Clone)]
pub struct Watched {
    /// Its address on the host; in the guest, if another process serves it.
    pub device: Bdf,
    /// Where its error registers are.
    pub transport: Arc<dyn Transport>,
    /// At how many corrected errors its owner is told; never if `None`.
    pub corrected: Option<Threshold>,
}

/// Watches until dropped.
#[must_use = "dropping it ends the watch"]
pub struct ErrorWatch {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl ErrorWatch {
    /// Tells `sink` what happens to `devices` from now on, on a thread of its own.
    ///
    /// Blocked DMA is only seen where the kernel's log can be read; where not, corrected errors still are. Those are counted by the kernel, or,
    /// where it does not count, once a second by the function's registers, which say of each kind of error only that there was one.
    ///
    /// # Errors
    /// There is no eventfd or no thread left.
    pub fn start(devices: &[Watched], sink: EventSink) -> io::Result<ErrorWatch> {
        let mut watcher = Watcher {
            devices: Vec::new(),
            counted: Vec::new(),
            log: None,
            sink,
        };
        for watched in devices {
            // What another process serves is no function of the host, whatever has that address there.
            let is_served = watched.transport.loss().is_some();
            let functions = (!is_served).then(|| Path::new(FUNCTIONS));
            watcher.counted.extend(Counted::begin(watched, functions));
            if !is_served {
                watcher.devices.push(watched.device);
            }
        }
        if !watcher.devices.is_empty() {
            match KernelLog::open() {
                Ok(log) => watcher.log = Some(log),
                Err(error) => {
                    tracing::warn!(%error, "/dev/kmsg cannot be read: blocked DMA will not be reported; it is blocked all the same");
                }
            }
        }
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("error-watch".to_owned())
            .stack_size(STACK)
            .spawn(move || watcher.run(&stopped))?;
        Ok(ErrorWatch {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for ErrorWatch {
    fn drop(&mut self) {
        let stopped = self.stop.write(1).is_ok();
        // The last holder may be that thread itself, in the sink's hands.
        let other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| stopped && other(thread))
            && thread.join().is_err()
        {
            tracing::error!("the sink of device errors panicked");
        }
    }
}

struct Watcher {
    devices: Vec<Bdf>,
    counted: Vec<Counted>,
    log: Option<KernelLog>,
    sink: EventSink,
}

impl Watcher {
    fn run(&mut self, stop: &EventFd) {
        let timeout = (!self.counted.is_empty()).then_some(&INTERVAL);
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(borrow(stop), PollFlags::IN)];
            polled.extend(
                self.log
                    .as_ref()
                    .map(|log| PollFd::new(log.file(), PollFlags::IN)),
            );
            match poll(&mut polled, timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "no longer watching for device errors");
                    return;
                }
            }
            self.tell();
            if stop.read().is_ok() {
                return;
            }
        }
    }

    fn tell(&mut self) {
        for fault in self.log.iter_mut().flat_map(KernelLog::faults) {
            if self.devices.contains(&fault.device) {
                tracing::error!(%fault, "blocked");
                (self.sink)(DeviceEvent::Blocked { fault });
            }
        }
        for counted in &mut self.counted {
            if let Some((corrected, recent)) = counted.passed(Instant::now()) {
                let device = counted.device;
                tracing::warn!(%device, corrected, recent = recent.total, "corrected errors");
                (self.sink)(DeviceEvent::Corrected {
                    device,
                    corrected,
                    recent,
                });
            }
        }
    }
}

/// How often corrected errors are looked at. They ask for a part to be replaced some day, not for haste.
const INTERVAL: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// Ample for a sink and a record of the log. The usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Counts;
    use crate::script::Script;
    use std::num::NonZeroU64;
    use std::sync::{Mutex, mpsc};

    #[test]
    fn corrected_errors_of_a_served_function_are_told_by_its_own_registers() {
        let (_theirs, script) = Script::new().served();
        script.set(Script::CORRECTABLE, 1 << 6);
        let script = Arc::new(script);
        let device = "0000:00:03.0".parse().unwrap();
        let watched = Watched {
            device,
            transport: Arc::clone(&script) as Arc<dyn Transport>,
            corrected: Some(Threshold {
                count: NonZeroU64::new(2).unwrap(),
                within: None,
            }),
        };
        let (told, heard) = mpsc::channel();
        let told = Mutex::new(told);
        let sink: EventSink = Arc::new(move |event| told.lock().unwrap().send(event).unwrap());
        let watch = ErrorWatch::start(&[watched], sink).unwrap();
        assert_eq!(
            script.register(Script::CORRECTABLE),
            0,
            "what was there is not told"
        );
        script.set(Script::CORRECTABLE, 1 | 1 << 7);
        let kinds = ["BadDLLP", "RxErr"].map(|kind| (kind.to_owned(), 1));
        let wanted = DeviceEvent::Corrected {
            device,
            corrected: 2,
            recent: Counts {
                total: 2,
                kinds: kinds.into(),
            },
        };
        assert_eq!(heard.recv(), Ok(wanted));
        drop(watch);
        assert!(heard.try_recv().is_err());
    }
}
