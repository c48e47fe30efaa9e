//! Unified kernel images (UAPI.5): one EFI program that holds a kernel, its initrd and its command line. Only headers and short
//! texts are read here; kernel and initrd stay in the file until they are loaded.

mod image;
mod os_release;
mod pe;

pub use image::{Profile, UkiError, UnifiedKernel};
pub use os_release::OsRelease;
pub(crate) use pe::Program;
