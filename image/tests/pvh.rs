//! ELF kernels with a PVH note: where they land, what they are told, and how a wrong one is refused.

mod support;

use std::mem::size_of;

use linux_loader::loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use pellucid_partition::{Entry, GuestAddress, Layout};
use proptest::prelude::*;
use support::machine::{MIB, Machine, put, refusal};

/// A vmlinux with one segment at 2 MiB and a Xen note that names its entry.
fn vmlinux() -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    image = put(image, 0, b"\x7fELF\x02\x01\x01");
    image = put(image, 16, &[2, 0, 62, 0]);
    image = put(image, 32, &64u64.to_le_bytes());
    image = put(image, 54, &[56, 0, 2, 0]);
    for (at, kind, offset, address, size) in [
        (64, 1u32, 0x1000u64, 2 * MIB, 0x3000u64),
        (120, 4, 0x200, 0, 0x30),
    ] {
        image = put(image, at, &kind.to_le_bytes());
        image = put(image, at + 8, &offset.to_le_bytes());
        image = put(image, at + 24, &address.to_le_bytes());
        image = put(image, at + 32, &size.to_le_bytes());
        image = put(image, at + 40, &(size * 2).to_le_bytes());
    }
    let note = |image, at, kind: u8, value: u32| {
        let image = put(
            image,
            at,
            &[4, 0, 0, 0, 4, 0, 0, 0, kind, 0, 0, 0, b'X', b'e', b'n', 0],
        );
        put(image, at + 16, &value.to_le_bytes())
    };
    image = note(note(image, 0x200, 6, 7), 0x214, 18, 0x20_0100);
    image.extend_from_slice(&[0x90; 0x3000]);
    image
}

#[test]
fn a_vmlinux_with_a_pvh_note_is_entered_by_it() {
    let machine = Machine::of(64);
    let entry = machine.load(vmlinux(), &[vec![9; 100]], "quiet").unwrap();
    assert_eq!(
        entry,
        Entry::Pvh {
            rip: GuestAddress(0x20_0100),
            start_info: Layout::BOOT_PARAMS
        }
    );
    assert_eq!(machine.bytes(2 * MIB, 0x3000), [0x90; 0x3000]);
    let info: hvm_start_info = machine.read(Layout::BOOT_PARAMS.0);
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336e_c578, 1, 1));
    assert_eq!(
        (info.rsdp_paddr, info.cmdline_paddr),
        (0xe0000, Layout::COMMAND_LINE.0)
    );
    let module: hvm_modlist_entry = machine.read(info.modlist_paddr);
    assert_eq!(
        (module.size, machine.bytes(module.paddr, 100)),
        (100, vec![9; 100])
    );
    let stride = size_of::<hvm_memmap_table_entry>() as u64;
    let map: Vec<hvm_memmap_table_entry> = (0..info.memmap_entries)
        .map(|i| machine.read(info.memmap_paddr + u64::from(i) * stride))
        .collect();
    assert!(
        map.iter()
            .any(|entry| (entry.addr, entry.size, entry.type_) == (MIB, 63 * MIB, 1))
    );
}

/// The same without its PVH entry, linked to the upper half as Linux is, with an entry 0x200 bytes in.
fn vmlinux_without_note() -> Vec<u8> {
    let image = put(vmlinux(), 0x21c, &[6]);
    let image = put(image, 64 + 16, &0xffff_ffff_8020_0000u64.to_le_bytes());
    put(image, 24, &(2 * MIB + 0x200).to_le_bytes())
}

#[test]
fn a_vmlinux_without_a_pvh_note_is_entered_in_64_bit_mode() {
    let machine = Machine::of(64);
    let entry = machine
        .load(vmlinux_without_note(), &[vec![9; 100]], "quiet")
        .unwrap();
    let expected = Entry::Linux64 {
        rip: GuestAddress(2 * MIB + 0x200),
        boot_params: Layout::BOOT_PARAMS,
    };
    assert_eq!(entry, expected);
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let header = params.hdr;
    let (flag, magic, version) = (header.boot_flag, header.header, header.version);
    assert_eq!(
        (flag, magic, version, header.loadflags),
        (0xaa55, 0x5372_6448, 0x20c, 1)
    );
    let (initrd, size, line) = (header.ramdisk_image, header.ramdisk_size, header.cmd_line_ptr);
    assert_eq!((machine.bytes(initrd.into(), 100), size), (vec![9; 100], 100));
    assert_eq!(machine.bytes(line.into(), 6), b"quiet\0");
    assert!(params.e820_entries > 4 && params.acpi_rsdp_addr == 0xe0000);
    let program = put(vmlinux_without_note(), 64 + 16, &(2 * MIB).to_le_bytes());
    assert!(refusal(program).contains("or Linux's 64-bit entry"));
    let outside = put(vmlinux_without_note(), 24, &(64 * MIB).to_le_bytes());
    assert!(refusal(outside).contains("or Linux's 64-bit entry"));
}

#[test]
fn an_elf_file_that_cannot_be_entered_is_refused_by_name() {
    assert!(refusal(put(vmlinux(), 18, &[40])).contains("not for x86-64"));
    assert!(refusal(put(vmlinux(), 0x21c, &[6])).contains("without a PVH entry note"));
    assert!(refusal(put(vmlinux(), 88, &0u64.to_le_bytes())).contains("outside its segments"));
    assert!(refusal(vmlinux()[..0x2000].to_vec()).contains("truncated"));
    assert!(refusal(vmlinux()[..70].to_vec()).contains("truncated"));
    assert!(refusal(put(vmlinux(), 104, &(1u64 << 40).to_le_bytes())).contains("needs memory"));
    assert!(refusal(put(vmlinux(), 104, &u64::MAX.to_le_bytes())).contains("wraps"));
}

proptest! {
    #[test]
    fn any_damage_to_an_elf_file_is_survived(damage in prop::collection::vec((0usize..0x240, any::<u8>()), 1..12)) {
        let mut image = vmlinux();
        damage.into_iter().for_each(|(at, value)| image[at] = value);
        let _ = Machine::of(32).load(image, &[], "");
    }
}
