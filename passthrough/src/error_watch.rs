//! Errors of lent functions that no eventfd tells: DMA that the IOMMU blocked, and corrected errors, which the kernel only counts.
//! One thread for all functions of a partition.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use pellucid_partition::Bdf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::dma_fault::KernelLog;
use crate::events::{DeviceEvent, EventSink};
use crate::inventory::ErrorCounts;
use crate::sys::borrow;

/// A function to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Its address on the host.
    pub device: Bdf,
    /// At how many corrected errors its owner is told, and again at each multiple; never if `None`.
    pub corrected: Option<u64>,
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
    /// Blocked DMA is only seen where the kernel's log can be read; where not, corrected errors still are.
    ///
    /// # Errors
    /// There is no eventfd or no thread left.
    pub fn start(devices: &[Watched], sink: EventSink) -> io::Result<ErrorWatch> {
        let log = KernelLog::open();
        if let Err(error) = &log {
            tracing::warn!(%error, "/dev/kmsg cannot be read: blocked DMA will not be reported; it is blocked all the same");
        }
        let counted = devices
            .iter()
            .filter_map(|watched| Counted::begin(watched, Path::new(FUNCTIONS)));
        let mut watcher = Watcher {
            devices: devices.iter().map(|watched| watched.device).collect(),
            counted: counted.collect(),
            log: log.ok(),
            sink,
        };
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
            if let Some(corrected) = counted.passed() {
                let device = counted.device;
                tracing::warn!(%device, corrected, "corrected errors");
                (self.sink)(DeviceEvent::Corrected { device, corrected });
            }
        }
    }
}

/// A function whose corrected errors are counted.
struct Counted {
    device: Bdf,
    counters: PathBuf,
    threshold: u64,
    /// What was counted when the watch began.
    begun: u64,
    /// How many thresholds have been told of.
    told: u64,
}

impl Counted {
    fn begin(watched: &Watched, functions: &Path) -> Option<Counted> {
        let threshold = watched.corrected.filter(|threshold| *threshold > 0)?;
        let counters = functions.join(watched.device.to_string());
        let begun = ErrorCounts::read(&counters)?.correctable.total;
        Some(Counted {
            device: watched.device,
            counters,
            threshold,
            begun,
            told: 0,
        })
    }

    /// How many errors there were since the beginning, if that is past one more threshold.
    fn passed(&mut self) -> Option<u64> {
        let now = ErrorCounts::read(&self.counters)?.correctable.total;
        let since = now.saturating_sub(self.begun);
        let thresholds = since / self.threshold;
        let passed = thresholds > self.told;
        self.told = self.told.max(thresholds);
        passed.then_some(since)
    }
}

const FUNCTIONS: &str = "/sys/bus/pci/devices";
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

    #[test]
    fn corrected_errors_are_told_at_each_multiple_of_their_threshold() {
        let root = tempfile::tempdir().unwrap();
        let device = "0000:03:00.0".parse().unwrap();
        let folder = root.path().join("0000:03:00.0");
        std::fs::create_dir(&folder).unwrap();
        let count = |total: u64| {
            let text = format!("RxErr {total}\nBadTLP 0\nTOTAL_ERR_COR {total}\n");
            std::fs::write(folder.join("aer_dev_correctable"), text).unwrap();
        };
        count(7);
        let corrected = Some(10);
        let mut counted = Counted::begin(&Watched { device, corrected }, root.path()).unwrap();
        let mut after = |total| {
            count(total);
            counted.passed()
        };
        assert_eq!(after(16), None, "nine since the beginning");
        assert_eq!(after(17), Some(10));
        assert_eq!(after(18), None, "told once");
        assert_eq!(after(40), Some(33));
        assert_eq!(after(3), None, "counters that began again");
    }

    #[test]
    fn a_function_without_a_threshold_or_counters_is_not_counted() {
        let root = tempfile::tempdir().unwrap();
        let device = "0000:03:00.0".parse().unwrap();
        for corrected in [None, Some(0), Some(1)] {
            assert!(Counted::begin(&Watched { device, corrected }, root.path()).is_none());
        }
    }
}
