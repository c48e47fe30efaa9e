//! The KVM virtual machine: created whole (in-kernel interrupt controllers and timer), its memory slots owned by values.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::GuestAddress;

use crate::error::VmError;
use crate::interrupt::routes::controller_routes;
use crate::layout::Layout;
use crate::sys::mapping::{Backing, Mapping};
use crate::sys::slot::Slot;
use crate::sys::timer;

/// Whether the guest may write a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes go to the mapping.
    ReadWrite,
    /// Writes leave the guest as MMIO exits.
    ReadOnly,
}

/// A KVM VM with in-kernel local APICs, I/O APIC, PICs and PIT, and no memory yet.
pub struct Vm {
    kvm: Kvm,
    fd: VmFd,
    slots: Mutex<SlotNumbers>,
}

impl Vm {
    /// Opens `/dev/kvm` and creates the VM.
    pub fn create() -> Result<Self, VmError> {
        Self::create_on(Path::new("/dev/kvm"))
    }

    /// The same with another path to KVM's device.
    pub fn create_on(path: &Path) -> Result<Self, VmError> {
        let kvm = open(path)?;
        let fd = kvm
            .create_vm()
            .map_err(|e| VmError::refused("KVM_CREATE_VM", e))?;
        let step = |what: &'static str| move |e| VmError::refused(what, e);
        fd.set_identity_map_address(Layout::KVM_IDENTITY_MAP)
            .map_err(step("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(Layout::KVM_TSS as usize)
            .map_err(step("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(step("KVM_CREATE_IRQCHIP"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        let routes = KvmIrqRouting::from_entries(&controller_routes());
        let routes = routes.map_err(|_| step("KVM_SET_GSI_ROUTING")(kvm_ioctls::Error::new(libc::E2BIG)))?;
        fd.set_gsi_routing(&routes).map_err(step("KVM_SET_GSI_ROUTING"))?;
        fd.create_pit2(pit).map_err(step("KVM_CREATE_PIT2"))?;
        Ok(Self {
            kvm,
            fd,
            slots: Mutex::default(),
        })
    }

    /// The system handle, for questions about what this host's KVM supports.
    #[must_use]
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The VM's handle.
    #[must_use]
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Has the timer drop ticks that come while the guest has not yet acknowledged an earlier one, as hardware does. Otherwise KVM makes up for
    /// each of them, which keeps old operating systems' clocks right, and lets a guest that is slower than its ticks do nothing else.
    pub fn drop_late_ticks(&self) -> Result<(), VmError> {
        timer::drop_late_ticks(&self.fd).map_err(|source| VmError::Refused {
            ioctl: "KVM_REINJECT_CONTROL",
            source,
        })
    }

    /// Shows `mapping` to the guest at `guest` until the slot is dropped.
    pub fn map_slot(
        self: &Arc<Self>,
        guest: GuestAddress,
        mapping: Arc<Mapping>,
        access: Access,
    ) -> Result<Slot, VmError> {
        self.show(guest, mapping, access)
    }

    /// The same for any backing: RAM is one too.
    pub(crate) fn show(
        self: &Arc<Self>,
        guest: GuestAddress,
        backing: Arc<dyn Backing>,
        access: Access,
    ) -> Result<Slot, VmError> {
        let number = self.free_slot()?;
        let (address, size) = (guest.0, backing.size());
        Slot::fill(self, number, (guest, access), backing).map_err(|source| {
            self.return_slot(number);
            VmError::Slot {
                guest: address,
                size,
                source: errno(source),
            }
        })
    }

    fn free_slot(&self) -> Result<u32, VmError> {
        let most = self.kvm.get_nr_memslots();
        self.numbers().take(most).ok_or(VmError::NoSlot { most })
    }

    pub(crate) fn return_slot(&self, number: u32) {
        self.numbers().give_back(number);
    }

    fn numbers(&self) -> MutexGuard<'_, SlotNumbers> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which slot numbers are taken.
#[derive(Default)]
struct SlotNumbers {
    taken: Vec<bool>,
}

impl SlotNumbers {
    /// The lowest free number below `most`.
    fn take(&mut self, most: usize) -> Option<u32> {
        let free = self.taken.iter().position(|taken| !taken);
        let number = free.unwrap_or(self.taken.len());
        if number >= most {
            return None;
        }
        match self.taken.get_mut(number) {
            Some(taken) => *taken = true,
            None => self.taken.push(true),
        }
        u32::try_from(number).ok()
    }

    fn give_back(&mut self, number: u32) {
        if let Some(taken) = self.taken.get_mut(number as usize) {
            *taken = false;
        }
    }

    fn count(&self) -> usize {
        self.taken.iter().filter(|taken| **taken).count()
    }
}

impl AsRawFd for Vm {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("fd", &self.fd.as_raw_fd())
            .field("slots", &self.numbers().count())
            .finish_non_exhaustive()
    }
}

/// Opens KVM and checks what every partition needs of it; says what is missing.
pub(crate) fn open(path: &Path) -> Result<Kvm, VmError> {
    let open_error = |source| VmError::Open {
        path: path.to_owned(),
        source,
    };
    // Opened once as a file first: its error says why, and a path with a NUL byte cannot be handed on.
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(open_error)?;
    let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| open_error(std::io::ErrorKind::InvalidInput.into()))?;
    let kvm = Kvm::new_with_path(&text).map_err(|source| open_error(errno(source)))?;
    let version = kvm.get_api_version();
    if version < 0 {
        return Err(open_error(std::io::Error::last_os_error()));
    }
    if version != 12 {
        return Err(VmError::Version { version });
    }
    for (capability, name) in NEEDED {
        if !kvm.check_extension(capability) {
            return Err(VmError::Lacks { capability: name });
        }
    }
    Ok(kvm)
}

pub(crate) fn errno(error: kvm_ioctls::Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.errno())
}

const NEEDED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_free_number_is_taken_and_none_beyond_the_limit() {
        let mut numbers = SlotNumbers::default();
        assert_eq!([0; 3].map(|_| numbers.take(3)), [Some(0), Some(1), Some(2)]);
        assert_eq!(numbers.take(3), None);
        numbers.give_back(1);
        assert_eq!(numbers.take(3), Some(1));
        assert_eq!(numbers.take(4), Some(3));
    }

    proptest! {
        #[test]
        fn no_number_is_given_out_twice_nor_lost(steps in prop::collection::vec(prop::option::of(0u32..8), 0..80)) {
            let (mut numbers, mut held) = (SlotNumbers::default(), std::collections::BTreeSet::new());
            for step in steps {
                match step {
                    Some(number) => {
                        held.remove(&number);
                        numbers.give_back(number);
                    }
                    None => match numbers.take(6) {
                        Some(number) => prop_assert!(number < 6 && held.insert(number)),
                        None => prop_assert_eq!(held.len(), 6),
                    },
                }
                prop_assert_eq!(numbers.count(), held.len());
            }
        }
    }
}
