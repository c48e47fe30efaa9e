//! An EFI program that may be a unified kernel image.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pellucid_image::{SourceFile, UnifiedKernel};

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    let mut file = SourceFile::new("fuzz.efi", size, Cursor::new(bytes));
    let Ok(Some(image)) = UnifiedKernel::parse(&mut file) else {
        return;
    };
    assert!(!image.profiles.is_empty());
    for profile in &image.profiles {
        assert!(!profile.command_line.contains(['\n', '\r', '\0']));
        for part in profile.kernel.iter().chain(&profile.initrds) {
            assert!(part.size > 0 && part.offset + part.size <= size);
        }
    }
});
