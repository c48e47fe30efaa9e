//! What the publication and the ownership of counters are made of. `tests/loom_bus.rs` puts the model checker's own in their place.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) use arc_swap::ArcSwap;
