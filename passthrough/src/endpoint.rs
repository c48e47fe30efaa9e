//! The configuration space of an assigned function: what a guest reads and writes, and what follows from it.
//! Order on every change: close BARs that will not answer, tell the hardware, open those that now do.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{Bdf, ConfigHandler};

use crate::bars::{Allowed, BarShape, Change, Decode, Open};
use crate::config::{ConfigTable, Register};
use crate::events::Listener;
use crate::messages::{Messages, MsiSetting};
use crate::transport::{RegionIndex, Transport};
use crate::windows::Windows;

/// One function on the guest's PCI bus: its configuration space, and through it its BARs and interrupts.
///
/// Made by [`Endpoint::wire`] from any [`Transport`]; an assigned VFIO device has one.
pub struct Endpoint {
    device: Bdf,
    bars: Vec<BarShape>,
    allowed: Allowed,
    transport: Arc<dyn Transport>,
    messages: Arc<Messages>,
    state: Arc<Mutex<State>>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) table: ConfigTable,
    pub(crate) windows: Windows,
    pub(crate) listener: Option<Listener>,
    /// The command register and the power state as the hardware had them when either was last written.
    pub(crate) switches: Option<(u16, u16)>,
    /// The guest has it no more, or it is lost: late accesses of its CPUs must not reach the device.
    pub(crate) ended: bool,
}

impl State {
    /// Closes the BARs and disconnects the interrupts; from here on the function reads all ones.
    pub(crate) fn end(&mut self, messages: &Messages) {
        self.ended = true;
        self.windows.end();
        messages.end();
    }

    /// Closes what is open and not wanted; what is wanted and not open.
    fn close(&mut self, wanted: &[Open]) -> Vec<Open> {
        let change = Change::between(&self.windows.open(), wanted);
        for (bar, _) in change.close {
            self.windows.hide(bar);
        }
        change.open
    }
}

/// What a write touches.
#[derive(Default)]
struct Touched {
    /// What decides which BARs are open, and where.
    decoding: bool,
    msi: bool,
    msix: bool,
    device_control: bool,
}

impl Touched {
    fn by(registers: impl Iterator<Item = Register>) -> Touched {
        let mut touched = Touched::default();
        for register in registers {
            match register {
                Register::Command | Register::Bar(_) | Register::Power => touched.decoding = true,
                Register::Msi => touched.msi = true,
                Register::Msix => touched.msix = true,
                Register::DeviceControl => touched.device_control = true,
            }
        }
        touched
    }
}

impl Endpoint {
    pub(crate) fn new(
        device: Bdf,
        (bars, allowed): (Vec<BarShape>, Allowed),
        transport: Arc<dyn Transport>,
        messages: Arc<Messages>,
        state: Arc<Mutex<State>>,
    ) -> Endpoint {
        Endpoint {
            device,
            bars,
            allowed,
            transport,
            messages,
            state,
        }
    }

    /// Takes the function from the guest: closes its BARs, disconnects its interrupts, and listens to its events no more.
    pub fn end(&self) {
        let listener = {
            let mut state = self.lock();
            state.end(&self.messages);
            state.listener.take()
        };
        // Its thread may be waiting for the state that was held until here.
        drop(listener);
    }

    /// Leaves the function as a loss of power does: reset, its BARs nowhere, its interrupts off, its bus master off. Nothing happens to one
    /// that the guest does not have any more.
    pub fn power_cycle(&self) {
        let mut state = self.lock();
        if !state.ended {
            self.function_level_reset(&mut state);
        }
    }

    /// Capabilities that the guest does not see, by name.
    #[must_use]
    pub fn hidden(&self) -> Vec<&'static str> {
        self.lock().table.hidden().to_vec()
    }

    /// What is behind it.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    /// Interrupt vectors that the host gives it now.
    #[must_use]
    pub fn vectors_in_use(&self) -> usize {
        self.messages.in_use()
    }

    /// The command register and the power state as they would be with `pending` bytes written to the hardware at their offsets.
    /// None: the function cannot be read.
    fn switches(&self, table: &ConfigTable, pending: &[(u16, Vec<u8>)]) -> Option<(u16, u16)> {
        let word = |offset: u16| {
            let mut data = [0; 2];
            self.fetch(table, offset, &mut data).ok()?;
            for (at, bytes) in pending {
                for (index, byte) in bytes.iter().enumerate() {
                    if let Some(place) = (at + index as u16).checked_sub(offset).filter(|place| *place < 2) {
                        data[usize::from(place)] = *byte;
                    }
                }
            }
            Some(u16::from_le_bytes(data))
        };
        let power = table.place(Register::Power).map_or(Some(0), word);
        Some((word(COMMAND)?, power?))
    }

    /// The BARs that are open with these switches; a function that cannot be read answers nowhere.
    fn wanted(&self, table: &ConfigTable, switches: Option<(u16, u16)>) -> Vec<Open> {
        match switches {
            Some((command, power)) if command & 3 != 0 => {
                Decode::of(table, &self.bars, command, power).open(&self.bars, &self.allowed)
            }
            _ => Vec::new(),
        }
    }

    /// Reads as the guest does; where the hardware does not answer it finds all ones.
    fn fetch(&self, table: &ConfigTable, offset: u16, data: &mut [u8]) -> io::Result<()> {
        let mut read = Ok(());
        if table.wants_hardware(offset, data.len()) {
            read = self.transport.read(RegionIndex::Config, u64::from(offset), data);
            if let Err(error) = &read {
                tracing::debug!(device = %self.device, offset, %error, "a configuration read failed");
                data.fill(0xff);
            }
        }
        table.overlay(offset, data);
        read
    }

    fn send(&self, hardware: &[(u16, Vec<u8>)]) {
        for (offset, bytes) in hardware {
            let written = self
                .transport
                .write(RegionIndex::Config, u64::from(*offset), bytes);
            if let Err(error) = written {
                tracing::warn!(device = %self.device, offset, %error, "a configuration write failed");
            }
        }
    }

    /// The BAR state machine's step around a write that reaches the hardware, or only moves BARs.
    fn transit(&self, state: &mut State, hardware: &[(u16, Vec<u8>)]) {
        let mut reached = state.switches.filter(|_| hardware.is_empty());
        if reached.is_none() {
            let wanted = self.wanted(&state.table, self.switches(&state.table, hardware));
            state.close(&wanted);
            self.send(hardware);
            // What the hardware made of it counts: it may refuse a power state.
            reached = self.switches(&state.table, &[]);
            state.switches = reached;
        }
        let wanted = self.wanted(&state.table, reached);
        for open in state.close(&wanted) {
            if let Err(error) = state.windows.show(open) {
                tracing::error!(device = %self.device, bar = open.0, %error, "a BAR of the guest is not open");
            }
        }
    }

    fn function_level_reset(&self, state: &mut State) {
        state.close(&[]);
        self.messages.reset();
        if let Err(error) = self.transport.reset() {
            tracing::error!(device = %self.device, %error, "the guest's function-level reset failed");
        }
        // VFIO restores what the function had before; a guest expects what a reset leaves.
        self.send(&[(COMMAND, vec![0, 0])]);
        state.switches = None;
        for bar in &self.bars {
            let length = if bar.is_64bit() { 8 } else { 4 };
            let none = bar.register(0).to_le_bytes();
            state.table.preset(bar.place(), &none[..length]);
        }
        if let Some(msix) = state.table.place(Register::Msix) {
            let control = state.table.word(msix) & 0x3fff;
            state.table.preset(msix, &control.to_le_bytes());
        }
        if let Some(msi) = state.table.place(Register::Msi) {
            let control = state.table.word(msi) & !0x71;
            state.table.preset(msi, &control.to_le_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConfigHandler for Endpoint {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let state = self.lock();
        if state.ended {
            data.fill(0xff);
        } else {
            // A guest learns of a failure as on hardware: by all ones.
            drop(self.fetch(&state.table, offset, data));
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        let mut current = [0; 4];
        let current = &mut current[..data.len().min(4)];
        let mut reachable = true;
        if state.table.wants_hardware(offset, data.len()) {
            reachable = self.fetch(&state.table, offset, current).is_ok();
        }
        let mut written = state.table.write(offset, data, current);
        if !reachable {
            // What the bits were that a guest may not change is not known, so none are written.
            written.hardware.clear();
            state.switches = None;
        }
        let touched = Touched::by(state.table.touched(offset, data.len()));
        if touched.decoding {
            self.transit(&mut state, &written.hardware);
        } else {
            self.send(&written.hardware);
        }
        if touched.msix
            && let Some(at) = state.table.place(Register::Msix)
        {
            let control = state.table.word(at);
            self.messages
                .switch_msix(control & 0x8000 != 0, control & 0x4000 != 0);
        }
        if touched.msi
            && let Some(at) = state.table.place(Register::Msi)
        {
            self.messages.switch_msi(MsiSetting::of(&state.table, at));
        }
        if touched.device_control
            && let Some(at) = state.table.place(Register::DeviceControl)
            && data
                .get(usize::from(at + 1).wrapping_sub(usize::from(offset)))
                .is_some_and(|byte| byte & 0x80 != 0)
        {
            self.function_level_reset(&mut state);
        }
    }
}

const COMMAND: u16 = 0x04;
