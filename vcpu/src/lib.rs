#![doc = include_str!("../README.md")]

mod atomic;
pub mod cpuid;
mod dispatch;
mod error;
mod event;
mod exit;
mod machine_check;
mod maker;
mod meter;
mod parked;
mod registers;
mod running;
mod seat;
mod stats;
mod stop_word;
mod stopped;
#[expect(
    unsafe_code,
    reason = "a second mapping of kvm_run, two ioctls and the stop signal"
)]
mod sys;
mod topology;

pub use cpuid::Hypervisor;
pub use error::{ParkError, StartError, StopError, TopologyError};
pub use event::{Crash, SystemRequest, VcpuEvent};
pub use meter::{ExitCounts, ExitReason, Meter, Place};
pub use parked::{Parked, VcpuPolicy, address_bits};
pub use running::Running;
pub use stats::KernelExits;
pub use stopped::{End, Stopped, StoppedVcpu};
pub use topology::Topology;
