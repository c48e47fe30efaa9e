//! Linux kernels: read from any file, placed in a guest's memory, with everything the boot protocols want beside them.

mod bzimage;
mod elf;
mod linux;
mod memory_map;
mod placement;
mod pvh;
mod source;
mod zero_page;

pub use bzimage::{BzImageHeader, HeaderError};
pub use linux::Linux;
pub use source::{ReadSeek, SourceFile};
