//! What is in an initrd, as far as it decides whether the kernel finds its root: which driver modules it has.
//!
//! Nothing is unpacked. Archives are read to their names, compressed ones through decoders whose memory and output are bounded.

mod archive;
mod compression;
mod controller;
mod modules;

pub use controller::StorageController;
pub use modules::{InitrdModules, Presence};
