//! A running logical server: composed from the crates in the order of the flow, given back in the reverse order.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use pellucid_chipset::{
    Board, BoardEvent, BoardSpec, ConfigPorts, Console as SerialEnd, EcamPlace, Firmware, Serial,
};
use pellucid_image::AcpiBoard;
use pellucid_partition::{ClaimError, CpuError, CpuHold, CpuTerms, Populated, Progress, StateDir};
use pellucid_passthrough::{Claimant, ReleaseError};
use pellucid_vcpu::{ExitCounts, Parked, Running, StopError};

use crate::check::Checked;
use crate::error::StartError;
use crate::event::ServerEvent;
use crate::lent::Lent;
use crate::policy::Reaction;
use crate::spec::CpuPolicy;
use crate::taken::Taken;

/// A server whose vCPUs are in the guest. Dropping it stops them and gives everything back.
#[must_use = "dropping it stops the guest"]
pub struct LogicalServer {
    // Teardown order: the vCPUs first, then the devices (quiet before their memory goes), the board, the partition.
    running: Running,
    pub(crate) lent: Lent,
    pub(crate) board: Board,
    _firmware: Option<Firmware>,
    pub(crate) populated: Populated,
    pub(crate) events: EventSink,
    pub(crate) state: StateDir,
}

/// The other end of the guest's serial line.
pub struct Console {
    /// Takes what the guest sends.
    pub output: Box<dyn Write + Send>,
    /// Called when input that was not taken may be offered again, and when [`LogicalServer::until_due`] would say less than it did.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// What becomes of a server after a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a server that is to end does so by `finish`"]
pub enum Then {
    /// The guest runs on.
    GoesOn,
    /// The guest stands still until [`LogicalServer::resume`].
    Stands,
    /// It is to be finished now.
    Ends,
}

/// What could not be given back as it should. All other parts were.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// A vCPU did not come out of the guest.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// A device is not back on its driver.
    #[error(transparent)]
    Device(#[from] ReleaseError),
    /// A claim was not ended.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// Receives a server's events.
pub type EventSink = Arc<dyn Fn(ServerEvent) + Send + Sync>;

/// What takes time when a server is started: all of its memory is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryStep {
    /// Its pages are made resident.
    Populate,
    /// It is mapped for the DMA of the host's devices that are lent; also when one is plugged after all of them were unplugged.
    Map,
}

/// Is told how far a step has come: one call at a time, never less than before, last that everything is done.
pub type ProgressSink = Arc<dyn Fn(MemoryStep, Progress) + Send + Sync>;

impl Checked {
    /// Takes what the plan says, loads the image, and lets the guest run. `progress` is told of what takes time meanwhile.
    ///
    /// Whatever fails, everything taken until then is given back before the error is returned.
    pub fn start(
        self,
        state: &StateDir,
        console: Console,
        events: &EventSink,
        progress: &ProgressSink,
    ) -> Result<LogicalServer, StartError> {
        let name = self.plan.name().to_owned();
        let reserved = self.plan.reserve(state)?;
        self.cpu.apply(reserved.cpus())?;
        let populated = reserved.populate(&|at| progress(MemoryStep::Populate, at))?;
        let layout = populated.plan().layout();
        // The disk is read before its controller is taken off the host.
        let loaded = self.boot.load(populated.memory(), layout, events)?;
        let claimant = Claimant::new(state, &name);
        let places = self.topology.places();
        let taken = Taken::take(self.offers, places, &claimant, (state, &name), None)?;
        taken.report_to(progress);
        let mut tree = taken.place(self.topology, layout)?;
        let mut tables = AcpiBoard::new(layout, (0..populated.plan().vcpus() as u32).collect());
        (tables.root_buses, tables.root_ports) = (tree.described_roots(), tree.described_ports());
        tables.ecam = tree.ecam();
        tables.hot_plug = tree.has_hot_plug();
        if let Some(numa) = self.numa {
            numa.tell(&mut tables);
        }
        let mut spec = board_spec(self.clock_offset, console, events);
        let functions = taken.seen(&tree.topology);
        let (entry, firmware) = loaded.show(
            (&populated, events),
            (tables, self.smbios.as_ref()),
            (&mut tree, functions),
            &mut spec,
        )?;
        let (ports, bays) = tree.root_ports(populated.interrupts(), events)?;
        spec.root_ports = ports;
        spec.root_buses = tree.topology.roots().collect();
        let board = Board::attach(&populated, spec)?;
        if let Some((_, told)) = &firmware {
            told.look_at(board.pci());
        }
        let parked = Parked::create(&populated, entry, &self.vcpus)?;
        let lent = Lent::begin(taken, (&populated, &board), (tree, bays), events)?;
        let told = Arc::clone(events);
        let running = parked.run(move |event| told(ServerEvent::of_vcpu(event)))?;
        tracing::info!(name, "the guest runs");
        Ok(LogicalServer {
            running,
            lent,
            board,
            _firmware: firmware.map(|(firmware, _)| firmware),
            populated,
            events: Arc::clone(events),
            state: state.clone(),
        })
    }
}

impl CpuPolicy {
    fn apply(&self, cpus: &CpuHold) -> Result<(), CpuError> {
        match cpus.terms() {
            CpuTerms::Dedicated { .. } => cpus.use_realtime(self.realtime),
            CpuTerms::Shared { .. } => match (self.share, &self.group) {
                (None, None) => Ok(()),
                (share, group) => cpus.share(share.unwrap_or_default(), group.as_deref()),
            },
        }
    }
}

impl LogicalServer {
    /// Offers bytes typed at the console; returns how many the serial port took.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let serial: &Serial = self.board.serial();
        serial.receive(bytes)
    }

    /// How long until [`LogicalServer::tick`] has something to do; `None` until [`Console::wake`] is called.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        self.board.until_due()
    }

    /// Raises the interrupts of the guest's clock and timer that are due: alarms, for one. Nothing else does, as no thread waits for them.
    pub fn tick(&self) {
        self.board.tick();
    }

    /// How many seconds the guest's clock is ahead of the host's now.
    #[must_use]
    pub fn clock_offset(&self) -> i64 {
        self.board.rtc().offset()
    }

    /// Presses the power button: an operating system that listens powers off.
    pub fn press_power_button(&self) {
        self.board.power().press_power_button();
    }

    /// Its CPUs: watched, counted, and held on other terms from now on.
    #[must_use]
    pub fn cpus(&self) -> &Arc<CpuHold> {
        self.populated.reserved().cpus()
    }

    /// Exits of each vCPU so far.
    #[must_use]
    pub fn exits(&self) -> Vec<ExitCounts> {
        self.running.exits()
    }

    /// Does what the policy of a device asks for when `event` happened; nothing on other events. A device that is gone already is left so.
    pub fn react(&mut self, event: &ServerEvent) -> Result<Then, FinishError> {
        let Some((device, reaction)) = event.reaction() else {
            return Ok(Then::GoesOn);
        };
        match reaction {
            Reaction::Report => Ok(Then::GoesOn),
            Reaction::Pause => {
                self.running.pause(STOP_TIMEOUT)?;
                Ok(Then::Stands)
            }
            Reaction::Stop => Ok(Then::Ends),
            Reaction::Unplug => {
                self.lent.unplug(device, &self.events)?;
                Ok(Then::GoesOn)
            }
        }
    }

    /// Lets a guest that stands still go on.
    pub fn resume(&mut self) {
        self.running.resume();
    }

    /// Stops the vCPUs if they still run, and gives everything back: devices to their drivers, memory, claims.
    ///
    /// A part that fails does not keep the others from being given back; the first failure is returned.
    pub fn finish(self) -> Result<Vec<ExitCounts>, FinishError> {
        let Self {
            running,
            lent,
            board,
            _firmware: firmware,
            populated,
            events,
            ..
        } = self;
        let stopped = running.stop(STOP_TIMEOUT).map(|stopped| stopped.exits());
        let released = lent.release(&events);
        tracing::debug!(mmio = ?populated.mmio(), pio = ?populated.pio(), "what the board was asked");
        drop((board, firmware));
        let ended = populated.release();
        let exits = stopped?;
        released?;
        ended?;
        Ok(exits)
    }
}

impl std::fmt::Debug for LogicalServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalServer")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

/// A board without root ports and as firmware finds it, but for ECAM.
fn board_spec(clock_offset: i64, console: Console, events: &EventSink) -> BoardSpec {
    let told = Arc::clone(events);
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::from(console.wake);
    let room = Arc::clone(&wake);
    BoardSpec {
        console: SerialEnd {
            out: console.output,
            room: Box::new(move || room()),
        },
        events: Arc::new(move |event| {
            told(match event {
                BoardEvent::PowerOff => ServerEvent::PowerOff,
                BoardEvent::ClockSet { offset } => ServerEvent::ClockSet { offset },
                _ => ServerEvent::Reset,
            });
        }),
        clock_offset,
        sooner: wake,
        root_buses: Vec::new(),
        root_ports: Vec::new(),
        config_ports: ConfigPorts::Present,
        ecam: EcamPlace::Fixed,
        clock_memory: Vec::new(),
    }
}

/// How long a vCPU may take to leave the guest; a handler that takes longer is a fault that the error names.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
