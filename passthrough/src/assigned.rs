//! The third stage: a function wired to a guest: memory mapped for DMA, BARs and interrupts connected.

use std::sync::Arc;

use pellucid_partition::{
    Bdf, ConfigHandler, GuestMemory, Interrupts, MmioBus, PioBus, Populated, ResampleLine, Vm,
};

use crate::bars::{Allowed, BarShape};
use crate::bound::Bound;
use crate::capabilities::{Capabilities, ID_MSIX, dword};
use crate::config::{ConfigTable, Origin, SIZE};
use crate::endpoint::{Endpoint, State};
use crate::error::{AssignError, ReleaseError};
use crate::events::{EventSink, Listener};
use crate::inventory::Function;
use crate::line::Line;
use crate::messages::Messages;
use crate::msix::Geometry;
use crate::placement::PlacementWindows;
use crate::space::MappedMemory;
use crate::transport::{IrqKind, RegionIndex, Transport};
use crate::windows::Windows;

/// The guest's side of an assignment.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its VM.
    pub vm: Arc<Vm>,
    /// Its memory.
    pub memory: GuestMemory,
    /// Its memory-mapped devices.
    pub mmio: Arc<MmioBus>,
    /// Its I/O ports.
    pub pio: Arc<PioBus>,
    /// Its interrupts.
    pub interrupts: Arc<Interrupts>,
}

impl Guest {
    /// A populated partition's.
    #[must_use]
    pub fn of(populated: &Populated) -> Guest {
        Guest {
            vm: Arc::clone(populated.vm()),
            memory: populated.memory().clone(),
            mmio: Arc::clone(populated.mmio()),
            pio: Arc::clone(populated.pio()),
            interrupts: Arc::clone(populated.interrupts()),
        }
    }
}

/// How the guest sees a function.
pub struct View {
    /// Its BARs, where [`crate::Placement`] put them.
    pub bars: Vec<BarShape>,
    /// The windows in which the guest may place them.
    pub windows: PlacementWindows,
    /// The line of its INTx pin; without one the pin register reads 0.
    pub line: Option<ResampleLine>,
    /// What firmware would have written to the interrupt line register.
    pub line_register: u8,
    /// Who is told what the host says about the device.
    pub events: EventSink,
}

/// Wired to a guest, which drives it from now on. Dropping it takes everything back, as [`Assigned::release`] does.
#[must_use = "dropping it takes the device from the guest"]
pub struct Assigned {
    // Teardown order: the events, what the guest reaches, its interrupts, the device (stopped, reset, proved), and
    // last the memory that the device could reach until it was stopped.
    listener: Option<Listener>,
    endpoint: Arc<Endpoint>,
    messages: Arc<Messages>,
    line: Option<Line>,
    bound: Option<Bound>,
    memory: Option<Arc<MappedMemory>>,
    function: Function,
    hidden: Vec<&'static str>,
}

impl Bound {
    /// Wires the function to `guest`: memory first, then interrupts and BARs, so that nothing is reachable half done.
    pub fn assign(self, guest: &Guest, view: View) -> Result<Assigned, AssignError> {
        let device = self.bdf();
        let failed = |act| move |source| AssignError::Device { device, act, source };
        let transport: Arc<dyn Transport> = Arc::clone(self.lease()) as _;
        let space = read_space(transport.as_ref()).map_err(failed("reading its configuration space"))?;
        let memory = self.space().map(&guest.memory)?;
        self.space()
            .tell_kvm(guest, self.group_fd())
            .map_err(failed("telling KVM of its group"))?;
        let messages = Messages::new(device, geometry(&space), &transport, &guest.interrupts);
        let messages = Arc::new(messages);
        let intx = view.line.is_some() && transport.irq(IrqKind::Intx).count > 0;
        let origin = Origin {
            space: &space,
            bars: &view.bars,
            intx,
            line: view.line_register,
        };
        let table = ConfigTable::new(&origin);
        let hidden = table.hidden().to_vec();
        let windows = Windows::new(device, guest, &view.bars, &transport, &messages)?;
        let listener = Listener::start(device, &transport, view.events)
            .map_err(failed("listening to its error and request events"))?;
        let line = match view.line.filter(|_| intx) {
            Some(line) => {
                Some(Line::connect(line, &transport).map_err(failed("connecting its interrupt line"))?)
            }
            None => None,
        };
        let allowed = allowed(&view.windows);
        let state = State { table, windows };
        let endpoint = Endpoint::new(
            device,
            (view.bars, allowed),
            transport,
            Arc::clone(&messages),
            state,
        );
        tracing::info!(%device, ?hidden, "assigned");
        Ok(Assigned {
            listener: Some(listener),
            endpoint: Arc::new(endpoint),
            messages,
            line,
            function: self.function().clone(),
            bound: Some(self),
            memory: Some(memory),
            hidden,
        })
    }
}

impl Assigned {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Its address on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// Its configuration space, for the guest's PCI bus.
    #[must_use]
    pub fn config(&self) -> Arc<dyn ConfigHandler> {
        Arc::clone(&self.endpoint) as _
    }

    /// Capabilities that the guest does not see, by name.
    #[must_use]
    pub fn hidden(&self) -> &[&'static str] {
        &self.hidden
    }

    /// Interrupt vectors that the host gives it now.
    #[must_use]
    pub fn vectors_in_use(&self) -> usize {
        self.messages.in_use()
    }

    /// Takes the function from the guest, stops and resets it, proves that it is well, and gives it back to its driver.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<(), ReleaseError> {
        let Some(bound) = self.bound.take() else {
            return Ok(());
        };
        self.listener = None;
        self.endpoint.end();
        self.line = None;
        let released = bound.release();
        // The device is closed: nothing reaches the guest's memory any more.
        self.memory = None;
        released
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            tracing::error!(device = %self.bdf(), %error, "taking the function back failed");
        }
    }
}

/// The device's configuration space as VFIO shows it.
fn read_space(transport: &dyn Transport) -> std::io::Result<Vec<u8>> {
    let size = transport
        .region(RegionIndex::Config)
        .map_or(256, |region| region.size);
    let mut space = vec![0; (size as usize).min(SIZE)];
    for (index, word) in space.chunks_exact_mut(4).enumerate() {
        transport.read(RegionIndex::Config, index as u64 * 4, word)?;
    }
    Ok(space)
}

fn geometry(space: &[u8]) -> Option<Geometry> {
    let at = Capabilities::walk(space).find(ID_MSIX)?;
    let control = (dword(space, at)? >> 16) as u16;
    Some(Geometry::new(
        control,
        dword(space, at + 4)?,
        dword(space, at + 8)?,
    ))
}

fn allowed(windows: &PlacementWindows) -> Allowed {
    Allowed {
        memory: vec![windows.memory32.clone(), windows.memory64.clone()],
        io: windows.io.clone(),
    }
}
