//! What can be refused: a topology, the making of vCPUs, their start, and their stop.

use std::io;
use std::time::Duration;

use pellucid_partition::{CpuError, MemoryError};

use crate::meter::Place;

/// A topology that cannot be told to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A thread count that APIC ids cannot number without gaps.
    #[error("{threads_per_core} threads per core cannot be numbered without gaps: 1, 2 or 4 can")]
    Threads {
        /// As asked.
        threads_per_core: u32,
    },
    /// The last core would lack threads.
    #[error(
        "{vcpus} vCPUs are no whole number of cores of {threads_per_core} threads: change one of the two"
    )]
    Incomplete {
        /// As asked.
        vcpus: u32,
        /// As asked.
        threads_per_core: u32,
    },
}

/// vCPUs that could not be parked. The partition is as before, but for the VM's vCPU numbers that were used.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    /// KVM did not make a vCPU.
    #[error("vCPU {vcpu} could not be created: {source}{}", remedy(source))]
    Create {
        /// Which one.
        vcpu: u32,
        /// KVM's reason.
        source: io::Error,
    },
    /// KVM did not tell what it can show a guest.
    #[error("KVM does not tell which CPUID it supports: {source}")]
    Supported {
        /// KVM's reason.
        source: io::Error,
    },
    /// KVM did not take a part of the vCPU's state.
    #[error("vCPU {vcpu}: {step} was refused: {source}")]
    State {
        /// Which one.
        vcpu: u32,
        /// The ioctl.
        step: &'static str,
        /// KVM's reason.
        source: io::Error,
    },
    /// KVM did not take a model-specific register.
    #[error("vCPU {vcpu}: KVM refused MSR {msr:#x} = {value:#x}; this host's KVM is too old or too strict")]
    Msr {
        /// Which one.
        vcpu: u32,
        /// The register.
        msr: u32,
        /// The value it was to have.
        value: u64,
    },
    /// The entry's page tables could not be written.
    #[error("the entry's tables at {address:#x} could not be written: {source}")]
    Memory {
        /// Guest-physical address.
        address: u64,
        /// Why.
        source: MemoryError,
    },
    /// A real-mode entry that no code segment can have.
    #[error("a real-mode entry at {cs_base:#x} is not below 1 MiB and 16-byte aligned: load the code there")]
    RealEntry {
        /// As asked.
        cs_base: u64,
    },
    /// A topology for another number of vCPUs.
    #[error("the topology has {topology} vCPUs, the plan {plan}: make it for the plan's number")]
    Topology {
        /// vCPUs of the topology.
        topology: u32,
        /// vCPUs of the plan.
        plan: u32,
    },
}

/// vCPU threads that could not be started. The guest has executed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The signal that ends `KVM_RUN` could not be prepared.
    #[error("signal {signal}, which stops vCPUs, could not be prepared: {source}")]
    Signal {
        /// Its number.
        signal: i32,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("no thread for vCPU {vcpu}: {source}; raise the limit on processes (ulimit -u, pids.max)")]
    Thread {
        /// Which one.
        vcpu: u32,
        /// Why.
        source: io::Error,
    },
    /// A vCPU's thread could not be put where the partition's CPUs are.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A thread ended before it said anything.
    #[error("a vCPU thread ended before it began; the process is short of something it did not name")]
    Vanished,
}

/// vCPUs that did not stop in time.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// These vCPUs have not left what they are in.
    #[error("after {timeout:?} {}{}", stuck(vcpus), unsent(signal.as_ref()))]
    Stuck {
        /// How long was waited.
        timeout: Duration,
        /// Each with what it is in.
        vcpus: Vec<(u32, Place)>,
        /// Why a signal could not be sent, if one could not.
        #[source]
        signal: Option<io::Error>,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EEXIST) => "; this VM has vCPUs already: populate a partition anew",
        Some(libc::EINVAL) => "; ask for no more vCPUs than KVM allows",
        _ => "",
    }
}

fn stuck(vcpus: &[(u32, Place)]) -> String {
    let each: Vec<_> = vcpus
        .iter()
        .map(|(vcpu, place)| format!("vCPU {vcpu} is still in {place}"))
        .collect();
    each.join(", ")
}

fn unsent(signal: Option<&io::Error>) -> String {
    signal.map_or_else(String::new, |error| {
        format!("; its signal could not be sent ({error}): raise ulimit -i")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_stop_names_each_vcpu_its_place_and_a_lost_signal() {
        let vcpus = vec![(0, Place::Guest), (2, Place::Mmio(0xd000_0000))];
        let signal = Some(io::Error::from_raw_os_error(libc::EAGAIN));
        let text = StopError::Stuck {
            timeout: Duration::from_millis(50),
            vcpus,
            signal,
        }
        .to_string();
        for part in [
            "50ms",
            "vCPU 0 is still in the guest",
            "vCPU 2",
            "0xd0000000",
            "os error 11",
            "ulimit -i",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn too_many_vcpus_are_told_from_used_ones() {
        let text = |errno| {
            ParkError::Create {
                vcpu: 9,
                source: io::Error::from_raw_os_error(errno),
            }
            .to_string()
        };
        assert!(text(libc::EEXIST).contains("vCPU 9") && text(libc::EEXIST).contains("anew"));
        assert!(text(libc::EINVAL).contains("no more vCPUs"));
        assert!(text(libc::ENOMEM).contains("os error 12"));
    }
}
