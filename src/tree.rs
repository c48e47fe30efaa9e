//! Where lent functions are in a guest: their addresses, their BARs, the ports before them with their windows and hot-plug slots.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pellucid_chipset::{PortAt, RootPort, Windows};
use pellucid_image::{RootPort as DescribedPort, intx_gsi};
use pellucid_partition::{Bdf, Interrupts, Layout, Populated};
use pellucid_passthrough::{BarShape, Bound, Placement, PlacementWindows, PortWindows, View};

use crate::bay::Bay;
use crate::error::LendError;
use crate::event::ServerEvent;
use crate::policy::DevicePolicy;
use crate::seen::interrupt_pin;
use crate::server::EventSink;
use crate::topology::Topology;

/// The hot-plug slots, by the bus behind their port.
pub(crate) type Bays = BTreeMap<u8, Bay>;

/// Where the functions are in the guest, and the ports before them.
pub(crate) struct Tree {
    pub(crate) topology: Topology,
    pub(crate) placement: Placement,
    pub(crate) windows: PlacementWindows,
}

impl Tree {
    /// The ports as the board builds them, with the windows that lead to what is behind them, and the hot-plug slots among them.
    pub(crate) fn root_ports(
        &self,
        interrupts: &Arc<Interrupts>,
        events: &EventSink,
    ) -> Result<(Vec<PortAt>, Bays), LendError> {
        let (mut ports, mut bays) = (Vec::new(), Bays::new());
        for (bdf, spec) in self.topology.ports() {
            let failed = |source| LendError::Place { device: bdf, source };
            let mut spec = spec.clone();
            spec.windows = self.windows_of(bdf);
            let port = if spec.hot_plug {
                let bay = Bay::build(&spec, interrupts, events).map_err(failed)?;
                let port = Arc::clone(bay.port());
                bays.insert(spec.buses.secondary, bay);
                port
            } else {
                Arc::new(RootPort::new(&spec).map_err(failed)?)
            };
            ports.push(PortAt { bdf, port });
        }
        Ok((ports, bays))
    }

    /// The ports of the root bus as ACPI describes them.
    pub(crate) fn described_ports(&self) -> Vec<DescribedPort> {
        let on_root_bus = self.topology.ports().filter(|(bdf, _)| bdf.bus() == 0);
        on_root_bus
            .map(|(address, port)| DescribedPort {
                address,
                slot: port.slot.map(u32::from),
                node: None,
            })
            .collect()
    }

    /// Whether some port has a hot-plug slot.
    pub(crate) fn has_hot_plug(&self) -> bool {
        self.topology.ports().any(|(_, port)| port.hot_plug)
    }

    /// The configuration window for the buses in use. Linux looks at every device number of every bus in it, two exits each.
    pub(crate) fn ecam(&self) -> Range<u64> {
        let last = self
            .topology
            .ports()
            .map(|(_, port)| port.buses.subordinate)
            .max()
            .unwrap_or(0);
        Layout::ECAM.start..Layout::ECAM.start + ((u64::from(last) + 1) << 20)
    }

    /// The BARs of the function at `at`, as the guest finds them.
    pub(crate) fn bars(&self, at: Bdf) -> &[BarShape] {
        self.placement.bars(at)
    }

    /// What a port forwards: what is behind it.
    fn windows_of(&self, port: Bdf) -> Windows {
        let PortWindows {
            memory,
            prefetchable,
            io,
        } = self.placement.ports().get(&port).cloned().unwrap_or_default();
        Windows {
            io: io.start as u32..io.end as u32,
            memory,
            prefetchable,
        }
    }

    /// How the guest sees `bound` at `at`.
    pub(crate) fn view(
        &self,
        (at, bound): (Bdf, &Bound),
        policy: DevicePolicy,
        populated: &Populated,
        events: &EventSink,
    ) -> Result<View, LendError> {
        let (mut line, mut line_register) = (None, 0);
        if let Some(pin) = interrupt_pin(bound) {
            let gsi = self.topology.root_pin(at, pin, intx_gsi);
            line = Some(
                populated
                    .interrupts()
                    .resample_line(gsi)
                    .map_err(LendError::Line)?,
            );
            line_register = gsi.0 as u8;
        }
        let told = Arc::clone(events);
        Ok(View {
            bars: self.bars(at).to_vec(),
            windows: self.windows.clone(),
            line,
            line_register,
            events: Arc::new(move |event| told(ServerEvent::of_device(event, &policy))),
        })
    }
}
