//! The only unsafe code of this crate: a second mapping of `kvm_run`, two ioctls, and the signal that ends `KVM_RUN`.
//!
//! Everything exported from here is safe; each module says what its safety rests on.

pub(crate) mod kick;
pub(crate) mod machine_check;
pub(crate) mod run_page;
pub(crate) mod stats;
