//! What can go wrong: finding what a disk boots, loading it, describing the board. Each names its subject, the cause and a remedy.

use std::io;
use std::path::PathBuf;

use pellucid_partition::MemoryError;

/// A disk that cannot be booted from, and why.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The disk could not be opened.
    #[error(
        "{disk}: cannot be opened: {source}; name a disk image or a block device that this user may read"
    )]
    Open {
        /// The disk.
        disk: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Something on the disk could not be read or makes no sense.
    #[error(
        "{disk}: {subject} cannot be read: {source}; check the disk with the tools of its system (fsck.vfat, sgdisk -v)"
    )]
    Read {
        /// The disk.
        disk: String,
        /// What was being read.
        subject: String,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no partition table, neither a GUID one nor an MBR.
    #[error("{disk}: no partition table{found}; boot a whole server disk, or give the kernel with --kernel")]
    NoTable {
        /// The disk.
        disk: String,
        /// What is there instead.
        found: &'static str,
    },
    /// There is no EFI system partition, and no GRUB for a BIOS.
    #[error(
        "{disk}: none of its {partitions} partitions is an EFI system partition, nor has one GRUB's configuration on a file system that is read; give the kernel with --kernel"
    )]
    NoEsp {
        /// The disk.
        disk: String,
        /// Partitions in its table.
        partitions: usize,
    },
    /// There is nothing to boot.
    #[error(
        "{disk}: has no entry that a boot loader would show{found}; boot it with --firmware, or give the kernel with --kernel"
    )]
    NoEntry {
        /// The disk.
        disk: String,
        /// What is there instead.
        found: String,
    },
    /// What would be started cannot be told from the disk.
    #[error(
        "{disk}: what it would boot cannot be told: {why}; give the kernel with --kernel, or choose with --entry from: {entries}"
    )]
    Undecided {
        /// The disk.
        disk: String,
        /// Why not.
        why: String,
        /// What can be chosen.
        entries: String,
    },
    /// No entry, or more than one, is named so.
    #[error("{disk}: {found} of its boot entries are named {wanted}; choose with --entry from: {entries}")]
    NoSuchEntry {
        /// The disk.
        disk: String,
        /// The name.
        wanted: String,
        /// Entries with that name.
        found: usize,
        /// What can be chosen.
        entries: String,
    },
    /// The entry that would be booted cannot be.
    #[error(
        "{disk}: its boot loader would start {entry}, but {reason}; boot it with --firmware, or choose with --entry from: {entries}"
    )]
    NotBootable {
        /// The disk.
        disk: String,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
        /// What can be chosen.
        entries: String,
    },
    /// A file that was there has gone.
    #[error(
        "{disk}: {file}, which the boot entry {entry} names, is missing; was the disk written meanwhile?"
    )]
    MissingFile {
        /// The disk.
        disk: String,
        /// The entry.
        entry: String,
        /// The missing file.
        file: String,
    },
}

/// A kernel that cannot be loaded, and why.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be opened.
    #[error("{}: cannot be opened: {source}; name a file that this user may read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file could not be read to its end.
    #[error("{name}: cannot be read: {source}; is the disk it lies on healthy?")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A file that is no kernel, or one that cannot be entered in 64-bit mode.
    #[error(
        "{name}: not a kernel that can be booted: {reason}; give an x86-64 Linux bzImage (version 3.8 or later) or a vmlinux"
    )]
    NotBootable {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kernel of which the end is missing.
    #[error(
        "{name}: the kernel is truncated: {size} bytes, but its header speaks of {needed}; copy the file again"
    )]
    Truncated {
        /// The file.
        name: String,
        /// Bytes that are there.
        size: u64,
        /// Bytes that should be.
        needed: u64,
    },
    /// The kernel does not fit the memory below 4 GiB.
    #[error("{name}: the kernel needs memory up to {} MiB, the logical server has {} MiB below 4 GiB; give it more with --memory", mebibytes(*needed), available >> 20)]
    KernelTooLarge {
        /// The kernel.
        name: String,
        /// Address behind the last byte that it needs.
        needed: u64,
        /// RAM below 4 GiB.
        available: u64,
    },
    /// The initrds do not fit beside the kernel.
    #[error("{names}: initrds of {} MiB do not fit beside the kernel in {} MiB; give the logical server at least {} MiB with --memory", mebibytes(*size), available >> 20, mebibytes(*needed))]
    InitrdTooLarge {
        /// The files.
        names: String,
        /// Their bytes together.
        size: u64,
        /// Memory that the kernel can take an initrd in.
        available: u64,
        /// Memory with which it would fit.
        needed: u64,
    },
    /// The command line is longer than the kernel reads.
    #[error("the command line of {name} has {length} bytes, the kernel reads {limit}; shorten it")]
    CommandLineTooLong {
        /// The kernel.
        name: String,
        /// Bytes.
        length: usize,
        /// Bytes that it reads.
        limit: u64,
    },
    /// Guest memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A board that cannot be described to an operating system.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// No CPU, or more than the tables' space holds.
    #[error("{count} CPUs cannot be described; a logical server has 1 to {limit}")]
    CpuCount {
        /// CPUs asked for.
        count: usize,
        /// CPUs that fit.
        limit: usize,
    },
    /// A window that is empty or lies where it cannot.
    #[error("the {name} window {start:#x} to {end:#x} cannot be described: {reason}")]
    Window {
        /// Which one.
        name: &'static str,
        /// Its first address.
        start: u64,
        /// The address behind it.
        end: u64,
        /// Why.
        reason: &'static str,
    },
    /// A root bus that has what is not there, or what is another's.
    #[error("the root bus {bus:02x} cannot be described: {reason}")]
    RootBus {
        /// Its number.
        bus: u8,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A root port that is not on a root bus, or is named twice.
    #[error(
        "the root port {port} cannot be described: {reason}; root ports are on root buses of domain 0000, each at an address of its own"
    )]
    RootPort {
        /// Its address.
        port: pellucid_partition::Bdf,
        /// Why.
        reason: &'static str,
    },
    /// NUMA nodes that make no sense.
    #[error("the NUMA nodes cannot be described: {reason}")]
    Nodes {
        /// What is expected of them.
        reason: &'static str,
    },
    /// The tables are larger than the room for them.
    #[error("the ACPI tables take {size} bytes, there is room for {limit}; use fewer CPUs or root ports")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Room.
        limit: usize,
    },
    /// Guest memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
