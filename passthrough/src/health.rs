//! Whether a function is well: it stops when told, a reset leaves it answering as itself, and its DMA stays off.

use std::io;

use crate::inventory::Function;
use crate::transport::{IrqKind, RegionIndex, Transport};

/// Turns memory, I/O and bus master off.
pub(crate) fn quiesce(transport: &dyn Transport) -> io::Result<()> {
    let mut command = [0; 2];
    transport.read(RegionIndex::Config, COMMAND, &mut command)?;
    command[0] &= !0x7;
    transport.write(RegionIndex::Config, COMMAND, &command)
}

/// Stops and resets the function, then looks whether it is well: it answers with its ids, and DMA is off.
pub(crate) fn prove(transport: &dyn Transport, function: &Function) -> Result<(), String> {
    let said = |act: &'static str| move |error: io::Error| format!("{act}: {error}");
    quiesce(transport).map_err(said("stopping it"))?;
    for kind in [
        IrqKind::Msix,
        IrqKind::Msi,
        IrqKind::Intx,
        IrqKind::Error,
        IrqKind::Request,
    ] {
        if transport.irq(kind).count > 0
            && let Err(error) = transport.unwire(kind)
        {
            // Disabling what was not enabled is refused by some kernels, and harmless.
            tracing::debug!(device = %function.bdf, ?kind, %error, "not unwired");
        }
    }
    if transport.resettable() {
        transport.reset().map_err(said("VFIO_DEVICE_RESET"))?;
        quiesce(transport).map_err(said("stopping it after the reset"))?;
    }
    let wanted = u32::from(function.ids.device) << 16 | u32::from(function.ids.vendor);
    let found = read_ids(transport).map_err(said("reading its ids"))?;
    if found != wanted {
        return Err(format!("it answers {found:08x} instead of {wanted:08x}"));
    }
    let mut command = [0; 2];
    transport
        .read(RegionIndex::Config, COMMAND, &mut command)
        .map_err(said("reading its command register"))?;
    if command[0] & 0x4 != 0 {
        return Err("its bus master bit does not go off".to_owned());
    }
    Ok(())
}

/// Device and vendor id as the function answers them now.
pub(crate) fn read_ids(transport: &dyn Transport) -> io::Result<u32> {
    // Vendor and device are served by VFIO from its own copy; revision and class come from the device, and a device
    // that fell off the bus answers all ones there.
    let mut revision = [0; 4];
    transport.read(RegionIndex::Config, REVISION, &mut revision)?;
    if revision == [0xff; 4] {
        return Ok(u32::MAX);
    }
    let mut ids = [0; 4];
    transport.read(RegionIndex::Config, 0, &mut ids)?;
    Ok(u32::from_le_bytes(ids))
}

/// The command register's offset (PCI 3.0, 6.2).
const COMMAND: u64 = 0x04;
/// Revision and class.
const REVISION: u64 = 0x08;

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;

    use pellucid_partition::Mapping;

    use super::*;
    use crate::inventory::{DriverState, Ids};
    use crate::transport::{IrqInfo, RegionInfo};

    /// A function with the first 16 bytes of a header, sick as told.
    #[derive(Default)]
    struct Patient {
        header: Mutex<[u8; 16]>,
        master_sticks: bool,
        reset_fails: bool,
        gone_after_reset: bool,
    }

    impl Patient {
        fn new() -> Patient {
            let mut header = [0; 16];
            header[..5].copy_from_slice(&[0x36, 0x1b, 0x10, 0x00, 0x07]);
            Patient {
                header: Mutex::new(header),
                ..Patient::default()
            }
        }
    }

    impl Transport for Patient {
        fn region(&self, _: RegionIndex) -> Option<RegionInfo> {
            None
        }
        fn read(&self, _: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
            let at = offset as usize;
            data.copy_from_slice(&self.header.lock().unwrap()[at..at + data.len()]);
            Ok(())
        }
        fn write(&self, _: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
            let at = offset as usize;
            self.header.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
            if self.master_sticks {
                self.header.lock().unwrap()[4] |= 4;
            }
            Ok(())
        }
        fn map(&self, _: RegionIndex, _: u64, _: usize) -> io::Result<Mapping> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn resettable(&self) -> bool {
            true
        }
        fn reset(&self) -> io::Result<()> {
            if self.gone_after_reset {
                *self.header.lock().unwrap() = [0xff; 16];
            }
            if self.reset_fails {
                Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
            } else {
                Ok(())
            }
        }
        fn irq(&self, _: IrqKind) -> IrqInfo {
            IrqInfo::default()
        }
        fn wire(&self, _: IrqKind, _: u32, _: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
            Ok(())
        }
        fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }
        fn unwire(&self, _: IrqKind) -> io::Result<()> {
            Ok(())
        }
    }

    fn verdict(patient: &Patient) -> Result<(), String> {
        let function = Function {
            bdf: "0000:01:00.0".parse().unwrap(),
            ids: Ids {
                vendor: 0x1b36,
                device: 0x10,
                class: 0x01_0802,
                revision: 0,
                subsystem: [0, 0],
            },
            driver: DriverState::default(),
            group: None,
            bars: Vec::new(),
            upstream: Vec::new(),
            bridge: None,
            slot: None,
            reset_methods: Vec::new(),
            numa_node: None,
            uses: Vec::new(),
        };
        prove(patient, &function)
    }

    #[test]
    fn a_function_that_stops_resets_and_answers_is_well() {
        let patient = Patient::new();
        assert_eq!(verdict(&patient), Ok(()));
        assert_eq!(patient.header.lock().unwrap()[4], 0, "neither decoding nor DMA");
    }

    #[test]
    fn a_function_that_is_not_well_is_told_by_what_failed() {
        let sticks = Patient {
            master_sticks: true,
            ..Patient::new()
        };
        assert!(verdict(&sticks).unwrap_err().contains("bus master"));
        let stuck = Patient {
            reset_fails: true,
            ..Patient::new()
        };
        assert!(verdict(&stuck).unwrap_err().contains("VFIO_DEVICE_RESET"));
        let gone = Patient {
            gone_after_reset: true,
            ..Patient::new()
        };
        assert!(
            verdict(&gone)
                .unwrap_err()
                .contains("ffffffff instead of 00101b36")
        );
        let other = Patient::new();
        other.header.lock().unwrap()[0] = 0x86;
        assert!(verdict(&other).unwrap_err().contains("00101b86"));
    }
}
