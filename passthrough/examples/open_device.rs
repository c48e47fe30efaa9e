//! Opens a PCI function with this crate alone, shows its registers, and gives it back: one of the host, or one that a process serves.
//!
//!     open_device 0000:01:00.0
//!     open_device unix:/run/engine.sock

use std::error::Error;

use pellucid_passthrough::{Inventory, IoSpace, IrqKind, RegionIndex, Served, StateDir, Transport};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args()
        .nth(1)
        .ok_or("usage: open_device BDF|unix:SOCKET")?;
    let bound = if let Some(socket) = name.strip_prefix("unix:") {
        Served::connect(socket.as_ref(), "0000:00:01.0".parse()?)?.bind()?
    } else {
        let admitted = Inventory::survey()?.admit(name.parse()?)?;
        let claimed = admitted.claim(&StateDir::standard()?, "open_device")?;
        claimed.bind(&IoSpace::open()?)?
    };
    println!(
        "{} driven by {:?}",
        bound.function().ids,
        bound.function().driver.bound
    );
    if let Some(space) = bound.space() {
        println!("IOMMU accepts {:x?}", space.iova_ranges()?);
    }
    show(bound.transport())?;

    println!("{}", bound.release()?.reset);
    println!("given back");
    Ok(())
}

fn show(device: &dyn Transport) -> Result<(), Box<dyn Error>> {
    let mut header = [0; 64];
    for (index, word) in header.chunks_exact_mut(4).enumerate() {
        device.read(RegionIndex::Config, index as u64 * 4, word)?;
    }
    println!("header {header:02x?}");
    for bar in 0..6 {
        if let Some(info) = device.region(RegionIndex::Bar(bar)) {
            println!("BAR {bar}: {} bytes, mappable {:x?}", info.size, info.mappable);
        }
    }
    for kind in [IrqKind::Intx, IrqKind::Msi, IrqKind::Msix] {
        println!("{kind:?}: {:?}", device.irq(kind));
    }
    // Registers answer once memory decoding is on; bus master stays off, so the device cannot do DMA.
    device.write(RegionIndex::Config, 4, &[2, 0])?;
    let mut registers = [0; 32];
    for (index, word) in registers.chunks_exact_mut(4).enumerate() {
        device.read(RegionIndex::Bar(0), index as u64 * 4, word)?;
    }
    println!("BAR 0 {registers:02x?}");
    Ok(())
}
