//! The firmware configuration device of QEMU's machines (docs/specs/fw_cfg.rst there): items by key and files by name, read byte
//! by byte through ports or copied into guest memory. What does not exist reads zeros, as there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{GuestMemory, Layout, PioHandler};

use crate::error::FwCfgError;

mod dma;

/// Twelve ports from 0x510: selector, data, and the address of a transfer.
pub struct FwCfg {
    memory: GuestMemory,
    state: Mutex<State>,
    watch: Box<dyn Fn(&str) + Send + Sync>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<u16, Arc<[u8]>>,
    /// Names of the items from [`FIRST_FILE`] on.
    names: Vec<String>,
    /// The item selected, as it was then, and how far it has been read.
    selected: Option<Arc<[u8]>>,
    at: usize,
    /// The upper half of the next transfer's address.
    address: u32,
}

impl FwCfg {
    /// The number of ports it takes.
    pub const PORTS: u64 = 12;
    /// How many CPUs start with the machine: 2 bytes, little-endian, as all numbers in items but those of the directory.
    pub const CPUS: u16 = 0x05;
    /// How many CPUs the machine can have: 2 bytes.
    pub const MAX_CPUS: u16 = 0x0f;

    /// A device that has only its signature, and copies to `memory`.
    #[must_use]
    pub fn new(memory: GuestMemory) -> Self {
        let mut state = State::default();
        state.items.insert(SIGNATURE, Arc::from(*b"QEMU"));
        state.items.insert(FEATURES, Arc::from(3u32.to_le_bytes()));
        state.rebuild_directory();
        Self {
            memory,
            state: Mutex::new(state),
            watch: Box::new(|_| ()),
        }
    }

    /// Has `watch` called with a file's name each time the guest selects it, before anything of it is read. It may put files.
    #[must_use]
    pub fn on_select(mut self, watch: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.watch = Box::new(watch);
        self
    }

    /// Puts an item under a key below 0x20 other than signature, features and directory; those, and keys of files, are left alone.
    pub fn put_item(&self, key: u16, bytes: &[u8]) {
        if key < FIRST_FILE && !matches!(key, SIGNATURE | FEATURES | DIRECTORY) {
            self.state().items.insert(key, bytes.into());
        }
    }

    /// Adds a file, or replaces its content. A guest that has selected it reads on in the old one.
    ///
    /// # Errors
    /// The name has more than 55 bytes or a zero among them, or there are too many files.
    pub fn put_file(&self, name: &str, bytes: &[u8]) -> Result<(), FwCfgError> {
        let refused = |reason| FwCfgError {
            name: name.to_owned(),
            reason,
        };
        if name.is_empty() || name.len() >= NAME || name.contains('\0') {
            return Err(refused("a name has 1 to 55 bytes, none of them zero"));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(refused("a file has less than 4 GiB"));
        }
        let mut state = self.state();
        let known = state.names.iter().position(|known| known == name);
        let index = known.unwrap_or(state.names.len());
        if index >= MOST_FILES {
            return Err(refused("the directory is full"));
        }
        if known.is_none() {
            state.names.push(name.to_owned());
        }
        state.items.insert(FIRST_FILE + index as u16, bytes.into());
        state.rebuild_directory();
        Ok(())
    }

    /// Tells of RAM and CPUs: `etc/e820`, [`FwCfg::CPUS`] and [`FwCfg::MAX_CPUS`].
    ///
    /// # Errors
    /// There are too many files.
    pub fn describe(&self, layout: &Layout, cpus: u16) -> Result<(), FwCfgError> {
        let ram = layout.ram().iter().map(|ram| (ram.start, ram.size(), RAM));
        let kvm = (
            Layout::KVM_IDENTITY_MAP,
            Layout::KVM_TSS + 3 * 4096 - Layout::KVM_IDENTITY_MAP,
            RESERVED,
        );
        let map = ram.chain([kvm]).flat_map(|(start, size, kind)| {
            [&start.to_le_bytes()[..], &size.to_le_bytes(), &kind.to_le_bytes()].concat()
        });
        self.put_file("etc/e820", &map.collect::<Vec<_>>())?;
        self.put_item(Self::CPUS, &cpus.to_le_bytes());
        self.put_item(Self::MAX_CPUS, &cpus.to_le_bytes());
        Ok(())
    }

    /// Selects an item and tells of it if it is a file.
    fn select(&self, key: u16) {
        // Bits 15 and 14 say what QEMU does not have here: architecture-local items and the right to write.
        let name = key
            .checked_sub(FIRST_FILE)
            .and_then(|index| self.state().names.get(usize::from(index)).cloned());
        if let Some(name) = name {
            (self.watch)(&name);
        }
        let mut state = self.state();
        state.selected = state.items.get(&key).cloned();
        state.at = 0;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PioHandler for FwCfg {
    fn read(&self, offset: u16, data: &mut [u8]) {
        match offset {
            DATA if data.len() == 1 => self.state().take(data),
            DMA..=LAST => {
                for (byte, at) in data.iter_mut().zip(usize::from(offset - DMA)..) {
                    *byte = DMA_SIGNATURE.get(at).copied().unwrap_or(0xff);
                }
            }
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (DMA, &[a, b, c, d]) => self.state().address = u32::from_be_bytes([a, b, c, d]),
            (DMA_LOW, &[a, b, c, d]) => {
                let high = std::mem::take(&mut self.state().address);
                self.transfer(u64::from(high) << 32 | u64::from(u32::from_be_bytes([a, b, c, d])));
            }
            _ => {}
        }
    }
}

impl State {
    /// Fills `data` from the selected item; behind its end are zeros.
    fn take(&mut self, data: &mut [u8]) {
        let rest = self.selected.as_deref().and_then(|item| item.get(self.at..));
        let rest = rest.unwrap_or_default();
        let there = rest.len().min(data.len());
        data[..there].copy_from_slice(&rest[..there]);
        data[there..].fill(0);
        self.at = self.at.saturating_add(data.len());
    }

    /// The directory: a count, then size, key and name of each file, numbers big-endian.
    fn rebuild_directory(&mut self) {
        let mut directory = (self.names.len() as u32).to_be_bytes().to_vec();
        for (name, key) in self.names.iter().zip(FIRST_FILE..) {
            let size = self.items.get(&key).map_or(0, |item| item.len());
            directory.extend((size as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0, 0]);
            let end = directory.len() + NAME;
            directory.extend(name.as_bytes());
            directory.resize(end, 0);
        }
        self.items.insert(DIRECTORY, directory.into());
    }
}

impl std::fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FwCfg")
            .field("files", &self.state().names)
            .finish_non_exhaustive()
    }
}

const SELECTOR: u16 = 0;
const DATA: u16 = 1;
const DMA: u16 = 4;
const DMA_LOW: u16 = 8;
const LAST: u16 = 11;
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
const SIGNATURE: u16 = 0x00;
const FEATURES: u16 = 0x01;
const DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
/// Bytes of a name in the directory, its end mark included.
const NAME: usize = 56;
const MOST_FILES: usize = 256;
/// Kinds of the ACPI address map.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
