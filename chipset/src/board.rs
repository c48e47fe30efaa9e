//! The whole board on a partition's buses: every device of this crate where kernels and firmware look for it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use pellucid_partition::{
    Bdf, BusRange, ConfigHandler, Layout, MmioBus, PioBus, PioHandler, Populated,
    board::{COM1_GSI, COM1_PORT, PCI_CONFIG_PORT, PM_BASE, RESET_PORT, RTC_GSI, RTC_PORT, SCI_GSI},
};

use crate::error::{BoardError, PciError};
use crate::event::{BoardEvent, EventSink};
use crate::pci::config::{PciConfig, Placed};
use crate::pci::ecam::Ecam;
pub use crate::pci::ecam_range::EcamPlace;
use crate::pci::ecam_range::EcamRange;
use crate::pci::host_bridge::HostBridge;
use crate::pci::lpc::Lpc;
use crate::pci::ports::PciPorts;
use crate::pci::root_port::RootPort;
use crate::power::{AcpiPm, SciLevel};
use crate::reset::{DiagnosticPort, FastReset, KeyboardReset, ResetRegister};
use crate::rtc::Rtc;
use crate::serial::Serial;

/// The devices on the buses. Dropping it takes them off.
#[derive(Debug)]
#[must_use = "dropping the board takes its devices off the buses"]
pub struct Board {
    // Teardown order: no new access, then the functions, then the devices with their interrupt lines.
    _ports: Vec<BusRange<dyn PioHandler>>,
    _ecam: Arc<EcamRange>,
    functions: Vec<Placed>,
    pci: Arc<PciConfig>,
    serial: Arc<Serial>,
    rtc: Arc<Rtc>,
    power: Arc<AcpiPm>,
}

/// What differs from board to board.
pub struct BoardSpec {
    /// The serial port's other end.
    pub console: Console,
    /// Where power off, reset and a clock that was set are reported.
    pub events: EventSink,
    /// How many seconds the guest's clock is ahead of the host's.
    pub clock_offset: i64,
    /// Called, on a vCPU thread, when [`Board::until_due`] would now say less than it did. It must not block.
    pub sooner: Arc<dyn Fn() + Send + Sync>,
    /// Root buses besides 0.
    pub root_buses: Vec<u8>,
    /// The root ports, in the order in which they are placed: a port before those behind it.
    pub root_ports: Vec<PortAt>,
    /// Whether configuration space can also be reached through ports.
    pub config_ports: ConfigPorts,
    /// Whether ECAM goes where the guest puts it.
    pub ecam: EcamPlace,
    /// Bytes of the clock's memory that the board's firmware looks at, by index.
    pub clock_memory: Vec<(u8, u8)>,
}

/// The old way to configuration space, besides ECAM: an address at port 0xcf8, data at 0xcfc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConfigPorts {
    /// As on a PC. Firmware and small kernels know no other way.
    #[default]
    Present,
    /// The ports read all ones. Linux, which else uses them for all it can, then makes each access through ECAM: one exit
    /// instead of two.
    Absent,
}

/// The other end of the serial line.
pub struct Console {
    /// Takes what the guest sends, byte by byte. Bytes that it refuses are counted and dropped.
    pub out: Box<dyn Write + Send>,
    /// Called when input that [`Serial::receive`] did not take may be offered again.
    pub room: Box<dyn Fn() + Send + Sync>,
}

/// A root port and where it goes.
#[derive(Debug)]
pub struct PortAt {
    /// Its address, on a root bus or behind another port.
    pub bdf: Bdf,
    /// The port.
    pub port: Arc<RootPort>,
}

/// The board's interrupt lines, for a machine that is not a [`Populated`] partition.
pub struct BoardLines {
    /// A rising edge of the serial port's line.
    pub serial: Box<dyn Fn() + Send + Sync>,
    /// A rising edge of the real-time clock's line.
    pub clock: Box<dyn Fn() + Send + Sync>,
    /// The level of the system control interrupt.
    pub sci: Box<dyn Fn(SciLevel) + Send + Sync>,
}

impl Board {
    /// Where [`HostBridge`] is.
    pub const HOST_BRIDGE: Bdf = Bdf::of_devfn(0, 0, 0x00);
    /// Where [`Lpc`] is.
    pub const LPC: Bdf = Bdf::of_devfn(0, 0, 0x1f << 3);

    /// Builds the board and registers it on the partition's buses and interrupt lines.
    pub fn attach(partition: &Populated, spec: BoardSpec) -> Result<Self, BoardError> {
        let interrupts = partition.interrupts();
        let refused = |device| move |source| BoardError::Interrupt { device, source };
        let serial = interrupts.line(COM1_GSI).map_err(refused("serial port"))?;
        let clock = interrupts.line(RTC_GSI).map_err(refused("real-time clock"))?;
        let sci = interrupts.level_line(SCI_GSI);
        let lines = BoardLines {
            serial: Box::new(move || serial.trigger()),
            clock: Box::new(move || clock.trigger()),
            sci: Box::new(move |level| sci.assert_level(level == SciLevel::Asserted)),
        };
        Self::wire(partition.mmio(), partition.pio(), lines, spec)
    }

    /// The same on buses and lines of the caller's own.
    pub fn wire(
        mmio: &Arc<MmioBus>,
        pio: &Arc<PioBus>,
        lines: BoardLines,
        spec: BoardSpec,
    ) -> Result<Self, BoardError> {
        let BoardSpec {
            console,
            events,
            clock_offset,
            sooner,
            root_buses,
            root_ports,
            config_ports,
            ecam,
            clock_memory,
        } = spec;
        let pci = Arc::new(PciConfig::with_roots(0, &root_buses));
        let _ecam = Arc::new(EcamRange::new(mmio, Arc::new(Ecam::new(Arc::clone(&pci)))));
        _ecam.place(Layout::ECAM).map_err(|source| BoardError::Bus {
            device: "ECAM",
            source,
        })?;
        let functions = place_functions(&pci, root_ports, ecam.bridge(&_ecam))?;
        let serial = Arc::new(Serial::new(lines.serial, console.out).on_room(console.room));
        let rtc = clock(clock_offset, lines.clock, (&events, &sooner));
        let bytes = clock_memory.into_iter();
        let rtc = Arc::new(bytes.fold(rtc, |rtc, (index, value)| rtc.with_byte(index, value)));
        let power = AcpiPm::new(lines.sci, Arc::clone(&events)).on_sooner(move || sooner());
        let power = Arc::new(power);
        let reset = Arc::new(ResetRegister::new(Arc::clone(&events)));
        let (config_base, config_size, config): (_, _, Arc<dyn PioHandler>) = match config_ports {
            ConfigPorts::Present => {
                let ports = PciPorts::new(Arc::clone(&pci), Some(reset));
                (PCI_CONFIG_PORT, PciPorts::PORTS, Arc::new(ports))
            }
            ConfigPorts::Absent => (RESET_PORT, 1, reset),
        };
        let insert = |base: u16, size, device, handler: Arc<dyn PioHandler>| {
            let refused = |source| BoardError::Bus { device, source };
            pio.insert(u64::from(base), size, device, handler)
                .map_err(refused)
        };
        let _ports = vec![
            insert(COM1_PORT, Serial::PORTS, "serial port", Arc::clone(&serial) as _)?,
            insert(RTC_PORT, Rtc::PORTS, "real-time clock", Arc::clone(&rtc) as _)?,
            insert(
                PM_BASE,
                AcpiPm::PORTS,
                "power management",
                Arc::clone(&power) as _,
            )?,
            insert(config_base, config_size, "PCI configuration ports", config)?,
            insert(
                KEYBOARD_COMMAND,
                1,
                "keyboard reset",
                Arc::new(KeyboardReset::new(Arc::clone(&events))),
            )?,
            insert(FAST_RESET, 1, "fast reset", Arc::new(FastReset::new(events)))?,
            insert(DIAGNOSTIC, 1, "diagnostic port", Arc::new(DiagnosticPort))?,
        ];
        Ok(Self {
            _ports,
            _ecam,
            functions,
            pci,
            serial,
            rtc,
            power,
        })
    }

    /// The serial port, for input.
    #[must_use]
    pub fn serial(&self) -> &Arc<Serial> {
        &self.serial
    }

    /// The real-time clock.
    #[must_use]
    pub fn rtc(&self) -> &Arc<Rtc> {
        &self.rtc
    }

    /// Power management, for the power button.
    #[must_use]
    pub fn power(&self) -> &Arc<AcpiPm> {
        &self.power
    }

    /// How long until [`Board::tick`] has something to do; `None` until the guest does something.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        let times = [self.rtc.until_due(), self.power.until_due()];
        times.into_iter().flatten().min()
    }

    /// Raises the interrupts of clock and timer that are due.
    pub fn tick(&self) {
        self.rtc.tick();
        self.power.tick();
    }

    /// PCI configuration, to place further functions.
    #[must_use]
    pub fn pci(&self) -> &Arc<PciConfig> {
        &self.pci
    }

    /// The board's own functions: host bridge, LPC bridge, root ports.
    pub fn functions(&self) -> impl Iterator<Item = Bdf> {
        self.functions.iter().map(Placed::bdf)
    }
}

impl std::fmt::Debug for BoardSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardSpec")
            .field("root_buses", &self.root_buses)
            .field("root_ports", &self.root_ports)
            .field("config_ports", &self.config_ports)
            .finish_non_exhaustive()
    }
}

fn clock(
    offset: i64,
    interrupt: Box<dyn Fn() + Send + Sync>,
    (events, sooner): (&EventSink, &Arc<dyn Fn() + Send + Sync>),
) -> Rtc {
    let (told, sooner) = (Arc::clone(events), Arc::clone(sooner));
    Rtc::new()
        .with_offset(offset)
        .on_interrupt(interrupt)
        .on_sooner(move || sooner())
        .on_set(move |offset| told(BoardEvent::ClockSet { offset }))
}

fn place_functions(
    pci: &Arc<PciConfig>,
    root_ports: Vec<PortAt>,
    host_bridge: HostBridge,
) -> Result<Vec<Placed>, BoardError> {
    let refused = |bdf: Bdf| move |source: PciError| BoardError::Pci { bdf, source };
    let own: [(Bdf, Arc<dyn ConfigHandler>); 2] = [
        (Board::HOST_BRIDGE, Arc::new(host_bridge)),
        (Board::LPC, Arc::new(Lpc::new(PM_BASE))),
    ];
    let mut placed = Vec::with_capacity(own.len() + root_ports.len());
    for (bdf, function) in own {
        placed.push(pci.place(bdf, function).map_err(refused(bdf))?);
    }
    for PortAt { bdf, port } in root_ports {
        placed.push(pci.place_port(bdf, port).map_err(refused(bdf))?);
    }
    Ok(placed)
}

const KEYBOARD_COMMAND: u16 = 0x64;
const FAST_RESET: u16 = 0x92;
const DIAGNOSTIC: u16 = 0x80;
