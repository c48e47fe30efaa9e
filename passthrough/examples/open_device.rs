//! Opens a PCI function through VFIO with this crate alone, shows its registers, and gives it back to its driver.
//!
//!     open_device 0000:01:00.0

use std::error::Error;

use pellucid_partition::StateDir;
use pellucid_passthrough::{Inventory, IoSpace, IrqKind, RegionIndex, Transport};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("usage: open_device DOMAIN:BUS:DEVICE.FUNCTION")?;
    let admitted = Inventory::survey()?.admit(address.parse()?)?;
    let function = admitted.function();
    println!(
        "{} {} driven by {:?}, uses {:?}",
        function.bdf, function.ids, function.driver.bound, function.uses
    );

    let claimed = admitted.claim(&StateDir::standard()?, "open_device")?;
    let bound = claimed.bind(&IoSpace::open()?)?;
    println!(
        "IOMMU accepts {:x?}",
        bound.space().map(|space| space.iova_ranges()).transpose()?
    );
    show(bound.transport())?;

    bound.release()?;
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
    for kind in [
        IrqKind::Intx,
        IrqKind::Msi,
        IrqKind::Msix,
        IrqKind::Error,
        IrqKind::Request,
    ] {
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
