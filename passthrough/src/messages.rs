//! A function's interrupts as its guest switches them: MSI-X, MSI or its line, whichever is on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{Bdf, Interrupts, MsiMessage};

use crate::config::ConfigTable;
use crate::error::AssignError;
use crate::line::Line;
use crate::msix::{Geometry, MsixTable};
use crate::transport::{IrqKind, Transport};
use crate::vectors::Vectors;

/// The message-signalled interrupts of an assigned function.
pub(crate) struct Messages {
    device: Bdf,
    geometry: Option<Geometry>,
    state: Mutex<State>,
}

struct State {
    table: MsixTable,
    msix: Vectors,
    msix_on: bool,
    msix_masked: bool,
    msi: Vectors,
    msi_set: MsiSetting,
    line: Option<Line>,
    /// What the device signals by: messages of this kind, so many enabled at first, or its line.
    active: Option<(IrqKind, u32)>,
}

/// What a guest has set in its MSI capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MsiSetting {
    /// Vectors enabled; 0: MSI is off.
    pub(crate) vectors: u32,
    /// The message of vector 0; the others count up in its low bits.
    pub(crate) message: MsiMessage,
    /// One bit for each masked vector.
    pub(crate) mask: u32,
}

impl MsiSetting {
    /// What the guest's own copy of the capability says; `at`: its control word.
    pub(crate) fn of(table: &ConfigTable, at: u16) -> MsiSetting {
        let control = table.word(at);
        if control & 1 == 0 {
            return MsiSetting::default();
        }
        let wide = control & 0x80 != 0;
        let high = if wide {
            u64::from(table.dword(at + 6)) << 32
        } else {
            0
        };
        let data = at + if wide { 10 } else { 6 };
        let mask = if control & 0x100 != 0 {
            table.dword(data + 4)
        } else {
            0
        };
        let most = 1 << (control >> 1 & 7).min(5);
        let vectors = (1 << (control >> 4 & 7).min(5)).min(most);
        let address = high | u64::from(table.dword(at + 2));
        MsiSetting {
            vectors,
            message: MsiMessage {
                address,
                data: u32::from(table.word(data)),
            },
            mask,
        }
    }
}

impl Messages {
    pub(crate) fn new(
        device: Bdf,
        geometry: Option<Geometry>,
        transport: &Arc<dyn Transport>,
        interrupts: &Arc<Interrupts>,
        line: Option<Line>,
    ) -> Messages {
        let vectors = |kind| Vectors::new(device, kind, Arc::clone(transport), Arc::clone(interrupts));
        let mut state = State {
            table: MsixTable::new(geometry.map_or(0, |geometry| geometry.vectors)),
            msix: vectors(IrqKind::Msix),
            msix_on: false,
            msix_masked: false,
            msi: vectors(IrqKind::Msi),
            msi_set: MsiSetting::default(),
            line,
            active: None,
        };
        if let Some(line) = &mut state.line {
            line.switch(true);
        }
        Messages {
            device,
            geometry,
            state: Mutex::new(state),
        }
    }

    /// Where the table is.
    pub(crate) fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// The guest switched MSI-X, or masked all of it.
    pub(crate) fn switch_msix(&self, on: bool, masked: bool) {
        let mut state = self.lock();
        if (state.msix_on, state.msix_masked) != (on, masked) {
            (state.msix_on, state.msix_masked) = (on, masked);
            self.settle(&mut state);
        }
    }

    /// The guest wrote its MSI capability.
    pub(crate) fn switch_msi(&self, setting: MsiSetting) {
        let mut state = self.lock();
        if state.msi_set != setting {
            state.msi_set = setting;
            self.settle(&mut state);
        }
    }

    /// Has the device signal as the guest's switches say, whatever they said before: by MSI-X if that is on, else by MSI, else by
    /// its line, of which the kernel takes one at a time.
    fn settle(&self, state: &mut State) {
        let wanted = match state.msi_set.vectors {
            _ if state.msix_on => Some((IrqKind::Msix, 1)),
            0 => None,
            vectors => Some((IrqKind::Msi, vectors)),
        };
        if state.active != wanted {
            state.msix.disable();
            state.msi.disable();
            if let Some(line) = &mut state.line {
                line.switch(wanted.is_none());
            }
            state.active = wanted;
            self.say(match wanted {
                Some((IrqKind::Msix, count)) => state.msix.enable(count),
                Some((_, count)) => state.msi.enable(count),
                None => Ok(()),
            });
        }
        match wanted {
            Some((IrqKind::Msix, _)) => {
                (0..state.table.vectors()).for_each(|vector| self.sync(state, vector))
            }
            Some((_, count)) => (0..count).for_each(|vector| self.sync_msi(state, vector)),
            None => {}
        }
    }

    fn sync_msi(&self, state: &mut State, vector: u32) {
        let MsiSetting {
            vectors,
            message,
            mask,
        } = state.msi_set;
        if mask >> vector & 1 != 0 {
            state.msi.hide(vector);
            return;
        }
        // The function counts its vectors up in the low bits.
        let data = (message.data & !(vectors - 1)) | vector;
        let shown = state.msi.show(vector, MsiMessage { data, ..message });
        self.say(shown);
    }

    /// Reads the table.
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        self.lock().table.read(offset, data);
    }

    /// Writes the table: routes change only where a vector is unmasked.
    pub(crate) fn write_table(&self, offset: u64, data: &[u8]) {
        let mut state = self.lock();
        for vector in state.table.write(offset, data) {
            self.sync(&mut state, vector);
        }
    }

    /// Adds to the device's own pending bits in `data` those of vectors that the guest has masked here: their signals wait with us.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let state = self.lock();
        for (index, byte) in data.iter_mut().enumerate() {
            let first = (offset as u32 + index as u32) * 8;
            let pending = |bit: &u32| state.msix.pending(first + bit);
            *byte |= (0..8).filter(pending).fold(0, |byte, bit| byte | 1 << bit);
        }
    }

    /// Everything off and forgotten, as after a reset.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        (state.msix_on, state.msix_masked) = (false, false);
        state.msi_set = MsiSetting::default();
        state.table = MsixTable::new(state.table.vectors());
        self.settle(&mut state);
    }

    /// Everything off for good.
    pub(crate) fn end(&self) {
        self.lock().line = None;
        self.reset();
    }

    /// Vectors that the host has given to this function.
    pub(crate) fn in_use(&self) -> usize {
        let state = self.lock();
        state.msix.in_use() + state.msi.in_use()
    }

    fn sync(&self, state: &mut State, vector: u32) {
        let live = state.msix_on && !state.msix_masked && !state.table.masked(vector);
        if live {
            let message = state.table.message(vector);
            let shown = state.msix.show(vector, message);
            self.say(shown);
        } else {
            state.msix.hide(vector);
        }
    }

    /// A guest cannot be told that its host has no vector for it; whoever runs it can.
    fn say(&self, outcome: Result<(), AssignError>) {
        if let Err(error) = outcome {
            tracing::error!(device = %self.device, %error, "an interrupt of the guest is not connected");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
