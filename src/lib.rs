#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod absent;
mod bay;
mod boot;
mod cards;
mod check;
mod error;
mod event;
mod firmware;
mod identity;
mod lent;
mod loaded;
mod machine;
mod numa;
mod offer;
mod plugging;
mod policy;
mod predicted;
mod root_drivers;
mod seen;
mod server;
mod spec;
mod taken;
mod topology;
mod tree;

pub use check::{Checked, Examination};
pub use error::{
    BootError, CheckError, LendError, MachineError, PlugError, StartError, TopologyError, UnplugError,
    VariablesError,
};
pub use event::ServerEvent;
pub use firmware::FirmwareSource;
pub use identity::{CheckWarning, SmbiosPolicy, SmbiosPolicyError};
pub use machine::Machine;
pub use offer::Offer;
pub use policy::{DevicePolicy, Reaction, ReactionError};
pub use root_drivers::controller_of;
pub use server::{Console, EventSink, FinishError, LogicalServer, MemoryStep, ProgressSink, Then};
pub use spec::{CpuPolicy, DeviceSource, DeviceSpec, ServerSpec, Source, VirtualFunction};

pub use pellucid_chipset as chipset;
pub use pellucid_image as image;
pub use pellucid_partition as partition;
pub use pellucid_passthrough as passthrough;
pub use pellucid_twin as twin;
pub use pellucid_vcpu as vcpu;
