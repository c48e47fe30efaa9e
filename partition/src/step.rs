//! Steps: the moments at which something of the host changes, so that each of them can be watched.

/// The target under which steps are traced: an event before each (`done` = false) and one after it (`done` = true).
///
/// A subscriber that ends the process at the Nth of these events stops it between every two changes of the host, in turn.
pub const STEP_TARGET: &str = "pellucid::step";

/// Does one step, which changes one thing of the host, and traces it.
pub fn step<T>(name: &'static str, act: impl FnOnce() -> T) -> T {
    tracing::trace!(target: STEP_TARGET, name, done = false);
    let outcome = act();
    tracing::trace!(target: STEP_TARGET, name, done = true);
    outcome
}
