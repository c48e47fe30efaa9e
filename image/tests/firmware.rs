//! Firmware files: the variable store as an installed OVMF_VARS file has it, boot options, hostile images, and tables for fw_cfg.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an image that cannot be made fails its test"
)]

use pellucid_image::{
    AcpiBoard, EfiProgram, FirmwareCode, FirmwareError, LoaderFiles, StoreWrite, VariableStore,
};
use pellucid_partition::Layout;
use proptest::prelude::*;

/// An empty store as EDK II formats it: `size` bytes, of which `variables` are for variables.
fn empty(size: usize, variables: usize) -> Vec<u8> {
    let mut image = vec![0xff; size];
    image[..16].fill(0);
    image[16..32].copy_from_slice(&[
        0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
    ]);
    image[32..40].copy_from_slice(&(size as u64).to_le_bytes());
    image[40..44].copy_from_slice(b"_FVH");
    image[44..48].copy_from_slice(&0x0004_feff_u32.to_le_bytes());
    image[48..56].copy_from_slice(&[0x48, 0, 0, 0, 0, 0, 0, 2]);
    image[56..60].copy_from_slice(&((size / 4096) as u32).to_le_bytes());
    image[60..64].copy_from_slice(&4096u32.to_le_bytes());
    image[64..72].fill(0);
    let words = image[..72].chunks(2);
    let sum = words.fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    image[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    image[72..88].copy_from_slice(&[
        0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
    ]);
    image[88..92].copy_from_slice(&(variables as u32).to_le_bytes());
    image[92..100].copy_from_slice(&[0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
    image
}

fn store() -> VariableStore {
    VariableStore::of(empty(0x2000, 0x1000)).unwrap()
}

fn boot(path: &str) -> EfiProgram {
    EfiProgram::new(path).unwrap()
}

#[test]
fn the_distributions_own_store_is_read() {
    let path = std::path::Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd");
    if !path.exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the package ovmf is not installed"
        );
        eprintln!("left out: the package ovmf is not installed");
        return;
    }
    let store = VariableStore::open(path).unwrap();
    assert_eq!(store.variables(), []);
    let code = FirmwareCode::open(std::path::Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd")).unwrap();
    assert_eq!(code.store_size(), store.bytes().len() as u64);
    // One with Microsoft's keys has variables, and they are whole.
    let keys = VariableStore::open(std::path::Path::new("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")).unwrap();
    let names: Vec<_> = keys
        .variables()
        .into_iter()
        .map(|variable| variable.name)
        .collect();
    assert!(
        ["PK", "KEK", "db"]
            .iter()
            .all(|name| names.iter().any(|one| one == name)),
        "{names:?}"
    );
    assert!(keys.variables().iter().all(|variable| !variable.data.is_empty()));
}

#[test]
fn a_boot_file_comes_first_and_the_others_stay() {
    let mut store = store();
    store.set("BootOrder", &[3, 0]).unwrap();
    store.set("Boot0000", b"another").unwrap();
    let writes = store.boot_first(&boot("/EFI/debian/shimx64.efi")).unwrap();
    assert!(!writes.is_empty());
    assert_eq!(store.global("BootOrder").unwrap(), [1, 0, 3, 0]);
    assert_eq!(store.global("Boot0000").unwrap(), b"another");
    let option = store.global("Boot0001").unwrap();
    let text: Vec<u8> = "\\EFI\\debian\\shimx64.efi\0"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let node = 4 + text.len() as u16;
    let expected = [
        &[1, 0, 0, 0][..],
        &(node + 4).to_le_bytes(),
        &text,
        &[4, 4],
        &node.to_le_bytes(),
        &text,
        &[0x7f, 0xff, 4, 0],
    ];
    assert_eq!(option, expected.concat());
    assert_eq!(store.boot_first(&boot("\\EFI\\debian\\shimx64.efi")).unwrap(), []);
}

#[test]
fn a_variable_whose_name_only_looks_the_same_is_another() {
    let mut store = store();
    store.set("BootOrder\0", &[9, 0]).unwrap();
    store.set("BootOrder", &[1, 0]).unwrap();
    assert_eq!(store.global("BootOrder").unwrap(), [1, 0]);
    store.set("BootOrder", &[2, 0]).unwrap();
    assert_eq!(store.global("BootOrder").unwrap(), [2, 0]);
    let data: Vec<_> = store
        .variables()
        .into_iter()
        .map(|variable| variable.data)
        .collect();
    assert_eq!(data, [[9, 0], [2, 0]]);
}

#[test]
fn a_record_behind_the_free_space_is_not_brought_back() {
    let mut whole = store();
    let before = whole.bytes().to_vec();
    let place = whole.set("One", &[1; 4]).unwrap()[0].clone();
    whole.set("Two", &[2; 4]).unwrap();
    let mut image = whole.bytes().to_vec();
    let first = place.offset as usize..place.offset as usize + place.data.len();
    image[first.clone()].copy_from_slice(&before[first]);
    let mut store = VariableStore::of(image).unwrap();
    assert_eq!(store.variables(), []);
    let refusal = store.set("One", &[1; 4]).unwrap_err().to_string();
    assert!(refusal.contains("start with a new store"), "{refusal}");
    assert_eq!(store.variables(), []);
}

#[test]
fn a_variable_is_old_or_new_after_each_write() {
    let mut store = store();
    store.set("Timeout", b"old").unwrap();
    let before = store.bytes().to_vec();
    let writes = store.set("Timeout", b"new").unwrap();
    let mut image = before;
    let mut seen = Vec::new();
    for StoreWrite { offset, data } in &writes {
        // Flash only clears bits, so each write must do without an erase.
        for (byte, new) in image[*offset as usize..].iter_mut().zip(data) {
            assert_eq!(*byte & new, *new);
            *byte = *new;
        }
        let now = VariableStore::of(image.clone()).unwrap();
        assert_eq!(now.variables().len(), 1, "{:?}", now.variables());
        seen.push(now.global("Timeout").unwrap());
    }
    assert_eq!(image, store.bytes());
    assert!(seen.starts_with(&[b"old".to_vec(), b"old".to_vec(), b"old".to_vec()]));
    assert_eq!(seen.last().unwrap(), b"new");
    // Nor is one lost that was cut short: the next is put behind it.
    let mut cut = store.bytes().to_vec();
    let cut_writes = store.clone().set("Timeout", b"never").unwrap();
    let at = cut_writes[0].offset as usize;
    cut[at..at + cut_writes[0].data.len()].copy_from_slice(&cut_writes[0].data);
    let mut cut = VariableStore::of(cut).unwrap();
    assert_eq!(cut.global("Timeout").unwrap(), b"new");
    cut.set("Timeout", b"after").unwrap();
    assert_eq!(
        (cut.global("Timeout").unwrap(), cut.variables().len()),
        (b"after".to_vec(), 1)
    );
}

#[test]
fn a_full_store_and_one_that_is_not_erased_are_refused() {
    let mut full = store();
    let refused = loop {
        match full.set("Big", &[7; 900]) {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().contains("full"), "{refused}");
    assert_eq!(full.global("Big").unwrap(), [7; 900]);
    let mut dirty = empty(0x2000, 0x1000);
    dirty[0x80] = 0;
    let refused = VariableStore::of(dirty).unwrap().set("X", b"1").unwrap_err();
    assert!(refused.to_string().contains("free"), "{refused}");
}

#[test]
fn what_is_no_store_is_refused_with_what_is_wrong() {
    let reason = |image: Vec<u8>| VariableStore::of(image).unwrap_err();
    assert!(reason(Vec::new()).contains("firmware volume"));
    assert!(reason(vec![0xff; 4096]).contains("firmware volume"));
    let with = |at: usize, byte: u8| {
        let mut image = empty(0x2000, 0x1000);
        image[at] = byte;
        reason(image)
    };
    assert!(with(34, 1).contains("larger than the file"));
    assert!(with(52, 1).contains("checksum"));
    assert!(with(72, 0).contains("no store"));
    assert!(with(90, 0xff).contains("past its end"));
    assert!(with(93, 0).contains("not formatted"));
    let mut cut = empty(0x2000, 0x1000);
    cut.truncate(60);
    assert!(reason(cut).contains("larger than the file"));
}

#[test]
fn paths_that_no_file_has_are_refused() {
    for (path, part) in [
        ("", "root"),
        ("EFI/a.efi", "root"),
        ("\\EFI\\", "root"),
        ("\\a*b", "character"),
        ("\\a\nb", "character"),
        (&format!("\\{}", "a".repeat(255)), "255"),
    ] {
        let refused = EfiProgram::new(path).unwrap_err();
        assert!(matches!(refused, FirmwareError::EfiProgram { .. }));
        assert!(refused.to_string().contains(part), "{refused}");
    }
    assert_eq!(boot("/EFI/BOOT/BOOTX64.EFI").path(), "\\EFI\\BOOT\\BOOTX64.EFI");
}

/// What firmware does with the script: the tables in memory at `base`, the root pointer at `base - 4096`.
fn load(files: &LoaderFiles, base: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut pointer, mut tables) = (files.pointer.clone(), files.tables.clone());
    for entry in files.script.chunks(128) {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
        let name = |at: usize| {
            let field = &entry[at..at + 56];
            String::from_utf8(field[..field.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap()
        };
        let file = match name(4).as_str() {
            LoaderFiles::POINTER => &mut pointer,
            LoaderFiles::TABLES => &mut tables,
            other => panic!("{other}"),
        };
        match word(0) {
            1 => assert!(word(60).is_power_of_two() && matches!(entry[64], 1 | 2)),
            2 => {
                assert_eq!(name(60), LoaderFiles::TABLES);
                let (at, width) = (word(116), usize::from(entry[120]));
                let mut value = [0; 8];
                value[..width].copy_from_slice(&file[at..at + width]);
                let value = (u64::from_le_bytes(value) + base).to_le_bytes();
                file[at..at + width].copy_from_slice(&value[..width]);
            }
            3 => {
                let (at, start, size) = (word(60), word(64), word(68));
                let sum = file[start..start + size]
                    .iter()
                    .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                file[at] = file[at].wrapping_sub(sum);
            }
            other => panic!("command {other}"),
        }
    }
    (pointer, tables)
}

#[test]
fn firmware_makes_the_same_tables_of_the_files_wherever_it_puts_them() {
    let layout = Layout::new(512 << 20, 39).unwrap();
    let tables = AcpiBoard::new(&layout, vec![0, 1, 2]).tables().unwrap();
    let files = tables.loader_files();
    assert!(files.script.len().is_multiple_of(128));
    // Put where the tables are in their absolute form, they are those.
    let split = tables.bytes().len() - files.tables.len();
    let (pointer, loaded) = load(&files, Layout::ACPI.start + split as u64);
    assert_eq!(loaded, tables.bytes()[split..]);
    assert_eq!(pointer, tables.bytes()[..36]);
    // Elsewhere each pointer leads to a table there.
    let base = 0x7eed_0000;
    let (pointer, loaded) = load(&files, base);
    let quad = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let index = (quad(&pointer, 24) - base) as usize;
    assert_eq!(&loaded[index..index + 4], b"XSDT");
    let first = (quad(&loaded, index + 36) - base) as usize;
    assert_eq!(&loaded[first..first + 4], b"FACP");
    let dsdt = (quad(&loaded, first + 140) - base) as usize;
    assert_eq!(&loaded[dsdt..dsdt + 4], b"DSDT");
}

proptest! {
    #[test]
    fn no_image_harms(
        patches in prop::collection::vec((72usize..0x1100, any::<u8>()), 0..60),
        sets in prop::collection::vec(("[a-zA-Z]{0,12}", prop::collection::vec(any::<u8>(), 0..200)), 0..30),
        size in 0usize..0x2000,
    ) {
        let mut image = empty(0x2000, 0x1000);
        for (at, byte) in patches {
            image[at] = byte;
        }
        if let Ok(mut store) = VariableStore::of(image.clone()) {
            for (name, data) in sets {
                if store.set(&name, &data).is_ok() {
                    prop_assert_eq!(store.global(&name), Some(data));
                }
            }
            let _ = store.boot_first(&boot("/a"));
            prop_assert!(store.variables().len() < 0x1000);
        }
        image.truncate(size);
        let _ = VariableStore::of(image);
    }
}
