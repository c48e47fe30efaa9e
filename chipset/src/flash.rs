//! A parallel NOR flash chip that understands Intel's command set (CFI 0x0001, JEP106 0x0089 as in the 28F160 and its like), as far as
//! firmware uses it: read array, read and clear status, program a word or a buffer, erase a block.
//!
//! Programming clears bits and only erasing sets them. What is programmed or erased is handed to a store first, in the order of the
//! guest's commands, and is only then seen by the guest: whoever kills this process leaves a chip that lost its power there.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{Access, GuestAddress, Mapping, MmioHandler, Slot, Vm};

mod step;
mod store;

use step::{
    CLEAR_STATUS, CONFIRM, ERASE, ERASE_FAILED, PROGRAM, PROGRAM_BUFFER, PROGRAM_FAILED, PROGRAM_TOO,
    READ_ARRAY, READ_STATUS, READY, Step, Word,
};
pub use store::FlashStore;

/// One chip. In array mode it is read as memory; any write is a command.
pub struct Flash {
    contents: Arc<Mapping>,
    state: Mutex<State>,
    moded: Box<dyn Fn(FlashMode) + Send + Sync>,
}

/// What a chip answers to reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashMode {
    /// Its contents.
    Array,
    /// Its status: a command is under way, or was the last.
    Status,
}

struct State {
    step: Step,
    status: u8,
    /// Whether something was changed since the store was settled.
    changed: bool,
    store: Option<Box<dyn FlashStore>>,
}

impl Flash {
    /// The size of an erase block, in bytes.
    pub const BLOCK: usize = 4096;

    /// A chip that begins as `contents`, a multiple of [`Flash::BLOCK`]; what becomes of it goes to `store` too.
    ///
    /// # Errors
    /// No memory for it, or a size that is no multiple of a block.
    pub fn new(contents: &[u8], store: Option<Box<dyn FlashStore>>) -> io::Result<Self> {
        if !contents.len().is_multiple_of(Self::BLOCK) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            contents: Arc::new(Mapping::of_bytes("flash", contents)?),
            state: Mutex::new(State {
                step: Step::Array,
                status: 0,
                changed: false,
                store,
            }),
            moded: Box::new(|_| ()),
        })
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.contents.size() as u64
    }

    /// Has `moded` called on each change of the mode, in order, with the chip locked: it must not call back.
    #[must_use]
    pub fn on_mode(mut self, moded: impl Fn(FlashMode) + Send + Sync + 'static) -> Self {
        self.moded = Box::new(moded);
        self
    }

    /// In array mode, has the guest read the contents at `at` without leaving KVM. Its writes and, in status mode, its reads come to the
    /// chip as those of a bus range at the same place. If KVM has no slot for it, all reads do.
    #[must_use]
    pub fn mapped(self, vm: &Arc<Vm>, at: GuestAddress) -> Self {
        let (vm, contents) = (Arc::clone(vm), Arc::clone(&self.contents));
        let shown: Mutex<Option<Slot>> = Mutex::new(None);
        let show = move |mode| {
            let mut slot = shown.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = None;
            if mode == FlashMode::Array {
                match vm.map_slot(at, Arc::clone(&contents), Access::ReadOnly) {
                    Ok(new) => *slot = Some(new),
                    Err(error) => tracing::warn!(%error, "flash is read by one exit for each access"),
                }
            }
        };
        show(FlashMode::Array);
        self.on_mode(show)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step after a command.
    fn command(&self, state: &mut State, offset: u64, command: u8) -> Step {
        match command {
            PROGRAM | PROGRAM_TOO => Step::Program,
            ERASE => Step::Erase,
            PROGRAM_BUFFER => {
                state.status |= READY;
                Step::Count
            }
            READ_STATUS => Step::Status,
            CLEAR_STATUS => {
                state.status = 0;
                Step::Array
            }
            READ_ARRAY => Step::Array,
            other => {
                tracing::debug!(
                    command = other,
                    offset,
                    "a command that this flash chip does not know"
                );
                Step::Array
            }
        }
    }

    /// What a write does, and what the next one means.
    fn take(&self, state: &mut State, offset: u64, word: Word) -> Step {
        let first = word.bytes[0];
        match std::mem::replace(&mut state.step, Step::Status) {
            Step::Array | Step::Status => self.command(state, offset, first),
            Step::Program => {
                self.program(state, offset, word);
                Step::Status
            }
            Step::Erase => {
                match first {
                    CONFIRM => self.erase(state, offset),
                    _ => state.status |= READY | PROGRAM_FAILED | ERASE_FAILED,
                }
                if first == READ_ARRAY {
                    Step::Array
                } else {
                    Step::Status
                }
            }
            Step::Count => Step::Buffer {
                left: usize::from(first) + 1,
                filled: Vec::new(),
            },
            Step::Buffer { left: 0, filled } => {
                match first {
                    CONFIRM => {
                        for (offset, word) in filled {
                            self.program(state, offset, word);
                        }
                    }
                    _ => state.status |= READY | PROGRAM_FAILED | ERASE_FAILED,
                }
                Step::Status
            }
            Step::Buffer { left, mut filled } => {
                filled.push((offset, word));
                Step::Buffer {
                    left: left - 1,
                    filled,
                }
            }
        }
    }

    /// Clears the bits that are clear in `word`.
    fn program(&self, state: &mut State, offset: u64, word: Word) {
        let mut after = word;
        let data = &mut after.bytes[..word.length];
        self.load(offset, data);
        let mut changed = false;
        for (byte, wanted) in data.iter_mut().zip(word.bytes) {
            changed |= *byte & wanted != *byte;
            *byte &= wanted;
        }
        state.status |= READY;
        if changed && !self.store(state, offset, &after.bytes[..word.length]) {
            state.status |= PROGRAM_FAILED;
        }
    }

    /// Sets all bits of the block that `offset` is in.
    fn erase(&self, state: &mut State, offset: u64) {
        let block = offset / Self::BLOCK as u64 * Self::BLOCK as u64;
        state.status |= READY;
        if !self.store(state, block, &[0xff; Self::BLOCK]) {
            state.status |= ERASE_FAILED;
        }
    }

    /// Changes the contents, in the store first; false if that fails, and then nothing is changed here.
    fn store(&self, state: &mut State, offset: u64, data: &[u8]) -> bool {
        let written = match &mut state.store {
            Some(store) => store.keep(offset, data),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(%error, offset, "what the guest wrote to its flash is not stored");
            return false;
        }
        state.changed = true;
        for (byte, at) in data.iter().zip(offset as usize..) {
            if !self.contents.write(at, &[*byte]) {
                return false;
            }
        }
        true
    }

    fn load(&self, offset: u64, data: &mut [u8]) {
        for (byte, index) in data.iter_mut().zip(0..) {
            let mut read = [0xff];
            // Behind the end is nothing: all ones.
            let _ = self
                .contents
                .read((offset as usize).saturating_add(index), &mut read);
            [*byte] = read;
        }
    }

    /// Has the store settled before the guest reads what it changed.
    fn settle(state: &mut State) {
        if !std::mem::take(&mut state.changed) {
            return;
        }
        let settled = state.store.as_mut().map_or(Ok(()), |store| store.settle());
        if let Err(error) = settled {
            tracing::error!(%error, "what the guest wrote to its flash may not outlive the host");
        }
    }
}

impl MmioHandler for Flash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.state();
        match state.step {
            Step::Array => self.load(offset, data),
            _ => data.fill(state.status),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(word) = Word::of(data) else { return };
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > self.size())
        {
            return;
        }
        let mut state = self.state();
        let was = state.step.mode();
        let step = self.take(&mut state, offset, word);
        state.step = step;
        let is = state.step.mode();
        if is == FlashMode::Array {
            Self::settle(&mut state);
        }
        if is != was {
            (self.moded)(is);
        }
    }
}

impl std::fmt::Debug for Flash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flash")
            .field("size", &self.size())
            .field("mode", &self.state().step.mode())
            .finish_non_exhaustive()
    }
}
