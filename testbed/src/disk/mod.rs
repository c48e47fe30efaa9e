//! The demo disk: an ordinary Debian 12 server, built without mounts, the same from the same recipe and packages.
//! `recipe` says what is on it, `layout` where; `build` makes and caches it; `proof` tells what a boot changed.
//! The functions of `image` make smaller disks, with and without tables and entries, for tests.

mod build;
mod error;
pub mod image;
mod layout;
mod proof;
mod recipe;
mod sources;
mod tool;

pub use build::ServerDisk;
pub use error::DiskError;
pub use layout::{Layout, MIB, SECTOR};
pub use proof::{Fingerprint, digest};
pub use recipe::{Choices, Identity, Recipe};
pub use tool::copy_sparse;
