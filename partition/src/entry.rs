//! Where the first vCPU begins: what an image loader hands to the run loops.

use vm_memory::GuestAddress;

/// The state in which vCPU 0 enters the loaded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The 64-bit Linux boot protocol: long mode, identity-mapped, `rsi` at the boot parameters.
    Linux64 {
        /// First instruction.
        rip: GuestAddress,
        /// The "zero page" (`struct boot_params`).
        boot_params: GuestAddress,
    },
    /// The PVH protocol: 32-bit protected mode without paging, `ebx` at the start info.
    Pvh {
        /// First instruction.
        rip: GuestAddress,
        /// `struct hvm_start_info`.
        start_info: GuestAddress,
    },
    /// 16-bit real mode: `cs` is `cs_base >> 4`.
    Real {
        /// Base of the code segment, 16-byte aligned, below 1 MiB.
        cs_base: GuestAddress,
        /// Offset of the first instruction.
        ip: u16,
    },
    /// The architectural reset vector, 16 bytes below 4 GiB, as firmware wants it.
    Reset,
}
