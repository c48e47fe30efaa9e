//! The kernel's own counters of a vCPU, read from its binary statistics file (Documentation/virt/kvm/api.rst, 4.133).
//!
//! They count every exit from the guest, also those that KVM answers itself. Where the kernel has no such file there are none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use kvm_ioctls::VcpuFd;

use crate::sys;

/// A vCPU's statistics, its layout already read.
#[derive(Debug)]
pub(crate) struct StatsFile {
    file: File,
    /// Position in the file of each of `KernelExits`' counters.
    places: [Option<u64>; NAMES.len()],
}

/// Exits of one vCPU as its kernel counts them, whoever answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelExits {
    /// All exits from the guest.
    pub total: u64,
    /// Port I/O.
    pub io: u64,
    /// MMIO that left the kernel.
    pub mmio: u64,
    /// HLT instructions.
    pub halt: u64,
    /// Host interrupts while the guest ran.
    pub interrupt: u64,
    /// Signals to the vCPU thread.
    pub signal: u64,
}

impl StatsFile {
    /// Opens and understands the statistics of `vcpu`.
    pub(crate) fn open(vcpu: &VcpuFd) -> io::Result<Self> {
        let file = sys::stats::open(vcpu)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let word = |at: usize| u32_at(&header, at);
        let (name_size, count, descriptors, data) = (word(4), word(8), word(16), word(20));
        if name_size > MOST_NAME || count > MOST_COUNT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "KVM's statistics have an unknown shape",
            ));
        }
        let mut table = vec![0; (count as usize) * (DESCRIPTOR + name_size as usize)];
        file.read_exact_at(&mut table, u64::from(descriptors))?;
        let places = NAMES.map(|name| find(&table, name_size as usize, name).map(|at| u64::from(data) + at));
        Ok(Self { file, places })
    }

    /// The counters now.
    pub(crate) fn read(&self) -> io::Result<KernelExits> {
        let mut values = [0; NAMES.len()];
        for (value, place) in values.iter_mut().zip(self.places) {
            let mut word = [0; 8];
            if let Some(place) = place {
                self.file.read_exact_at(&mut word, place)?;
            }
            *value = u64::from_le_bytes(word);
        }
        let [total, io, mmio, halt, interrupt, signal] = values;
        Ok(KernelExits {
            total,
            io,
            mmio,
            halt,
            interrupt,
            signal,
        })
    }
}

/// The offset, inside the data block, of the counter `name` in a table of descriptors.
fn find(table: &[u8], name_size: usize, name: &str) -> Option<u64> {
    table.chunks_exact(DESCRIPTOR + name_size).find_map(|descriptor| {
        let written = descriptor[DESCRIPTOR..].split(|&byte| byte == 0).next()?;
        (written == name.as_bytes()).then(|| u64::from(u32_at(descriptor, 8)))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// `arch/x86/kvm/x86.c`, `kvm_vcpu_stats_desc`, in the order of `KernelExits`.
const NAMES: [&str; 6] = [
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "signal_exits",
];
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;
const MOST_NAME: u32 = 256;
const MOST_COUNT: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(name: &str, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR + 16];
        bytes[8..12].copy_from_slice(&offset.to_le_bytes());
        bytes[DESCRIPTOR..DESCRIPTOR + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn a_counter_is_found_by_its_whole_name_only() {
        let table = [
            descriptor("io_exits", 8),
            descriptor("exits", 16),
            descriptor("exits_of_late", 24),
        ]
        .concat();
        assert_eq!(find(&table, 16, "exits"), Some(16));
        assert_eq!(find(&table, 16, "io_exits"), Some(8));
        assert_eq!(find(&table, 16, "exit"), None);
    }

    #[test]
    fn a_torn_table_finds_nothing_and_does_not_panic() {
        let table = descriptor("exits", 16);
        assert_eq!(find(&table[..table.len() - 1], 16, "exits"), None);
        assert_eq!(find(&[], 16, "exits"), None);
    }
}
