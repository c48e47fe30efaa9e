//! The MADT: local APICs, the I/O APIC, and where ISA interrupts differ from one to one.

use pellucid_partition::board;

use super::board::AcpiBoard;
use super::bytes::table;

/// The interrupt controllers of `board`; processor UIDs count from 0.
pub(crate) fn madt(board: &AcpiBoard) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(board::LAPIC_BASE as u32).to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    for (uid, &id) in board.apic_ids.iter().enumerate() {
        match u8::try_from(id) {
            Ok(short) if short < 0xff && uid < 0xff => local_apic(&mut body, uid as u8, short),
            _ => local_x2apic(&mut body, uid as u32, id),
        }
    }
    io_apic(&mut body, board);
    // The PIT's interrupt 0 is wired to input 2; the SCI is level, active high.
    source_override(&mut body, 0, 2, CONFORMS);
    source_override(
        &mut body,
        board::SCI_GSI.0 as u8,
        board::SCI_GSI.0,
        ACTIVE_HIGH | LEVEL,
    );
    // NMI is on LINT1 of every local APIC.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]);
    if board.apic_ids.iter().any(|&id| id >= 0xff) {
        body.extend_from_slice(&[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}

fn local_apic(body: &mut Vec<u8>, uid: u8, id: u8) {
    body.extend_from_slice(&[0, 8, uid, id]);
    body.extend_from_slice(&ENABLED.to_le_bytes());
}

fn local_x2apic(body: &mut Vec<u8>, uid: u32, id: u32) {
    body.extend_from_slice(&[9, 16, 0, 0]);
    for value in [id, ENABLED, uid] {
        body.extend_from_slice(&value.to_le_bytes());
    }
}

/// Its id is the number of CPUs where that is free for it, as firmware of PCs counts.
fn io_apic(body: &mut Vec<u8>, board: &AcpiBoard) {
    let id = u8::try_from(board.apic_ids.len()).unwrap_or(0);
    body.extend_from_slice(&[1, 12, id, 0]);
    body.extend_from_slice(&(board::IOAPIC_BASE as u32).to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
}

fn source_override(body: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    body.extend_from_slice(&[2, 10, 0, irq]);
    body.extend_from_slice(&gsi.to_le_bytes());
    body.extend_from_slice(&flags.to_le_bytes());
}

const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
const CONFORMS: u16 = 0;
const ACTIVE_HIGH: u16 = 1;
const LEVEL: u16 = 3 << 2;
