#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod board;
mod debug_console;
mod error;
mod event;
mod firmware;
mod flash;
mod fw_cfg;
mod pci;
mod ports;
mod power;
mod reset;
mod rtc;
mod serial;

pub use board::{Board, BoardLines, BoardSpec, ConfigPorts, Console, EcamPlace, PortAt};
pub use debug_console::DebugConsole;
pub use error::{BoardError, FwCfgError, PciError};
pub use event::{BoardEvent, EventSink};
pub use firmware::{Firmware, FirmwareSpec, clock_memory};
pub use flash::{Flash, FlashMode, FlashStore};
pub use fw_cfg::FwCfg;
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
