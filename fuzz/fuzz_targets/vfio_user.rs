//! Any bytes as the answers of a vfio-user server, to everything that a client asks: no panic, no wait, no memory beyond the answers.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pellucid_passthrough::{IrqKind, RegionIndex, Served, Transport};

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let mut answers = data[..data.len().min(MOST)].to_vec();
    if mode & 1 == 0 {
        number(&mut answers);
    }
    let Ok((ours, mut theirs)) = UnixStream::pair() else {
        return;
    };
    // All of it lies ready before the first question, so nothing here depends on time.
    if theirs.write_all(&answers).is_err() || theirs.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let Ok(at) = "0000:00:03.0".parse() else { return };
    let Ok(served) = Served::over(ours, Path::new("fuzz"), at, Duration::from_secs(1)) else {
        return;
    };
    for bar in &served.function().bars {
        assert!(bar.size.is_power_of_two() && bar.index < 6);
    }
    use_all(served.transport());
    if let Ok(bound) = served.bind() {
        use_all(bound.transport());
        let _ = bound.release();
    }
});

/// Everything that an endpoint does with a device.
fn use_all(device: &dyn Transport) {
    let kinds = [
        IrqKind::Intx,
        IrqKind::Msi,
        IrqKind::Msix,
        IrqKind::Error,
        IrqKind::Request,
    ];
    let event = std::fs::File::open("/dev/null").ok();
    let event = event.as_ref().map(AsFd::as_fd);
    for kind in kinds {
        let count = device.irq(kind).count;
        assert!(count <= 2048);
        let _ = device.wire(kind, 0, &vec![event; count.min(4) as usize]);
        let _ = device.wire(kind, 0, &vec![None; count as usize]);
        let _ = device.unwire(kind);
    }
    for region in (0..6)
        .map(RegionIndex::Bar)
        .chain([RegionIndex::Rom, RegionIndex::Config])
    {
        let Some(info) = device.region(region) else {
            continue;
        };
        for area in &info.mappable {
            assert!(area.start < area.end && area.end <= info.size);
        }
        let mut data = [0; 300];
        for (offset, length) in [
            (0, 4),
            (4, 2),
            (0, 300),
            (info.size - 1, 1),
            (info.size, 1),
            (u64::MAX, 8),
        ] {
            let _ = device.read(region, offset, &mut data[..length]);
            let _ = device.write(region, offset, &data[..length]);
        }
        let _ = device.map(region, 0, 4096);
    }
    let _ = device.reset();
}

/// Makes each message the reply to the question of its place, so that a run gets behind the first check.
fn number(answers: &mut [u8]) {
    let (mut at, mut id) = (0, 0_u16);
    while let Some(header) = answers.get_mut(at..at + 16) {
        header[..2].copy_from_slice(&id.to_le_bytes());
        header[8] = header[8] & 0x20 | 1;
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        at += (size as usize).clamp(16, MOST);
        id = id.wrapping_add(1);
    }
}

/// What a socket holds without a reader.
const MOST: usize = 64 << 10;
