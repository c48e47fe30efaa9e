//! Wiring: everything that a guest sees of a function, made at once from its transport and not reachable before it is whole.

use std::sync::Arc;

use pellucid_partition::Bdf;

use crate::bars::{Allowed, BarShape};
use crate::capabilities::{Capabilities, ID_MSIX, dword};
use crate::config::{ConfigOrigin, ConfigTable, SIZE};
use crate::endpoint::{Endpoint, State};
use crate::error::AssignError;
use crate::events::Listener;
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
        let line = view.line.filter(|_| transport.irq(IrqKind::Intx).count > 0);
        let origin = ConfigOrigin {
            space: &space,
            bars: &view.bars,
            intx: line.is_some(),
            line: view.line_register,
        };
        let table = ConfigTable::new(&origin);
        let line = line.map(|line| Line::new(line, Arc::clone(transport)));
        let messages = Messages::new(device, geometry(&space), transport, &guest.interrupts, line);
        let messages = Arc::new(messages);
        let windows = Windows::new(device, guest, &view.bars, transport, &messages)?;
        let listener = Listener::start(device, transport, view.events)
            .map_err(failed("listening to its error and request events"))?;
        let open = (view.bars, allowed(&view.windows));
        let state = State {
            table,
            windows,
            listener: Some(listener),
            ended: false,
        };
        Ok(Endpoint::new(
            device,
            open,
            Arc::clone(transport),
            messages,
            state,
        ))
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
