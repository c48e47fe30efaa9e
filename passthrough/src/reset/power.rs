//! The reset of a function that leaves and enters power state D0 (PCI Power Management 1.2, 5.4.1).

use std::thread;
use std::time::Duration;

use super::registers::header;
use crate::capabilities::{Capabilities, ID_PM};
use crate::transport::{RegionIndex, Transport};

/// Where its control register is; or why this does not reset the function.
pub(super) fn find(transport: &dyn Transport) -> Result<u16, String> {
    let read = |offset: u16, bytes: &mut [u8]| transport.read(RegionIndex::Config, offset.into(), bytes);
    let space = header(&read).map_err(|error| error.to_string())?;
    let at = Capabilities::walk(&space)
        .find(ID_PM)
        .ok_or("it has no power management")?;
    let control = at + CONTROL;
    match read_control(transport, control)? & NO_SOFT_RESET {
        0 => Ok(control),
        _ => Err("it keeps its state over D3hot".to_owned()),
    }
}

/// To D3hot and back.
pub(super) fn cycle(transport: &dyn Transport) -> Result<(), String> {
    let control = find(transport)?;
    for (state, name) in [(D3_HOT, "D3hot"), (D0, "D0")] {
        let before = read_control(transport, control)?;
        let wanted = before & !STATE | state;
        transport
            .write(RegionIndex::Config, control.into(), &wanted.to_le_bytes())
            .map_err(|error| error.to_string())?;
        thread::sleep(TRANSITION);
        let reached = read_control(transport, control)? & STATE;
        if reached != state {
            return Err(format!(
                "it does not enter {name}, its power state reads {reached}"
            ));
        }
    }
    Ok(())
}

fn read_control(transport: &dyn Transport, control: u16) -> Result<u16, String> {
    let mut bytes = [0; 2];
    let read = transport.read(RegionIndex::Config, control.into(), &mut bytes);
    read.map_err(|error| error.to_string())?;
    Ok(u16::from_le_bytes(bytes))
}

const CONTROL: u16 = 4;
const STATE: u16 = 3;
const D0: u16 = 0;
const D3_HOT: u16 = 3;
const NO_SOFT_RESET: u16 = 8;
/// Between D3hot and D0, either way (PCI Power Management 1.2, 5.6.1).
const TRANSITION: Duration = Duration::from_millis(10);
