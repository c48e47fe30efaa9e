#![doc = include_str!("../README.md")]

pub mod bench;
mod cache;
pub mod console;
mod debugger;
pub mod demo;
pub mod disk;
mod error;
pub mod l1;
mod look;
pub mod machine;
pub mod physical;
mod product;
mod progress;
#[cfg(test)]
mod script;
pub mod setup;
mod stale;
pub mod suite;

pub use cache::{Cache, file_digest, hex_digest};
pub use error::{L1Error, MachineError, SetupError};
pub use l1::fault::Fault;
pub use l1::{Job, L1, Outcome};
pub use machine::{Boot, Device, Disk, Identity, Machine, Place};
pub use progress::{Progress, Step};
pub use setup::{Emulator, Testbed};
