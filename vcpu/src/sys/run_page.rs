//! The head of a vCPU's `kvm_run`, mapped a second time, so that it can be read and its bell raised while the vCPU thread is inside.
//!
//! The mapping is this module's own, apart from the one in `VcpuFd`: no Rust reference into it exists but to one atomic byte, and all
//! else is read by volatile copies. What is read is what the kernel wrote; it is checked here as an allegation.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{kvm_run, kvm_run__bindgen_ty_1__bindgen_ty_4 as Io};
use kvm_ioctls::VcpuFd;
use pellucid_partition::keep_from_children;

/// One page of `kvm_run`; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct RunPage {
    page: NonNull<u8>,
}

impl RunPage {
    /// Maps the head of `vcpu`'s `kvm_run` once more.
    pub(crate) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        let (flags, access) = (libc::MAP_SHARED, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing; the descriptor is open, being borrowed.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, flags, vcpu.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page =
            NonNull::new(page.cast()).ok_or_else(|| io::Error::other("the kernel mapped page zero"))?;
        let own = Self { page };
        keep_from_children(page, PAGE)?;
        Ok(own)
    }

    /// Makes the next `KVM_RUN` return at once with EINTR, once pending I/O is complete.
    pub(crate) fn raise(&self) {
        self.bell().store(1, Ordering::SeqCst);
    }

    /// Lets `KVM_RUN` execute the guest again.
    pub(crate) fn lower(&self) {
        self.bell().swap(0, Ordering::SeqCst);
    }

    /// Bytes of each item of the I/O exit at hand: 1, 2 or 4.
    pub(crate) fn io_item_size(&self) -> usize {
        let size: u8 = self.load(UNION + offset_of!(Io, size));
        usize::from(size.clamp(1, 4))
    }

    /// The reason of the exit at hand (`KVM_EXIT_*`).
    pub(crate) fn exit_reason(&self) -> u32 {
        self.load(offset_of!(kvm_run, exit_reason))
    }

    /// Suberror and data of the `KVM_EXIT_INTERNAL_ERROR` at hand.
    pub(crate) fn internal_error(&self) -> (u32, Vec<u64>) {
        let words: u32 = self.load(UNION + 4);
        let words = (words as usize).min(INTERNAL_ERROR_WORDS);
        (
            self.load(UNION),
            (0..words).map(|word| self.load(UNION + 8 + 8 * word)).collect(),
        )
    }

    fn bell(&self) -> &AtomicU8 {
        let bell = self
            .page
            .as_ptr()
            .wrapping_add(offset_of!(kvm_run, immediate_exit));
        // SAFETY: one byte inside the page that `self` keeps mapped, aligned as any byte; this module makes only atomic accesses to
        // it, and the kernel reads it with READ_ONCE.
        unsafe { AtomicU8::from_ptr(bell) }
    }

    fn load<T: Word>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= PAGE && offset.is_multiple_of(align_of::<T>()));
        let from = self.page.as_ptr().wrapping_add(offset).cast::<T>();
        // SAFETY: the assertion keeps the aligned read inside the mapped page; `Word` types are valid for any bytes, and volatile
        // because the kernel writes here.
        unsafe { from.read_volatile() }
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `map` made; its only references are tied to borrows of `self`, which have ended.
        let result = unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
        debug_assert_eq!(result, 0, "the page was mapped by us");
    }
}

// SAFETY: the page is owned, not tied to a thread, and the kernel keeps it as long as it is mapped.
unsafe impl Send for RunPage {}
// SAFETY: through a shared reference there are only an atomic byte and volatile reads of what the kernel writes; a reader beside the
// vCPU thread may see a mixture of two exits, which is why only the thread itself reads exits.
unsafe impl Sync for RunPage {}

/// Integers that `load` may make of any bytes.
trait Word: Copy {}
impl Word for u8 {}
impl Word for u32 {}
impl Word for u64 {}

const PAGE: usize = 4096;
const UNION: usize = offset_of!(kvm_run, __bindgen_anon_1);
/// `struct { __u32 suberror; __u32 ndata; __u64 data[16]; } internal` in the kernel's header.
const INTERNAL_ERROR_WORDS: usize = 16;
const _: () = assert!(size_of::<kvm_run>() <= PAGE);
