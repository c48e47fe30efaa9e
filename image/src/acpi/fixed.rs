//! The FADT: where the fixed hardware is, and what a PC has that this board has not.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use pellucid_partition::board;

use super::bytes::{OEM, OEM_REVISION, OEM_TABLE, aml_bytes};

/// The FADT, with the addresses of the two tables that it leads to.
pub(crate) fn fadt((facs, dsdt): (u64, u64), sleep_button: bool) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION);
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.preferred_pm_profile = PmProfile::EnterpriseServer as u8;
    fadt.sci_int = (board::SCI_GSI.0 as u16).into();
    fadt.pm1a_evt_blk = u32::from(board::PM1A_EVENT_PORT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port(board::PM1A_EVENT_PORT, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(board::PM1A_CONTROL_PORT).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port(board::PM1A_CONTROL_PORT, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(board::PM_TIMER_PORT).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(board::PM_TIMER_PORT, 32, AccessSize::DwordAccess);
    // No C2, no C3: these latencies say so.
    fadt.p_lvl2_lat = 0x0fff.into();
    fadt.p_lvl3_lat = 0x0fff.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_ASPM).into();
    fadt.reset_reg = port(board::RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = board::RESET_VALUE;
    // A clear PWR_BUTTON bit means that the power button is fixed hardware; set SLP_BUTTON and FIX_RTC mean that those are not.
    let flags = [Flags::Wbinvd, Flags::ProcC1, Flags::FixRtc, Flags::ResetRegSup];
    let no_sleep_button = (!sleep_button).then_some(Flags::SlpButton);
    for flag in flags.into_iter().chain(no_sleep_button) {
        fadt = fadt.flag(flag);
    }
    aml_bytes(&fadt.finalize())
}

fn port(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
}

/// Index of the century in the RTC's memory, as PCs have it.
const RTC_CENTURY: u8 = 0x32;
const LEGACY_DEVICES: u16 = 1;
const NO_VGA: u16 = 1 << 2;
/// The link's other end is the host's: its power states are not the guest's to choose.
const NO_ASPM: u16 = 1 << 4;
