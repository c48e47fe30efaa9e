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
    msi_on: u32,
    line: Option<Line>,
}

impl State {
    /// The line is on while no messages are.
    fn switch_line(&mut self) {
        let on = !self.msix_on && self.msi_on == 0;
        if let Some(line) = &mut self.line {
            line.switch(on);
        }
    }
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
            msi_on: 0,
            line,
        };
        state.switch_line();
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
        let (was_on, was_masked) = (state.msix_on, state.msix_masked);
        (state.msix_on, state.msix_masked) = (on, masked);
        if !on {
            state.msix.disable();
        }
        state.switch_line();
        if on && (!was_on || was_masked != masked) {
            let enabled = state.msix.enable(1);
            self.say(enabled);
            for vector in 0..state.table.vectors() {
                self.sync(&mut state, vector);
            }
        }
    }

    /// The guest wrote its MSI capability.
    pub(crate) fn switch_msi(&self, setting: MsiSetting) {
        let mut state = self.lock();
        if setting.vectors != state.msi_on {
            state.msi.disable();
            state.msi_on = setting.vectors;
            state.switch_line();
            let enabled = state.msi.enable(setting.vectors);
            self.say(enabled);
        }
        for vector in 0..setting.vectors {
            if setting.mask >> vector & 1 != 0 {
                state.msi.hide(vector);
                continue;
            }
            let low = setting.vectors - 1;
            let data = (setting.message.data & !low) | vector;
            let shown = state.msi.show(
                vector,
                MsiMessage {
                    address: setting.message.address,
                    data,
                },
            );
            self.say(shown);
        }
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

    /// Reads the pending bits.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let state = self.lock();
        for (index, byte) in data.iter_mut().enumerate() {
            let first = (offset as u32 + index as u32) * 8;
            *byte = (0..8)
                .filter(|bit| state.msix.pending(first + bit))
                .fold(0, |byte, bit| byte | 1 << bit);
        }
    }

    /// Everything off and forgotten, as after a reset.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.msix.disable();
        state.msi.disable();
        (state.msix_on, state.msix_masked, state.msi_on) = (false, false, 0);
        state.table = MsixTable::new(state.table.vectors());
        state.switch_line();
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
