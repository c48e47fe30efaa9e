//! One vCPU thread: it alone owns the vCPU's descriptor, until it hands it back stopped.
//!
//! The loop reads the stop word, runs the guest, and dispatches the exit. Before the state is handed over, or the thread pauses,
//! the I/O that the guest has begun is completed, so that registers and memory agree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use kvm_ioctls::VcpuFd;
use pellucid_partition::{CpuHold, CpuSeat, GuestMemory, Vm};

use crate::dispatch::Dispatch;
use crate::error::StartError;
use crate::event::{Crash, VcpuEvent};
use crate::exit::{Exit, run};
use crate::meter::{ExitReason, Gauge, Place};
use crate::stop_word::{Order, StopWord};
use crate::stopped::{End, StoppedVcpu};
use crate::sys::{kick, run_page::RunPage};

/// What a vCPU thread owns.
pub(crate) struct Seat {
    // Teardown order: the vCPU, what it looks at, the memory and the VM underneath.
    pub(crate) index: u32,
    pub(crate) fd: VcpuFd,
    pub(crate) line: Arc<Line>,
    pub(crate) dispatch: Dispatch,
    pub(crate) cpus: Arc<CpuHold>,
    pub(crate) _memory: GuestMemory,
    pub(crate) _vm: Arc<Vm>,
}

/// What a vCPU thread and its owner share: neither waits for the other on it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) word: StopWord,
    pub(crate) page: RunPage,
    pub(crate) gauge: Arc<Gauge>,
}

/// What a vCPU thread tells its owner, in this order.
pub(crate) enum Report {
    /// It is where it should be, and waits to be resumed.
    Ready,
    /// It could not be placed; it has ended.
    Failed { vcpu: u32, error: StartError },
    /// It is out of the guest with its I/O complete, as the pause of that number wanted.
    Paused { vcpu: u32, number: u32 },
    /// It has ended.
    Ended(Box<StoppedVcpu>),
}

/// What a stay in the guest came to.
enum Step {
    /// An access was answered.
    Served,
    /// Nothing is pending.
    Interrupted,
    /// There will be no other.
    Ended(End),
}

/// The owner's ear for events, called on vCPU threads.
pub(crate) type Events = dyn Fn(VcpuEvent) + Send + Sync;

impl Seat {
    /// The thread's whole life.
    pub(crate) fn occupy(mut self, events: &Events, reports: &Sender<Report>) {
        // A send fails only when the owner is gone; then nobody wants to know.
        let _place = match place_thread(self.index, &self.cpus) {
            Ok(place) => place,
            Err(error) => {
                let vcpu = self.index;
                let _ = reports.send(Report::Failed { vcpu, error });
                return;
            }
        };
        let _ = reports.send(Report::Ready);
        let end = catch_unwind(AssertUnwindSafe(|| self.serve(reports))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let (place, message) = (
                self.line.gauge.place(),
                text.unwrap_or_else(|| "no message".to_owned()),
            );
            End::Crashed(Crash::HandlerPanicked { place, message })
        });
        if let Some(event) = self.event(&end) {
            tracing::debug!(%event, "a vCPU ended by itself");
            // The end is reported below whatever the owner's closure does.
            let _ = catch_unwind(AssertUnwindSafe(|| events(event)));
        }
        let Self { index, fd, .. } = self;
        let _ = reports.send(Report::Ended(Box::new(StoppedVcpu { index, end, fd })));
    }

    fn serve(&mut self, reports: &Sender<Report>) -> End {
        // A vCPU begins paused, its state as parked.
        let mut order = self.wait_out(0);
        loop {
            match order {
                Order::Run => {
                    if let Step::Ended(end) = self.step() {
                        return end;
                    }
                    order = self.line.word.order();
                }
                Order::Stop => return self.drain().unwrap_or_else(|end| end),
                Order::Pause(number) => {
                    if let Err(end) = self.drain() {
                        return end;
                    }
                    self.line.gauge.enter(Place::Paused);
                    let _ = reports.send(Report::Paused {
                        vcpu: self.index,
                        number,
                    });
                    order = self.wait_out(number);
                    // Tells a guest with a kvm-clock that its watchdogs need not bark; others need no telling.
                    let _ = self.fd.kvmclock_ctrl();
                }
            }
        }
    }

    /// Sleeps for as long as the order is that very pause.
    fn wait_out(&self, number: u32) -> Order {
        while self.line.word.order() == Order::Pause(number) {
            thread::park();
        }
        self.line.word.settle(|| self.line.page.lower())
    }

    /// Completes pending I/O without executing more of the guest. An error is a crash that came first.
    ///
    /// KVM completes an access when it is entered again, and with the bell up it then returns. A string instruction may make more
    /// accesses first, but KVM looks at the bell after 1,024 of them at the latest.
    fn drain(&mut self) -> Result<End, End> {
        self.line.page.raise();
        for _ in 0..MOST_PENDING {
            match self.step() {
                Step::Served => {}
                Step::Interrupted => return Ok(End::Requested { io_complete: true }),
                Step::Ended(end) => return Err(end),
            }
        }
        Ok(End::Requested { io_complete: false })
    }

    /// One stay in the guest, and the answer to what it left for.
    fn step(&mut self) -> Step {
        self.line.gauge.enter(Place::Guest);
        let exit = run(&mut self.fd, &self.line.page);
        match exit {
            Exit::PioRead { port, item, data } => self.dispatch.pio_read(port, item, data),
            Exit::PioWrite { port, item, data } => self.dispatch.pio_write(port, item, data),
            Exit::MmioRead { address, data } => self.dispatch.mmio_read(address, data),
            Exit::MmioWrite { address, data } => self.dispatch.mmio_write(address, data),
            Exit::Interrupted => {
                self.dispatch.forget();
                return self.left(ExitReason::Interrupted, Step::Interrupted);
            }
            Exit::System(request) => return self.left(ExitReason::Last, Step::Ended(End::System(request))),
            Exit::Crash(crash) => return self.left(ExitReason::Last, Step::Ended(End::Crashed(crash))),
        }
        self.line.gauge.enter(Place::Outside);
        Step::Served
    }

    fn left(&self, reason: ExitReason, step: Step) -> Step {
        self.line.gauge.count(reason);
        self.line.gauge.enter(Place::Outside);
        step
    }

    fn event(&self, end: &End) -> Option<VcpuEvent> {
        let vcpu = self.index;
        match end {
            End::Requested { .. } => None,
            End::System(request) => Some(VcpuEvent::System {
                vcpu,
                request: *request,
            }),
            End::Crashed(crash) => {
                let rip = self.fd.get_regs().ok().map(|regs| regs.rip);
                Some(VcpuEvent::Crashed {
                    vcpu,
                    crash: crash.clone(),
                    rip,
                })
            }
        }
    }
}

/// Lets the calling thread be kicked, and puts it where the partition's CPUs are, proved by reading back where it may run.
fn place_thread(vcpu: u32, cpus: &Arc<CpuHold>) -> Result<CpuSeat, StartError> {
    kick::unblock().map_err(|source| StartError::Signal {
        signal: kick::signal(),
        source,
    })?;
    Ok(cpus.seat(vcpu)?)
}

/// More rounds than KVM ever needs to complete one instruction's accesses.
const MOST_PENDING: u32 = 2048;
