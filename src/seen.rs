//! A bound function as its place in the guest needs it: what placement is to see, and the pin to connect.

use pellucid_partition::Bdf;
use pellucid_passthrough::{Bar, BarShape, Bound, Function, IrqKind, RegionIndex};

use crate::topology::Topology;

/// The function as placement must see it: at its address in the guest, behind the guest's port, with its expansion ROM.
pub(crate) fn as_seen(bound: &Bound, guest: Bdf, topology: &Topology) -> Function {
    let mut function = bound.function().clone();
    function.bdf = guest;
    function.upstream = topology.path(guest.bus());
    let rom = BarShape::rom_of(bound.transport())
        .filter(|_| function.bars.iter().all(|bar| bar.index < BarShape::ROM));
    function.bars.extend(rom.map(|rom| Bar {
        index: rom.index,
        kind: rom.kind,
        address: rom.address,
        size: rom.size,
    }));
    function
}

/// The INTx pin that the function uses, from 0; `None` without INTx.
pub(crate) fn interrupt_pin(bound: &Bound) -> Option<u8> {
    let transport = bound.transport();
    let mut register = [0];
    let read = transport.read(RegionIndex::Config, INTERRUPT_PIN, &mut register);
    let wired = transport.irq(IrqKind::Intx).count > 0 && read.is_ok();
    (wired && (1..=4).contains(&register[0])).then(|| register[0] - 1)
}

/// PCI 3.0, 6.2.4.
const INTERRUPT_PIN: u64 = 0x3d;
