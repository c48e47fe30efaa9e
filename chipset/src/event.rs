//! What the board tells its owner: the guest asked for power off or for a reset, or set its clock.

use std::sync::Arc;

/// What a guest asked for, or did, that outlives the present run of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BoardEvent {
    /// The guest entered ACPI state S5.
    PowerOff,
    /// The guest asked for a reset of the machine.
    Reset,
    /// The guest set its clock.
    ClockSet {
        /// How many seconds it is ahead of the host's now.
        offset: i64,
    },
}

/// Where board events go.
///
/// It is called on the vCPU thread that made the access, must not block, and may be called again with the same
/// event: a guest can write the reset register as often as it likes before it is stopped.
pub type EventSink = Arc<dyn Fn(BoardEvent) + Send + Sync>;
