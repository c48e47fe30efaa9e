//! The flash chip: what firmware does with it, what a hostile guest can do, and what a killed process leaves.
#![expect(clippy::unwrap_used, reason = "a chip that cannot be made fails its test")]

use std::io;
use std::sync::{Arc, Mutex};

use pellucid_chipset::{Flash, FlashMode, FlashStore};
use pellucid_partition::MmioHandler;
use proptest::prelude::*;

const BLOCK: usize = Flash::BLOCK;

/// Something that was kept, or (`None`) that all of it was settled.
type Told = Option<(u64, Vec<u8>)>;

/// What a store is told, in order; `fail_at` refuses what is kept from that number on.
#[derive(Clone, Default)]
struct Record {
    told: Arc<Mutex<Vec<Told>>>,
    fail_at: usize,
}

impl FlashStore for Record {
    fn keep(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut told = self.told.lock().unwrap();
        if self.fail_at > 0 && told.len() + 1 >= self.fail_at {
            return Err(io::ErrorKind::StorageFull.into());
        }
        told.push(Some((offset, data.to_vec())));
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.told.lock().unwrap().push(None);
        Ok(())
    }
}

fn chip(contents: &[u8]) -> (Flash, Record) {
    let record = Record::default();
    let flash = Flash::new(contents, Some(Box::new(record.clone()))).unwrap();
    (flash, record)
}

fn byte(flash: &Flash, offset: usize) -> u8 {
    let mut data = [0];
    flash.read(offset as u64, &mut data);
    data[0]
}

fn tell(flash: &Flash, offset: usize, bytes: &[u8]) {
    for byte in bytes {
        flash.write(offset as u64, &[*byte]);
    }
}

#[test]
fn firmware_tells_a_chip_from_ram_and_rom() {
    let (flash, _) = chip(&[0xa5; BLOCK]);
    tell(&flash, 0, &[0x50]);
    assert_eq!(
        byte(&flash, 0),
        0xa5,
        "clearing the status leaves the contents readable"
    );
    tell(&flash, 0, &[0x70]);
    assert_eq!(byte(&flash, 0), 0, "the status, cleared");
    tell(&flash, 0, &[0xff]);
    assert_eq!(byte(&flash, 0), 0xa5);
}

#[test]
fn programming_clears_bits_and_erasing_sets_them() {
    let (flash, record) = chip(&[0xff; 2 * BLOCK]);
    tell(&flash, 5, &[0x10, 0x3c]);
    tell(&flash, 5, &[0x40, 0xf0]);
    assert_eq!(byte(&flash, 5), 0x80, "ready");
    tell(&flash, 0, &[0xff]);
    assert_eq!(byte(&flash, 5), 0x30);
    tell(&flash, BLOCK + 7, &[0x20, 0xd0, 0xff]);
    tell(&flash, 9, &[0x20, 0xd0, 0xff]);
    assert_eq!(byte(&flash, 5), 0xff);
    let told = record.told.lock().unwrap();
    let kept: Vec<_> = told
        .iter()
        .flatten()
        .map(|(at, data)| (*at as usize, data.len(), data[0]))
        .collect();
    assert_eq!(
        kept,
        [(5, 1, 0x3c), (5, 1, 0x30), (BLOCK, BLOCK, 0xff), (0, BLOCK, 0xff)]
    );
    assert_eq!(
        told.iter().filter(|one| one.is_none()).count(),
        3,
        "settled at each end of a run"
    );
}

#[test]
fn a_buffer_is_programmed_once_it_is_confirmed() {
    let (flash, record) = chip(&[0xff; BLOCK]);
    tell(&flash, 16, &[0xe8]);
    assert_eq!(byte(&flash, 16), 0x80);
    flash.write(16, &[1]);
    flash.write(16, &[1, 2, 3, 4]);
    flash.write(20, &[5, 6, 7, 8]);
    assert!(record.told.lock().unwrap().is_empty());
    tell(&flash, 16, &[0xd0, 0xff]);
    assert_eq!(
        [16, 19, 20, 23, 24].map(|at| byte(&flash, at)),
        [1, 4, 5, 8, 0xff]
    );
    // One that is not confirmed changes nothing and is an error of the sequence.
    tell(&flash, 0, &[0xe8, 0, 0, 0x00]);
    assert_eq!(byte(&flash, 0), 0xb0);
    tell(&flash, 0, &[0x50]);
    assert_eq!(byte(&flash, 0), 0xff);
}

#[test]
fn an_erase_that_is_not_confirmed_erases_nothing() {
    let (flash, record) = chip(&[0; BLOCK]);
    tell(&flash, 0, &[0x20, 0x10]);
    assert_eq!(byte(&flash, 0), 0xb0);
    tell(&flash, 0, &[0x20, 0xff]);
    assert_eq!(byte(&flash, 0), 0);
    assert!(record.told.lock().unwrap().is_empty());
}

#[test]
fn what_cannot_be_kept_is_a_failure_of_the_chip_and_is_not_seen() {
    let record = Record {
        fail_at: 1,
        ..Record::default()
    };
    let flash = Flash::new(&[0xff; BLOCK], Some(Box::new(record))).unwrap();
    tell(&flash, 3, &[0x10, 0]);
    assert_eq!(byte(&flash, 3), 0x90, "ready, programming failed");
    tell(&flash, 3, &[0x20, 0xd0]);
    assert_eq!(byte(&flash, 3), 0xb0, "erasing failed too");
    tell(&flash, 3, &[0xff]);
    assert_eq!(byte(&flash, 3), 0xff);
}

#[test]
fn the_mode_is_told_when_it_changes() {
    let modes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&modes);
    let flash = Flash::new(&[0xff; BLOCK], None).unwrap();
    let flash = flash.on_mode(move |mode| told.lock().unwrap().push(mode));
    tell(&flash, 0, &[0xff, 0x50, 0x10, 0, 0x10, 1, 0xff, 0x70, 0xff]);
    let (array, status) = (FlashMode::Array, FlashMode::Status);
    assert_eq!(*modes.lock().unwrap(), [status, array, status, array]);
}

#[test]
fn a_size_that_is_no_multiple_of_a_block_is_refused() {
    assert!(Flash::new(&[0; BLOCK - 1], None).is_err());
    assert!(Flash::new(&[], None).is_err());
}

#[test]
fn a_file_is_the_chip_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vars");
    std::fs::write(&path, [0xff; 2 * BLOCK]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let flash = Flash::new(&[0xff; 2 * BLOCK], Some(Box::new(file))).unwrap();
    tell(&flash, BLOCK - 1, &[0x10, 0x12]);
    flash.write(BLOCK as u64, &[0x10]);
    flash.write(BLOCK as u64, &[1, 2, 3, 4, 5, 6, 7, 8]);
    // Not yet settled, and there all the same for whoever comes after a process that was killed here.
    let kept = std::fs::read(&path).unwrap();
    assert_eq!(kept[BLOCK - 1..BLOCK + 9], [0x12, 1, 2, 3, 4, 5, 6, 7, 8, 0xff]);
    tell(&flash, 0, &[0x20, 0xd0]);
    let kept = std::fs::read(&path).unwrap();
    assert!(kept[..BLOCK].iter().all(|byte| *byte == 0xff) && kept[BLOCK] == 1);
}

proptest! {
    #[test]
    fn any_writes_leave_a_chip_that_its_store_agrees_with(
        writes in prop::collection::vec((0u64..2 * BLOCK as u64 + 16, prop::collection::vec(command(), 0..9)), 0..400),
        reads in prop::collection::vec((any::<u64>(), 0usize..9), 0..20),
    ) {
        let (flash, record) = chip(&[0x5a; 2 * BLOCK]);
        for (offset, data) in writes {
            flash.write(offset, &data);
        }
        for (offset, size) in reads {
            flash.read(offset, &mut vec![0; size]);
        }
        flash.write(u64::MAX, &[0x10]);
        flash.read(u64::MAX, &mut [0; 8]);
        // Whatever sequence it was in, these end it: as many as a buffer has writes, and its confirmation.
        tell(&flash, 0, &[0xff; 260]);
        tell(&flash, 0, &[0x50]);
        let mut seen = vec![0; 2 * BLOCK];
        flash.read(0, &mut seen);
        let mut kept = vec![0x5a; 2 * BLOCK];
        for (offset, data) in record.told.lock().unwrap().iter().flatten() {
            let at = *offset as usize;
            kept[at..at + data.len()].copy_from_slice(data);
        }
        prop_assert_eq!(seen, kept);
    }
}

/// Bytes that are commands more often than chance has it.
fn command() -> impl Strategy<Value = u8> {
    prop_oneof![
        prop::sample::select(vec![0x10, 0x20, 0x40, 0x50, 0x70, 0xd0, 0xe8, 0xff, 0x00, 0x01]),
        any::<u8>()
    ]
}
