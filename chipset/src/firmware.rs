//! What a board has for firmware: its code below 4 GiB, the flash chip with its variables below that, fw_cfg, a debug console.

use std::io::{self, Write};
use std::sync::Arc;

use pellucid_partition::{
    Access, BusRange, GuestAddress, Layout, Mapping, MmioHandler, PioHandler, Populated, Slot,
};

use crate::debug_console::DebugConsole;
use crate::error::BoardError;
use crate::flash::{Flash, FlashStore};
use crate::fw_cfg::FwCfg;

/// Firmware and its devices on a partition. Dropping it takes them away.
#[must_use = "dropping it takes the firmware away from the guest"]
pub struct Firmware {
    // Teardown order: no new access, then what is read without one.
    _ports: Vec<BusRange<dyn PioHandler>>,
    variables: BusRange<dyn MmioHandler>,
    _code: Slot,
}

/// What firmware is made of.
pub struct FirmwareSpec {
    /// Its code, which ends at 4 GiB: whole pages.
    pub code: Vec<u8>,
    /// What its variables are at first, right below the code: whole blocks of [`Flash::BLOCK`].
    pub variables: Vec<u8>,
    /// What keeps them.
    pub store: Option<Box<dyn FlashStore>>,
    /// How it is told of the machine.
    pub fw_cfg: Arc<FwCfg>,
    /// Where its debug messages go.
    pub debug: Option<Box<dyn Write + Send>>,
}

impl Firmware {
    /// Puts firmware where the processor looks for it, and its devices on the partition's buses.
    pub fn attach(partition: &Populated, spec: FirmwareSpec) -> Result<Self, BoardError> {
        let (code_size, variables_size) = (spec.code.len() as u64, spec.variables.len() as u64);
        let room = Layout::FIRMWARE.end - Layout::FIRMWARE.start;
        if code_size.saturating_add(variables_size) > room {
            return Err(memory(io::ErrorKind::FileTooLarge.into()));
        }
        let code_at = Layout::FIRMWARE.end - code_size;
        let variables_at = code_at - variables_size;
        let code = Arc::new(Mapping::of_bytes("firmware", &spec.code).map_err(memory)?);
        let _code = partition
            .vm()
            .map_slot(GuestAddress(code_at), code, Access::ReadOnly)
            .map_err(|source| BoardError::Kvm {
                device: "firmware",
                source,
            })?;
        // Firmware counts its waits in ticks: one too few is a longer wait, but a storm of late ones is none that ends.
        partition
            .vm()
            .drop_late_ticks()
            .map_err(|source| BoardError::Kvm {
                device: "timer",
                source,
            })?;
        let flash = Flash::new(&spec.variables, spec.store).map_err(memory)?;
        let flash = flash.mapped(partition.vm(), GuestAddress(variables_at));
        let refused = |device| move |source| BoardError::Bus { device, source };
        let variables = partition
            .mmio()
            .insert(variables_at, variables_size, "flash", Arc::new(flash))
            .map_err(refused("flash"))?;
        let pio = partition.pio();
        let mut _ports = vec![
            pio.insert(FW_CFG, FwCfg::PORTS, "fw_cfg", spec.fw_cfg)
                .map_err(refused("fw_cfg"))?,
        ];
        if let Some(out) = spec.debug {
            let console = Arc::new(DebugConsole::new(out));
            let port = pio.insert(DebugConsole::PORT.into(), 1, "debug console", console);
            _ports.push(port.map_err(refused("debug console"))?);
        }
        Ok(Self {
            _ports,
            variables,
            _code,
        })
    }
}

/// Bytes of the clock's memory in which OVMF looks for RAM, as QEMU's machines have them: from 16 MiB up to the first hole, and above 4 GiB, in
/// units of 64 KiB.
#[must_use]
pub fn clock_memory(layout: &Layout) -> Vec<(u8, u8)> {
    let low = layout.ram_below().min(FOUR_GIB).saturating_sub(16 << 20) >> 16;
    let above = layout.ram().iter().filter(|ram| ram.start >= FOUR_GIB);
    let high = above.map(|ram| ram.size()).sum::<u64>() >> 16;
    let [low0, low1, ..] = low.min(0xffff).to_le_bytes();
    let [high0, high1, high2, ..] = high.min(0xff_ffff).to_le_bytes();
    vec![
        (0x34, low0),
        (0x35, low1),
        (0x5b, high0),
        (0x5c, high1),
        (0x5d, high2),
    ]
}

impl std::fmt::Debug for Firmware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firmware")
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FirmwareSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirmwareSpec")
            .field("code", &self.code.len())
            .field("variables", &self.variables.len())
            .finish_non_exhaustive()
    }
}

fn memory(source: io::Error) -> BoardError {
    BoardError::Memory {
        device: "firmware",
        source,
    }
}

const FW_CFG: u64 = 0x510;
const FOUR_GIB: u64 = 1 << 32;
