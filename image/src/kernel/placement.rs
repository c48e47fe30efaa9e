//! Where a kernel and its initrd go in guest memory. Pure arithmetic, so that it can be tested without any.

use std::ops::Range;

use pellucid_partition::{Layout, RamRange};

use super::BzImageHeader;

/// Why something has no place: which bytes are needed up to, or beside what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The kernel would reach up to `needed`.
    Kernel { needed: u64 },
    /// The initrd fits only into memory of `needed` bytes; `available` bytes are free for it now.
    Initrd { available: u64, needed: u64 },
}

/// The range that a bzImage takes until it manages memory itself, in `ram` bytes of RAM from 0 up.
///
/// At its preferred address if that fits, so that it need not move itself; else, if it can be moved, as low as possible.
pub(crate) fn place_kernel(header: &BzImageHeader, ram: u64) -> Result<Range<u64>, NoRoom> {
    let size = header.init_size.max(header.payload_size);
    let low = Layout::HIGH_MEMORY.0.next_multiple_of(header.alignment);
    let preferred = header.preferred_address;
    let fits = |start: u64| start >= Layout::HIGH_MEMORY.0 && start + size <= ram;
    if fits(preferred) {
        return Ok(preferred..preferred + size);
    }
    if header.relocatable && fits(low) {
        return Ok(low..low + size);
    }
    let start = if header.relocatable {
        low
    } else {
        preferred.max(Layout::HIGH_MEMORY.0)
    };
    Err(NoRoom::Kernel { needed: start + size })
}

/// The range for an initrd of `size` bytes: page aligned, as high as the kernel and `ram` allow, above `kernel_end`.
///
/// `address_max` is the highest address that its last byte may have.
pub(crate) fn place_initrd(
    size: u64,
    kernel_end: u64,
    address_max: u64,
    ram: u64,
) -> Result<Range<u64>, NoRoom> {
    let top = ram.min(address_max.saturating_add(1));
    let bottom = kernel_end.next_multiple_of(PAGE);
    let start = top
        .checked_sub(size)
        .map(|start| start / PAGE * PAGE)
        .filter(|&start| start >= bottom);
    match start {
        Some(start) => Ok(start..start + size),
        None => Err(NoRoom::Initrd {
            available: top.saturating_sub(bottom),
            needed: bottom
                .saturating_add(size)
                .checked_next_multiple_of(2 << 20)
                .unwrap_or(u64::MAX),
        }),
    }
}

/// The range for an initrd of `size` bytes that has no place below 4 GiB: as high as possible in RAM of one node above.
pub(crate) fn place_initrd_high(size: u64, layout: &Layout) -> Option<Range<u64>> {
    let high = layout.ram().iter().filter(|range| range.start >= 1 << 32).rev();
    let place = |range: &RamRange| {
        let start = range.end.checked_sub(size)? / PAGE * PAGE;
        (start >= range.start).then_some(start..start + size)
    };
    high.filter_map(place).next()
}

const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(preferred: u64, init_size: u64, relocatable: bool) -> BzImageHeader {
        BzImageHeader {
            raw: Vec::new(),
            version: 0x20f,
            payload_offset: 0x4000,
            payload_size: init_size / 2,
            init_size,
            preferred_address: preferred,
            alignment: 2 << 20,
            relocatable,
            initrd_address_max: 0x7fff_ffff,
            initrd_above_4g: false,
            command_line_size: 2047,
        }
    }

    #[test]
    fn a_kernel_goes_where_it_wants_to_be() {
        let range = place_kernel(&header(16 << 20, 48 << 20, true), 256 << 20);
        assert_eq!(range, Ok(16 << 20..64 << 20));
    }

    #[test]
    fn a_movable_kernel_moves_down_in_little_memory_and_others_are_refused() {
        let range = place_kernel(&header(16 << 20, 40 << 20, true), 48 << 20);
        assert_eq!(range, Ok(2 << 20..42 << 20));
        let refused = place_kernel(&header(16 << 20, 40 << 20, false), 48 << 20);
        assert_eq!(refused, Err(NoRoom::Kernel { needed: 56 << 20 }));
    }

    #[test]
    fn an_initrd_too_large_for_memory_says_how_much_would_do() {
        let refused = place_initrd(100 << 20, 64 << 20, 0x7fff_ffff, 128 << 20);
        assert_eq!(
            refused,
            Err(NoRoom::Initrd {
                available: 64 << 20,
                needed: 164 << 20
            })
        );
        assert!(place_initrd(100 << 20, 64 << 20, 0x7fff_ffff, 164 << 20).is_ok());
    }

    #[test]
    fn an_initrd_above_four_gibibytes_ends_with_the_last_memory_that_holds_it() {
        let layout = Layout::new(6 << 30, 39).unwrap();
        let end = layout.ram().iter().map(|range| range.end).max().unwrap();
        assert_eq!(place_initrd_high(5000, &layout), Some(end - 8192..end - 3192));
        assert_eq!(place_initrd_high(4 << 30, &layout), None);
        assert_eq!(place_initrd_high(1, &Layout::new(1 << 30, 39).unwrap()), None);
    }

    proptest! {
        #[test]
        fn kernel_and_initrd_never_overlap_and_stay_in_memory(
            preferred in 0u64..2048, init in 1u64..(4 << 30), movable: bool,
            size in 1u64..(4 << 30), max in 0u64..(1 << 32), ram in 8u64..1536,
        ) {
            let ram = ram << 21;
            let header = header(preferred << 21, init, movable);
            let Ok(kernel) = place_kernel(&header, ram) else { return Ok(()) };
            prop_assert!(kernel.start >= 1 << 20 && kernel.end <= ram);
            prop_assert!(movable || kernel.start == header.preferred_address);
            let Ok(initrd) = place_initrd(size, kernel.end, max, ram) else { return Ok(()) };
            prop_assert!(initrd.start >= kernel.end && initrd.end <= ram && initrd.end - 1 <= max);
            prop_assert_eq!((initrd.start % PAGE, initrd.end - initrd.start), (0, size));
        }
    }
}
