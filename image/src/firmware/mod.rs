//! UEFI firmware as files: the code, the store of its variables, and an entry in the boot order.

mod code;
mod error;
mod program;
mod record;
mod variables;

pub use code::FirmwareCode;
pub use error::FirmwareError;
pub use program::EfiProgram;
pub use variables::{StoreWrite, Variable, VariableStore};

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..N)?
        .copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}
