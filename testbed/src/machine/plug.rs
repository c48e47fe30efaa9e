//! One device as options of the emulator's command line: what it is, and what its other side is made of.

use std::path::{Path, PathBuf};

use crate::MachineError;
use crate::machine::command::{Line, escaped};
use crate::machine::{Device, Disk};

/// Plugs a device, the machine's `index`th, into the place that `at` says; its scratch disk is made in `folder`.
pub(crate) fn plug(
    line: &mut Line,
    index: usize,
    device: &Device,
    (at, folder): (&str, &Path),
) -> Result<(), MachineError> {
    match device {
        Device::Nvme { serial, disk, .. } => {
            let (path, discard) = image(index, disk, folder)?;
            let snapshot = if discard { "on" } else { "off" };
            let path = escaped(&path);
            line.option(
                "-drive",
                format!("if=none,id=disk{index},format=raw,file={path},snapshot={snapshot},discard=unmap"),
            );
            let fields = format!("id=device{index},drive=disk{index},serial={serial}");
            line.option("-device", format!("nvme,{fields},{at}"));
        }
        Device::E1000 { .. } => network(line, index, "e1000", at),
        Device::E1000e { .. } => network(line, index, "e1000e", at),
        Device::Igb { .. } => network(line, index, "igb", at),
        Device::Edu { .. } => {
            line.option(
                "-device",
                format!("edu,id=device{index},dma_mask={EVERY_ADDRESS:#x},{at}"),
            );
        }
    }
    Ok(())
}

/// Each card has a network of its own, on which the emulator answers as 10.0.2.2.
fn network(line: &mut Line, index: usize, model: &str, at: &str) {
    line.option("-netdev", format!("user,id=net{index}"));
    let fields = format!("id=device{index},netdev=net{index},mac=52:54:00:70:65:{index:02x}");
    line.option("-device", format!("{model},{fields},{at}"));
}

/// The image of a disk and whether what is written to it is to be discarded.
fn image(index: usize, disk: &Disk, folder: &Path) -> Result<(PathBuf, bool), MachineError> {
    let missing = |path: &Path, source| MachineError::File {
        path: path.to_owned(),
        source,
    };
    let (path, discard) = match disk {
        Disk::Scratch { mebibytes } => {
            let path = folder.join(format!("scratch{index}.img"));
            let file = std::fs::File::create(&path).map_err(|source| missing(&path, source))?;
            file.set_len(u64::from(*mebibytes) << 20)
                .map_err(|source| missing(&path, source))?;
            return Ok((path, false));
        }
        Disk::Kept(path) => (path, false),
        Disk::Discarded(path) => (path, true),
    };
    std::fs::metadata(path).map_err(|source| missing(path, source))?;
    Ok((path.clone(), discard))
}

/// By itself an `edu` drops all but 28 bits of a DMA address.
const EVERY_ADDRESS: u64 = u64::MAX;
