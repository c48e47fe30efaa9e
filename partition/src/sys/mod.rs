//! The only unsafe code of this crate: mappings, KVM memory slots, page population, file locks, scheduling policy, who is at
//! the other end of a socket, what becomes of late timer ticks.
//!
//! The border is safe functions over owned types; docs/soundness.md has the invariant of each surface.

pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod pages;
pub(crate) mod peer;
pub(crate) mod ram;
pub(crate) mod schedule;
pub(crate) mod slot;
pub(crate) mod timer;
