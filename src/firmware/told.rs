//! What firmware is told of the machine, when it asks: its tables describe the buses and windows that it has chosen by then, and its owner
//! learns what it has put elsewhere than the host has it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use pellucid_chipset::{BoardError, EcamPlace, FwCfg, PciConfig};
use pellucid_image::{AcpiBoard, LoaderFiles, SmbiosTables};
use pellucid_partition::{Bdf, Layout, Populated};
use pellucid_passthrough::{BarShape, Function, PlacementWindows};
use pellucid_vcpu::address_bits;

use crate::error::StartError;
use crate::event::ServerEvent;
use crate::server::EventSink;
use crate::tree::Tree;

/// What a firmware is told.
pub(crate) struct Told {
    layout: Layout,
    board: AcpiBoard,
    ecam: Mutex<Range<u64>>,
    /// The ports by address, each with the bus behind it on the host, and the functions as the host has them.
    ports: Vec<(Bdf, u8)>,
    functions: Vec<Function>,
    pci: OnceLock<Weak<PciConfig>>,
    differences_told: AtomicBool,
    events: EventSink,
}

impl Told {
    /// What there is to tell of `board`, with `tree` before the functions that the host has as `functions`.
    pub(crate) fn of(
        board: AcpiBoard,
        layout: &Layout,
        (tree, functions): (&Tree, Vec<Function>),
        events: &EventSink,
    ) -> Arc<Self> {
        let ports = tree.topology.ports();
        Arc::new(Self {
            layout: layout.clone(),
            ecam: Mutex::new(Layout::ECAM),
            ports: ports.map(|(bdf, port)| (bdf, port.buses.secondary)).collect(),
            functions,
            board,
            pci: OnceLock::new(),
            differences_told: AtomicBool::new(false),
            events: Arc::clone(events),
        })
    }

    /// A fw_cfg that tells it.
    pub(crate) fn fw_cfg(
        self: &Arc<Self>,
        populated: &Populated,
        smbios: Option<&SmbiosTables>,
    ) -> Result<Arc<FwCfg>, StartError> {
        let vcpus = populated.plan().vcpus() as u16;
        let told = Arc::clone(self);
        let fw_cfg = Arc::new_cyclic(|own: &Weak<FwCfg>| {
            let own = own.clone();
            FwCfg::new(populated.memory().clone()).on_select(move |name| {
                if let (LoaderFiles::SCRIPT, Some(fw_cfg)) = (name, own.upgrade()) {
                    told.asked(&fw_cfg);
                }
            })
        });
        fw_cfg.describe(&self.layout, vcpus).map_err(BoardError::from)?;
        self.put_tables(&fw_cfg)?;
        if let Some(smbios) = smbios {
            for (name, bytes) in [(SMBIOS_ANCHOR, smbios.anchor()), (SMBIOS_TABLES, smbios.table())] {
                fw_cfg.put_file(name, bytes).map_err(BoardError::from)?;
            }
        }
        Ok(fw_cfg)
    }

    /// ECAM that goes where firmware puts it.
    pub(crate) fn follows_ecam(self: &Arc<Self>) -> EcamPlace {
        let told = Arc::clone(self);
        EcamPlace::Follows(Box::new(move |to| {
            if let Some(to) = to {
                *told.ecam.lock().unwrap_or_else(PoisonError::into_inner) = to;
            }
        }))
    }

    /// Where to look for what firmware has chosen.
    pub(crate) fn look_at(&self, pci: &Arc<PciConfig>) {
        // Set once, before the guest runs.
        let _ = self.pci.set(Arc::downgrade(pci));
    }

    /// The firmware wants its tables: it has placed every function.
    fn asked(&self, fw_cfg: &FwCfg) {
        if let Err(error) = self.put_tables(fw_cfg) {
            tracing::debug!(%error, "the firmware is told of the machine as it was before");
        }
        // A guest can ask as often as it likes.
        if self.differences_told.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(pci) = self.pci.get().and_then(Weak::upgrade) {
            for difference in self.differences(&pci) {
                (self.events)(difference);
            }
        }
    }

    fn put_tables(&self, fw_cfg: &FwCfg) -> Result<(), StartError> {
        let mut board = self.board.clone();
        let ecam = self.ecam.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pci = self.pci.get().and_then(Weak::upgrade);
        let last = pci.map_or(0, |pci| {
            let last = self.buses(&pci).into_values().map(|bus| bus.last);
            last.max().unwrap_or(0)
        });
        board.ecam = ecam.start..(ecam.start + ((u64::from(last) + 1) << 20)).min(ecam.end);
        let windows = bar_windows(&self.layout, &ecam);
        (board.mmio32, board.mmio64) = (windows.memory32, windows.memory64);
        let files = board.tables()?.loader_files();
        let named = [
            (LoaderFiles::POINTER, &files.pointer),
            (LoaderFiles::TABLES, &files.tables),
            (LoaderFiles::SCRIPT, &files.script),
        ];
        for (name, bytes) in named {
            fw_cfg.put_file(name, bytes).map_err(BoardError::from)?;
        }
        Ok(())
    }

    /// Where the guest may put BARs, whatever its firmware is.
    pub(crate) fn reach(&self) -> PlacementWindows {
        let low = bar_windows(&self.layout, &(FOUR_GIB..FOUR_GIB));
        PlacementWindows {
            memory32: low.memory32.start..LOW_END,
            ..low
        }
    }

    /// What is behind each port by its number on the host: its bus now, and the last behind that.
    fn buses(&self, pci: &PciConfig) -> BTreeMap<u8, Now> {
        let mut buses = BTreeMap::from([(0, Now { bus: 0, last: 0 })]);
        for (port, home) in &self.ports {
            let Some(above) = buses.get(&port.bus()).map(|above| above.bus) else {
                continue;
            };
            let mut numbers = [0; 4];
            pci.read(above, port.devfn(), BUS_NUMBERS, &mut numbers);
            let [_, bus, last, _] = numbers;
            buses.insert(*home, Now { bus, last });
        }
        buses
    }

    /// What the firmware has chosen otherwise than the host.
    fn differences(&self, pci: &PciConfig) -> Vec<ServerEvent> {
        let buses = self.buses(pci);
        let mut found = Vec::new();
        let mut tell = |device, what: String, host: u64, guest: u64| {
            if host != guest {
                found.push(ServerEvent::PlacedElsewhere {
                    device,
                    what,
                    host,
                    guest,
                });
            }
        };
        for (port, home) in &self.ports {
            let now = buses.get(home).map_or(0, |now| now.bus);
            tell(
                *port,
                "the bus behind it".to_owned(),
                u64::from(*home),
                u64::from(now),
            );
        }
        for function in &self.functions {
            let bus = buses.get(&function.bdf.bus()).map_or(0, |now| now.bus);
            for bar in function.bars.iter().filter(|bar| bar.index < BarShape::ROM) {
                let shape = BarShape::of(bar, bar.address);
                let mut register = [0; 8];
                let width = if shape.is_64bit() { 8 } else { 4 };
                for at in (0..width).step_by(4) {
                    pci.read(
                        bus,
                        function.bdf.devfn(),
                        shape.place() + at as u16,
                        &mut register[at..at + 4],
                    );
                }
                let guest = u64::from_le_bytes(register) & shape.address_mask();
                tell(function.bdf, format!("BAR {}", bar.index), bar.address, guest);
            }
        }
        found
    }
}

/// The bus behind a port, and the last behind that.
struct Now {
    bus: u8,
    last: u8,
}

/// A server that boots by firmware has no RAM where older builds put ECAM.
pub(crate) fn ecam_of_older_builds() -> (&'static str, Range<u64>) {
    ("the firmware's PCI configuration window", Layout::FIRMWARE_ECAM)
}

/// Where OVMF puts BARs (PlatformInitLib). Below 4 GiB: behind ECAM where that is low, as in older builds; else between RAM and ECAM. Above: from
/// the end of RAM on.
fn bar_windows(layout: &Layout, ecam: &Range<u64>) -> PlacementWindows {
    let ends = layout.ram().iter().map(|ram| ram.end);
    let low = ends.clone().filter(|end| *end < FOUR_GIB).max().unwrap_or(0);
    let top = ends.max().unwrap_or(0).max(FOUR_GIB);
    let start = [LOW_START, HIGH_START].into_iter().find(|start| low <= *start);
    let start = start.unwrap_or(low);
    let memory32 = match ecam.start < HIGH_START {
        true => ecam.end.max(low)..LOW_END,
        false => start..ecam.start.min(LOW_END),
    };
    PlacementWindows {
        memory32,
        memory64: top.next_multiple_of(1 << 30)..1 << address_bits(),
        ..PlacementWindows::of(layout)
    }
}

const FOUR_GIB: u64 = 1 << 32;
const LOW_START: u64 = 0x8000_0000;
const HIGH_START: u64 = 0xc000_0000;
const LOW_END: u64 = 0xfc00_0000;
const BUS_NUMBERS: u16 = 0x18;
const SMBIOS_ANCHOR: &str = "etc/smbios/smbios-anchor";
const SMBIOS_TABLES: &str = "etc/smbios/smbios-tables";

#[cfg(test)]
mod tests {
    use super::*;
    use pellucid_chipset::{BusNumbers, Link, PortIdentity, PortKind, RootPort, RootPortSpec, Windows};

    const OLD: Range<u64> = Layout::FIRMWARE_ECAM;
    const NEW: Range<u64> = Layout::ECAM;

    fn layout(memory: u64) -> Layout {
        Layout::new(memory, 40).unwrap()
    }

    #[test]
    fn bars_are_where_each_build_of_ovmf_puts_them() {
        let small = layout(512 << 20);
        assert_eq!(bar_windows(&small, &NEW).memory32, 0x8000_0000..0xe000_0000);
        assert_eq!(bar_windows(&small, &OLD).memory32, 0xc000_0000..0xfc00_0000);
        let large = layout(5 << 30);
        assert_eq!(bar_windows(&large, &NEW).memory32, 0xc000_0000..0xe000_0000);
        assert_eq!(bar_windows(&large, &OLD).memory32, 0xc000_0000..0xfc00_0000);
        assert_eq!(bar_windows(&large, &NEW).memory64.start, 6 << 30);
    }

    /// What a firmware tells that has numbered the bus behind the only port 3.
    #[test]
    fn what_firmware_chose_otherwise_is_told_with_where_the_host_has_it() {
        let pci = Arc::new(PciConfig::new(0));
        let port: Bdf = "00:02.0".parse().unwrap();
        let numbers = BusNumbers {
            primary: 0,
            secondary: 1,
            subordinate: 1,
        };
        let spec = RootPortSpec {
            kind: PortKind::Root,
            identity: PortIdentity {
                vendor: 0x1b36,
                device: 0x000c,
                revision: 0,
                subsystem: None,
            },
            buses: numbers,
            windows: Windows::default(),
            link: Link { speed: 1, width: 1 },
            slot: None,
            hot_plug: false,
            number: 0,
        };
        let placed = pci
            .place_port(port, Arc::new(RootPort::new(&spec).unwrap()))
            .unwrap();
        let layout = layout(512 << 20);
        let told = Told {
            board: AcpiBoard::new(&layout, vec![0]),
            layout,
            ecam: Mutex::new(NEW),
            ports: vec![(port, 1)],
            functions: Vec::new(),
            pci: OnceLock::new(),
            differences_told: AtomicBool::new(false),
            events: Arc::new(|_| ()),
        };
        assert_eq!(told.differences(&pci), []);
        pci.write(0, 0x10, BUS_NUMBERS, &[0, 3, 7, 0]);
        let expected = ServerEvent::PlacedElsewhere {
            device: port,
            what: "the bus behind it".to_owned(),
            host: 1,
            guest: 3,
        };
        assert_eq!(told.differences(&pci), [expected]);
        assert_eq!(told.buses(&pci)[&1].last, 7);
        drop(placed);
    }
}
