//! One error enum per step. Each names its subject, keeps the kernel's own error, and says what would help.

mod bus;
mod claim;
mod cpu;
mod machine;
mod memory;
mod plan;

pub use bus::BusError;
pub use claim::ClaimError;
pub use cpu::CpuError;
pub use machine::{InterruptError, VmError};
pub use memory::{MemoryError, PopulateError};
pub use plan::{LayoutError, PlanError, SpecError, SurveyError};

/// What can fail between a plan and a partition with memory.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// A claim was not granted.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// KVM refused.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Memory could not be made resident.
    #[error(transparent)]
    Populate(#[from] PopulateError),
    /// Interrupt wiring refused.
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

/// Bytes as a person writes them.
pub(crate) fn in_words(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}
