#![doc = include_str!("../README.md")]

mod address;
mod bdf;
pub mod board;
mod bus;
mod cgroup;
mod claim;
mod cpu;
mod entry;
mod error;
mod handler;
mod heal;
mod host_marks;
mod interrupt;
mod inventory;
mod layout;
mod memory;
mod owner;
mod plan;
mod populate;
mod populated;
mod reserved;
mod spec;
mod state_dir;
mod step;
#[allow(
    unsafe_code,
    reason = "mmap, madvise, file locks and KVM memory slots have no safe interface; sys/ gives them one"
)]
mod sys;
mod vm;

pub use address::{GuestAddress, HostAddress, IoAddress};
pub use bdf::{Bdf, BdfError};
pub use bus::{Bus, BusRange, LastHit, MmioBus, PioBus, RangeCount};
pub use cgroup::{CgroupHealer, CgroupTree, CpuIsolation, Isolation};
pub use claim::{Claim, ClaimRecord, Holding, Resource, Undo};
pub use cpu::{
    Cap, CpuEvent, CpuHold, CpuInterval, CpuSeat, CpuShare, CpuTerms, CpuUsage, CpuWatch, WatchLimits, Weight,
};
pub use entry::Entry;
pub use error::{
    BusError, ClaimError, CpuError, InterruptError, LayoutError, MemoryError, PartitionError, PlanError,
    PopulateError, SpecError, SurveyError, VmError,
};
pub use handler::{ConfigHandler, MmioHandler, PioHandler};
pub use heal::{HealEntry, HealOutcome, Healer};
pub use interrupt::{Gsi, Interrupts, IrqLine, LevelLine, MsiMessage, MsiVector, ResampleLine};
pub use inventory::{
    Cache, CacheKind, Cgroup, CgroupHome, CgroupVersion, CoreKind, Cpu, Held, HeldMemory, Holder, Inventory,
    KvmFacts, Node,
};
pub use layout::{Layout, RamRange, Reach, ReservedRange};
pub use memory::residence::{Misplaced, Residence};
pub use memory::{
    ByteValued, GuestMemory, Le16, Le32, Le64, MemorySubscriber, Region, RegionSpec, Subscription, VmMemory,
};
pub use owner::{Owner, Standing, Started};
pub use plan::{Plan, PlanNode, Planner};
pub use populate::Progress;
pub use populate::budget::LockBudget;
pub use populated::Populated;
pub use reserved::Reserved;
pub use spec::{CpuMode, CpuRequest, NodeRequest, PageSize, PartitionSpec, Siblings};
pub use state_dir::StateDir;
pub use step::{STEP_TARGET, step};
pub use sys::mapping::{Backing, Mapping, keep_from_children};
pub use sys::peer::Peer;
pub use sys::ram::RamRegion;
pub use sys::slot::Slot;
pub use vm::{Access, Vm};
