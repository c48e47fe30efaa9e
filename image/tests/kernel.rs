//! Kernels in guest memory: where they land, what they are told, and how a wrong file is refused.

mod support;

use std::io::Cursor;

use linux_loader::loader::bootparam::boot_params;
use pellucid_image::{BzImageHeader, HeaderError, Linux, SourceFile};
use pellucid_partition::{Entry, GuestAddress, Layout};
use proptest::prelude::*;
use support::machine::{MIB, Machine, put, refusal, source};
use support::small_kernel;

#[test]
fn a_bzimage_is_entered_where_it_wants_to_be() {
    let machine = Machine::of(64);
    let entry = machine.load(small_kernel(), &[], "root=/dev/x ro").unwrap();
    let expected = Entry::Linux64 {
        rip: GuestAddress((16 << 20) + 0x200),
        boot_params: Layout::BOOT_PARAMS,
    };
    assert_eq!(entry, expected);
    assert_eq!(machine.bytes(16 << 20, 0x1_0000), small_kernel()[1024..]);
    assert_eq!(machine.bytes(Layout::COMMAND_LINE.0, 15), b"root=/dev/x ro\0");
}

#[test]
fn the_boot_parameters_say_what_the_protocol_wants() {
    let machine = Machine::of(64);
    machine.load(small_kernel(), &[vec![5; 4097]], "").unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let header = params.hdr;
    let (magic, version, start) = (header.header, header.version, header.code32_start);
    assert_eq!(
        (magic, version, start, header.type_of_loader),
        (0x5372_6448, 0x20f, 16 << 20, 0xff)
    );
    let (line, rsdp, image, size) = (
        header.cmd_line_ptr,
        params.acpi_rsdp_addr,
        header.ramdisk_image,
        header.ramdisk_size,
    );
    assert_eq!((u64::from(line), rsdp), (Layout::COMMAND_LINE.0, 0xe0000));
    assert_eq!(
        (image % 4096, u64::from(image) + u64::from(size)),
        (0, 64 * MIB - 4096 + 4)
    );
    let map: Vec<(u64, u64, u32)> = params.e820_table[..usize::from(params.e820_entries)]
        .iter()
        .map(|entry| (entry.addr, entry.size, entry.r#type))
        .collect();
    assert!(
        map.contains(&(0, 0x9_fc00, 1)) && map.contains(&(MIB, 63 * MIB, 1)),
        "{map:x?}"
    );
    assert!(
        map.contains(&(0xe000_0000, 256 * MIB, 2)),
        "ECAM is reserved: {map:x?}"
    );
}

#[test]
fn initrds_follow_each_other_in_order_padded_to_four_bytes() {
    let machine = Machine::of(64);
    machine
        .load(small_kernel(), &[vec![1; 5], vec![2; 300_001], vec![3; 4]], "")
        .unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let (start, size) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
    let expected = [vec![1; 5], vec![0; 3], vec![2; 300_001], vec![0; 3], vec![3; 4]].concat();
    assert_eq!(
        (size as usize, machine.bytes(start.into(), expected.len())),
        (expected.len(), expected)
    );
}

#[test]
fn an_initrd_stays_below_the_kernels_limit() {
    let machine = Machine::of(64);
    machine
        .load(
            put(small_kernel(), 0x22c, &0x1ff_ffffu32.to_le_bytes()),
            &[vec![1; 4096]],
            "",
        )
        .unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let start = params.hdr.ramdisk_image;
    assert_eq!(start, 0x1ff_f000);
}

#[test]
fn memory_above_four_gibibytes_is_in_the_map() {
    let machine = Machine::of(4096);
    machine.load(small_kernel(), &[], "").unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let last = params.e820_table[usize::from(params.e820_entries) - 1];
    let (start, size, kind) = (last.addr, last.size, last.r#type);
    assert_eq!((start, size, kind), (1 << 32, 1 << 30, 1));
}

#[test]
fn a_truncated_kernel_is_refused_by_name() {
    let image = small_kernel();
    let text = refusal(image[..image.len() - 16].to_vec());
    assert!(
        text.contains("truncated: 66544 bytes") && text.contains("66560"),
        "{text}"
    );
    assert!(refusal(image[..0x240].to_vec()).contains("truncated"));
    let rounded = image[..image.len() - 15].to_vec();
    assert!(
        Machine::of(64).load(rounded, &[], "").is_ok(),
        "the size is rounded up to 16 bytes"
    );
}

#[test]
fn a_file_that_is_no_kernel_is_refused_by_name() {
    assert!(refusal(b"#!/bin/sh\n".to_vec()).contains("no Linux setup header"));
    assert!(refusal(Vec::new()).contains("no Linux setup header"));
    assert!(refusal(put(small_kernel(), 0x206, &[0x09, 0x02])).contains("2.09"));
    assert!(refusal(put(small_kernel(), 0x236, &[0, 0])).contains("no 64-bit entry"));
    assert!(refusal(put(small_kernel(), 0x230, &[1, 2, 3, 4])).contains("alignment"));
    assert!(refusal(put(small_kernel(), 0x201, &[0xff])).contains("length"));
}

#[test]
fn a_kernel_larger_than_memory_says_how_much_it_needs() {
    let text = refusal(put(small_kernel(), 0x260, &(80u32 << 20).to_le_bytes()));
    assert!(
        text.contains("needs memory up to 82 MiB") && text.contains("has 64 MiB"),
        "{text}"
    );
}

#[test]
fn an_initrd_larger_than_memory_says_how_much_it_needs() {
    let size = 60 * MIB;
    let initrd = SourceFile::new("big.img", size, Cursor::new(Vec::new()));
    let machine = Machine::of(64);
    let linux = Linux {
        kernel: source("vmlinuz", small_kernel()),
        initrds: vec![initrd],
        command_line: String::new(),
    };
    let text = linux
        .load(&machine.memory, &machine.layout)
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("big.img: initrds of 60 MiB") && text.contains("at least 84 MiB"),
        "{text}"
    );
}

#[test]
fn what_would_be_refused_is_refused_before_there_is_memory() {
    let layout = Layout::new(64 << 20, 39).unwrap();
    let check = |kernel: Vec<u8>, initrd: u64, command_line: String| {
        let initrds = vec![SourceFile::new("initrd", initrd, Cursor::new(Vec::new()))];
        let mut linux = Linux {
            kernel: source("vmlinuz", kernel),
            initrds,
            command_line,
        };
        linux.check(&layout).map_err(|error| error.to_string())
    };
    assert_eq!(check(small_kernel(), 4096, "ro".into()), Ok(()));
    assert!(
        check(small_kernel()[..4096].to_vec(), 0, String::new())
            .unwrap_err()
            .contains("truncated")
    );
    assert!(
        check(b"MZ".to_vec(), 0, String::new())
            .unwrap_err()
            .contains("no Linux setup header")
    );
    assert!(
        check(small_kernel(), 60 << 20, String::new())
            .unwrap_err()
            .contains("at least 84 MiB")
    );
    assert!(
        check(small_kernel(), 0, "x".repeat(3000))
            .unwrap_err()
            .contains("3000 bytes")
    );
    assert!(
        check(small_kernel(), u64::MAX, String::new())
            .unwrap_err()
            .contains("do not fit")
    );
}

#[test]
fn a_kernel_without_initrds_is_told_of_none() {
    let machine = Machine::of(64);
    machine.load(small_kernel(), &[], "").unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let (start, size) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
    assert_eq!(
        (start, size, params.ext_ramdisk_image, params.ext_ramdisk_size),
        (0, 0, 0, 0)
    );
}

#[test]
fn nothing_is_written_for_a_kernel_that_is_refused() {
    let machine = Machine::of(64);
    machine
        .load(small_kernel()[..4096].to_vec(), &[], "ro")
        .unwrap_err();
    let written = [Layout::BOOT_PARAMS.0, Layout::COMMAND_LINE.0, 16 * MIB].map(|at| machine.bytes(at, 4096));
    assert!(written.concat().iter().all(|&byte| byte == 0));
}

#[test]
fn an_unmovable_kernel_is_loaded_at_its_address_or_not_at_all() {
    let fixed = put(small_kernel(), 0x234, &[0]);
    assert!(Machine::of(64).load(fixed.clone(), &[], "").is_ok());
    let text = Machine::of(16).load(fixed, &[], "").unwrap_err().to_string();
    assert!(text.contains("memory up to 24 MiB"), "{text}");
    let moved = Machine::of(16).load(small_kernel(), &[], "").unwrap();
    let expected = Entry::Linux64 {
        rip: GuestAddress((2 << 20) + 0x200),
        boot_params: Layout::BOOT_PARAMS,
    };
    assert_eq!(moved, expected);
}

#[test]
fn a_command_line_longer_than_the_kernel_reads_is_refused() {
    let machine = Machine::of(64);
    assert!(machine.load(small_kernel(), &[], &"x".repeat(2047)).is_ok());
    let text = machine
        .load(small_kernel(), &[], &"x".repeat(2048))
        .unwrap_err()
        .to_string();
    assert!(text.contains("2048 bytes, the kernel reads 2047"), "{text}");
}

#[test]
fn a_missing_kernel_and_a_directory_are_refused_by_name() {
    let open = |path: &str| {
        SourceFile::open(std::path::Path::new(path))
            .unwrap_err()
            .to_string()
    };
    assert!(open("/nonexistent/vmlinuz").starts_with("/nonexistent/vmlinuz: cannot be opened: No such file"));
    assert!(open("/").contains("not a regular file"));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let short = SourceFile::new("vmlinuz", 1 << 20, Cursor::new(small_kernel()[..2000].to_vec()));
    let linux = Linux {
        kernel: short,
        initrds: Vec::new(),
        command_line: String::new(),
    };
    let machine = Machine::of(64);
    let text = linux
        .load(&machine.memory, &machine.layout)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("vmlinuz: cannot be read: the file became shorter"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn any_setup_header_is_read_or_refused(damage in prop::collection::vec((0x1f0usize..0x290, any::<u8>()), 1..40)) {
        let mut image = small_kernel();
        damage.into_iter().for_each(|(at, value)| image[at] = value);
        match BzImageHeader::parse(&image[..BzImageHeader::SPAN]) {
            Ok(header) => prop_assert!(header.alignment.is_power_of_two() && header.payload_size >= 0x200),
            Err(error) => {
                let impossible = HeaderError::Old { version: 0x20f };
                prop_assert!(!error.to_string().is_empty() && error != impossible);
            }
        }
        let _ = Machine::of(32).load(image, &[vec![1; 10]], "quiet");
    }
}
