//! Initrds above 4 GiB: only where the kernel says that it takes them there, and only those that have no place below.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use linux_loader::loader::bootparam::boot_params;
use pellucid_partition::Layout;
use support::machine::{Machine, put};
use support::small_kernel;

#[test]
fn an_initrd_without_a_place_below_goes_above_four_gibibytes_if_the_kernel_may_have_it_there() {
    let low = put(small_kernel(), 0x22c, &0xff_ffffu32.to_le_bytes());
    let both = put(low.clone(), 0x236, &[3]);
    let machine = Machine::of(4096);
    machine.load(both.clone(), &[vec![7; 5000]], "").unwrap();
    let params: boot_params = machine.read(Layout::BOOT_PARAMS.0);
    let (start, high) = (params.hdr.ramdisk_image, params.ext_ramdisk_image);
    let (size, more) = (params.hdr.ramdisk_size, params.ext_ramdisk_size);
    let at = u64::from(high) << 32 | u64::from(start);
    assert_eq!((at, size, more), ((5 << 30) - 8192, 5000, 0));
    assert_eq!(machine.bytes(at, 5000), [7; 5000]);
    let text = Machine::of(64)
        .load(both, &[vec![7; 5000]], "")
        .unwrap_err()
        .to_string();
    assert!(text.contains("do not fit"), "without memory above: {text}");
    let text = machine.load(low, &[vec![7; 5000]], "").unwrap_err().to_string();
    assert!(
        text.contains("do not fit"),
        "a kernel that does not say so: {text}"
    );
}
