//! A firmware's store of variables, whose header checksum is made right: the first byte says how much is written to it then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pellucid_image::{EfiProgram, VariableStore};

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, image)) = bytes.split_first() else {
        return;
    };
    let mut image = image.to_vec();
    make_checksum_right(&mut image);
    let Ok(mut store) = VariableStore::of(image) else {
        return;
    };
    let before = store.variables();
    let size = store.bytes().len();
    for number in 0..count % 8 {
        let data = vec![number; usize::from(count)];
        if let Ok(writes) = store.set("Pellucid", &data) {
            assert_eq!(store.global("Pellucid"), Some(data));
            assert!(writes.iter().all(|write| write.offset as usize + write.data.len() <= size));
        }
    }
    if let Ok(program) = EfiProgram::new("/EFI/debian/shimx64.efi") {
        let _ = store.boot_first(&program);
    }
    // What was there and is not what was written stays.
    let after = store.variables();
    let is_written = |name: &str| name == "Pellucid" || name.starts_with("Boot");
    for variable in before.iter().filter(|variable| !is_written(&variable.name)) {
        assert!(after.contains(variable), "{variable:?} is lost");
    }
});

fn make_checksum_right(image: &mut [u8]) {
    let Some(&[low, high]) = image.get(48..50) else {
        return;
    };
    let header = usize::from(u16::from_le_bytes([low, high]));
    if header < 52 || header > image.len() {
        return;
    }
    image[50..52].fill(0);
    let words = image[..header].chunks(2);
    let sum = words.fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from(word[0]) | u16::from(*word.get(1).unwrap_or(&0)) << 8)
    });
    image[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
}
