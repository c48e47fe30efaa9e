//! Wiring: everything that a guest sees of a function, made at once from its transport and not reachable before it is whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use pellucid_partition::Bdf;

use crate::bars::{Allowed, BarShape};
use crate::capabilities::{ID_MSI, ID_MSIX};
use crate::config::{ConfigOrigin, ConfigTable, SIZE};
use crate::endpoint::{Endpoint, State};
use crate::error::AssignError;
use crate::events::{DeviceEvent, EventSink, Listener};
use crate::guest::{Guest, View};
use crate::line::Line;
use crate::messages::Messages;
use crate::msix::Geometry;
use crate::placement::PlacementWindows;
use crate::transport::{IrqKind, RegionIndex, Transport};
use crate::windows::Windows;

impl Endpoint {
    /// Wires the function behind `transport`, which is `device` in messages, to `guest`. Memory for DMA is not its business.
    pub fn wire(
        device: Bdf,
        transport: &Arc<dyn Transport>,
        guest: &Guest,
        mut view: View,
    ) -> Result<Endpoint, AssignError> {
        view.bars.sort_by_key(|bar| bar.index);
        BarShape::check(&view.bars).map_err(|(bar, wrong)| AssignError::Bar { device, bar, wrong })?;
        let failed = |act| move |source| AssignError::Device { device, act, source };
        let space = read_space(transport.as_ref()).map_err(failed("reading its configuration space"))?;
        check(&space).map_err(|wrong| AssignError::ConfigSpace { device, wrong })?;
        let (geometry, absent) = messages(&space, &view.bars, transport.as_ref());
        let line = view.line.filter(|_| transport.irq(IrqKind::Intx).count > 0);
        let origin = ConfigOrigin {
            space: &space,
            bars: &view.bars,
            intx: line.is_some(),
            line: view.line_register,
            absent: &absent,
        };
        let table = ConfigTable::new(&origin);
        let line = line.map(|line| Line::new(line, Arc::clone(transport)));
        let messages = Messages::new(device, geometry, transport, &guest.interrupts, line);
        let messages = Arc::new(messages);
        let windows = Windows::new(device, guest, &view.bars, transport, &messages)?;
        let loss = Arc::new(Loss::default());
        let listener = Listener::start(device, transport, Arc::clone(&loss).before(view.events))
            .map_err(failed("listening to its error and request events"))?;
        let open = (view.bars, allowed(&view.windows));
        let state = Arc::new(Mutex::new(State {
            table,
            windows,
            listener: Some(listener),
            switches: None,
            ended: false,
        }));
        loss.reaches(&state, &messages);
        Ok(Endpoint::new(
            device,
            open,
            Arc::clone(transport),
            messages,
            state,
        ))
    }
}

/// What is taken from the guest when the device is lost, also if it was lost before that was there.
#[derive(Default)]
struct Loss {
    lost: AtomicBool,
    guest: OnceLock<(Weak<Mutex<State>>, Weak<Messages>)>,
}

impl Loss {
    /// A sink that takes a lost device from the guest before it tells `sink`.
    fn before(self: Arc<Self>, sink: EventSink) -> EventSink {
        Arc::new(move |event| {
            if matches!(event, DeviceEvent::Lost { .. }) {
                self.lost.store(true, Ordering::SeqCst);
                self.take();
            }
            sink(event);
        })
    }

    /// Says what the guest has.
    fn reaches(&self, state: &Arc<Mutex<State>>, messages: &Arc<Messages>) {
        // Nobody sets it twice, so there is no other one to be returned.
        let _ = self.guest.set((Arc::downgrade(state), Arc::downgrade(messages)));
        if self.lost.load(Ordering::SeqCst) {
            self.take();
        }
    }

    fn take(&self) {
        if let Some((state, messages)) = self.guest.get()
            && let (Some(state), Some(messages)) = (state.upgrade(), messages.upgrade())
        {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.end(&messages);
        }
    }
}

/// The device's configuration space as its transport shows it.
fn read_space(transport: &dyn Transport) -> std::io::Result<Vec<u8>> {
    let size = transport
        .region(RegionIndex::Config)
        .map_or(0, |region| region.size);
    let mut space = vec![0; (size.min(SIZE as u64) as usize) & !3];
    for (index, word) in space.chunks_exact_mut(4).enumerate() {
        transport.read(RegionIndex::Config, index as u64 * 4, word)?;
    }
    Ok(space)
}

/// Whether it is that of a function that can be lent.
fn check(space: &[u8]) -> Result<(), &'static str> {
    match space {
        short if short.len() < 256 => Err("it is shorter than the 256 bytes that every function has"),
        [0xff, 0xff, ..] => Err("it reads all ones; the function is gone or asleep"),
        space if space[HEADER_TYPE] & 0x7f != 0 => Err("it is a bridge's; lend what is behind it"),
        _ => Ok(()),
    }
}

/// Where the MSI-X table is, and the message capabilities that the guest cannot be given.
fn messages(
    space: &[u8],
    bars: &[BarShape],
    transport: &dyn Transport,
) -> (Option<Geometry>, Vec<(u8, &'static str)>) {
    let mut absent = Vec::new();
    let signals = |kind| transport.irq(kind).count > 0;
    if !signals(IrqKind::Msi) {
        absent.push((ID_MSI, "MSI, which its transport does not signal"));
    }
    let geometry = match Geometry::of(space, bars) {
        Ok(Some(_)) if !signals(IrqKind::Msix) => Err("MSI-X, which its transport does not signal"),
        other => other,
    };
    absent.extend(geometry.err().map(|name| (ID_MSIX, name)));
    (geometry.ok().flatten(), absent)
}

fn allowed(windows: &PlacementWindows) -> Allowed {
    Allowed {
        memory: vec![windows.memory32.clone(), windows.memory64.clone()],
        io: windows.io.clone(),
    }
}

/// PCI 3.0, 6.1.
const HEADER_TYPE: usize = 0x0e;
