#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod board;
mod error;
mod event;
mod pci;
mod ports;
mod power;
mod reset;
mod rtc;
mod serial;

pub use board::{Board, BoardLines, BoardSpec, ConfigPorts, Console, PortAt};
pub use error::{BoardError, PciError};
pub use event::{BoardEvent, EventSink};
pub use pci::config::{PciConfig, Placed};
pub use pci::ecam::Ecam;
pub use pci::host_bridge::HostBridge;
pub use pci::lpc::Lpc;
pub use pci::placeholder::Placeholder;
pub use pci::ports::PciPorts;
pub use pci::root_port::RootPort;
pub use pci::slot::{Indicator, SlotState};
pub use pci::windows::{BusNumbers, Link, PortIdentity, PortKind, RootPortSpec, Windows};
pub use power::{AcpiPm, SciLevel};
pub use reset::{DiagnosticPort, FastReset, KeyboardReset, ResetRegister};
pub use rtc::Rtc;
pub use serial::Serial;
