//! PCI configuration: who answers at which address, the two ways to ask (ECAM and 0xcf8), and the board's own functions.

pub(crate) mod config;
pub(crate) mod ecam;
pub(crate) mod ecam_range;
pub(crate) mod host_bridge;
pub(crate) mod lpc;
pub(crate) mod placeholder;
pub(crate) mod ports;
pub(crate) mod root_port;
pub(crate) mod slot;
pub(crate) mod space;
pub(crate) mod windows;
