//! The atomics of the stop word. `tests/loom_stop.rs` puts the model checker's own in their place.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
