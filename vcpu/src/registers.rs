//! The registers and tables with which vCPU 0 enters an image. Pure: from an `Entry` to bytes and register values.
//!
//! Sources: Documentation/arch/x86/boot.rst ("64-bit Boot Protocol"), the PVH direct boot ABI of Xen, Intel SDM vol. 3 chapter 3.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use pellucid_partition::{Entry, Layout};

/// What vCPU 0 begins with.
pub(crate) struct EntryState {
    pub(crate) regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    /// Bytes for guest memory from the start of `Layout::ENTRY_PAGES`.
    pub(crate) tables: Vec<u8>,
}

/// The state for `entry`, on top of the state after reset; none if a real-mode entry is out of reach.
pub(crate) fn entry_state(entry: Entry, reset: (kvm_regs, kvm_sregs)) -> Option<EntryState> {
    let (regs, mut sregs) = reset;
    let clear = kvm_regs {
        rflags: RFLAGS,
        ..Default::default()
    };
    match entry {
        Entry::Linux64 { rip, boot_params } => {
            let gdt = [0, 0, CODE_64, DATA, TSS, 0];
            load_segments(&mut sregs, &gdt);
            sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
            sregs.cr3 = PML4;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            let regs = kvm_regs {
                rip: rip.0,
                rsi: boot_params.0,
                ..clear
            };
            Some(EntryState {
                regs,
                sregs,
                tables: [in_page(&gdt), page_tables()].concat(),
            })
        }
        Entry::Pvh { rip, start_info } => {
            let gdt = [0, 0, CODE_32, DATA, TSS, 0];
            load_segments(&mut sregs, &gdt);
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0_PE | CR0_ET, 0, 0, 0);
            let regs = kvm_regs {
                rip: rip.0,
                rbx: start_info.0,
                ..clear
            };
            Some(EntryState {
                regs,
                sregs,
                tables: in_page(&gdt),
            })
        }
        Entry::Real { cs_base, ip } => {
            if cs_base.0 >= REAL_LIMIT || cs_base.0 % 16 != 0 {
                return None;
            }
            (sregs.cs.base, sregs.cs.selector) = (cs_base.0, (cs_base.0 >> 4) as u16);
            let regs = kvm_regs {
                rip: u64::from(ip),
                ..clear
            };
            Some(EntryState {
                regs,
                sregs,
                tables: Vec::new(),
            })
        }
        Entry::Reset => Some(EntryState {
            regs,
            sregs,
            tables: Vec::new(),
        }),
    }
}

/// Flat segments, as the descriptors in `gdt` say.
fn load_segments(sregs: &mut kvm_sregs, gdt: &[u64]) {
    sregs.cs = segment(gdt, BOOT_CS);
    let data = segment(gdt, BOOT_DS);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(gdt, BOOT_TSS);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, (gdt.len() * 8 - 1) as u16);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
}

/// What the processor would have in the segment register after loading `selector`.
fn segment(gdt: &[u64], selector: u16) -> kvm_segment {
    let descriptor = gdt[usize::from(selector / 8)];
    let bits = |shift: u32, mask: u64| (descriptor >> shift & mask) as u8;
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    kvm_segment {
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        limit: if bits(55, 1) == 1 {
            limit << 12 | 0xfff
        } else {
            limit
        },
        selector,
        type_: bits(40, 0xf),
        s: bits(44, 1),
        dpl: bits(45, 3),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: bits(55, 1),
        ..Default::default()
    }
}

/// The first 4 GiB mapped to themselves in 2 MiB pages: PML4, PDPT and four page directories.
fn page_tables() -> Vec<u8> {
    let mut tables = in_page(&[PDPT | PRESENT_WRITABLE]);
    let directories: Vec<_> = (0..DIRECTORIES)
        .map(|n| (DIRECTORY + n * PAGE as u64) | PRESENT_WRITABLE)
        .collect();
    tables.extend(in_page(&directories));
    tables.extend((0..DIRECTORIES * 512).flat_map(|n| (n << 21 | PRESENT_WRITABLE | LARGE).to_le_bytes()));
    tables
}

fn in_page(words: &[u64]) -> Vec<u8> {
    let mut page: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    page.resize(PAGE, 0);
    page
}

const PAGE: usize = 4096;
const GDT: u64 = Layout::ENTRY_PAGES.start;
const PML4: u64 = GDT + PAGE as u64;
const PDPT: u64 = PML4 + PAGE as u64;
const DIRECTORY: u64 = PDPT + PAGE as u64;
const DIRECTORIES: u64 = 4;
const _: () = assert!(DIRECTORY + DIRECTORIES * PAGE as u64 <= Layout::ENTRY_PAGES.end);

const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;

/// `__BOOT_CS`, `__BOOT_DS` and `__BOOT_TSS` of Linux's arch/x86/include/asm/segment.h.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;

/// Descriptors: flat, ring 0, accessed; the last a busy task state segment.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TSS: u64 = 0x0000_8b00_0000_0067;

const RFLAGS: u64 = 2;
const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const REAL_LIMIT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use pellucid_partition::GuestAddress;

    fn state(entry: Entry) -> Option<EntryState> {
        entry_state(entry, Default::default())
    }

    fn word(tables: &[u8], address: u64) -> u64 {
        let at = (address - GDT) as usize;
        u64::from_le_bytes(tables[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_page_tables_map_four_gibibytes_to_themselves() {
        let rip = GuestAddress(0x10_0200);
        let linux = state(Entry::Linux64 {
            rip,
            boot_params: GuestAddress(0x1_0000),
        })
        .unwrap();
        for address in [0, 0x1f_ffff, 0x20_0000, 0x4000_0000, 0xc000_0000, 0xffff_ffff_u64] {
            let pdpt = word(&linux.tables, linux.sregs.cr3 + 8 * (address >> 39 & 511)) & !0xfff;
            let directory = word(&linux.tables, pdpt + 8 * (address >> 30 & 511)) & !0xfff;
            let entry = word(&linux.tables, directory + 8 * (address >> 21 & 511));
            assert_eq!(entry & 0x83, 0x83, "{address:#x}");
            assert_eq!((entry & !0x1f_ffff) + (address & 0x1f_ffff), address);
        }
        assert_eq!(
            linux.tables.len() as u64,
            Layout::ENTRY_PAGES.end - Layout::ENTRY_PAGES.start
        );
    }

    #[test]
    fn linux_finds_its_segments_and_boot_parameters() {
        let rip = GuestAddress(0x10_0200);
        let linux = state(Entry::Linux64 {
            rip,
            boot_params: GuestAddress(0x1_0000),
        })
        .unwrap();
        assert_eq!(
            (linux.regs.rip, linux.regs.rsi, linux.regs.rflags),
            (0x10_0200, 0x1_0000, 2)
        );
        let (cs, ss, tr) = (linux.sregs.cs, linux.sregs.ss, linux.sregs.tr);
        assert_eq!(
            (cs.selector, cs.type_, cs.l, cs.db, cs.limit),
            (0x10, 0xb, 1, 0, 0xffff_ffff)
        );
        assert_eq!((ss.selector, ss.type_, ss.s, ss.g), (0x18, 3, 1, 1));
        assert_eq!((tr.type_, tr.s, tr.limit, tr.base), (0xb, 0, 0x67, 0));
        assert_eq!(word(&linux.tables, linux.sregs.gdt.base + 0x10), CODE_64);
    }

    #[test]
    fn pvh_is_flat_protected_mode_without_paging() {
        let pvh = state(Entry::Pvh {
            rip: GuestAddress(0x10_0000),
            start_info: GuestAddress(0x6000),
        })
        .unwrap();
        assert_eq!((pvh.regs.rip, pvh.regs.rbx), (0x10_0000, 0x6000));
        assert_eq!((pvh.sregs.cr0, pvh.sregs.cr4, pvh.sregs.efer), (0x11, 0, 0));
        assert_eq!((pvh.sregs.cs.l, pvh.sregs.cs.db, pvh.sregs.cs.base), (0, 1, 0));
    }

    #[test]
    fn a_real_mode_entry_beyond_reach_is_none() {
        let real = |base| {
            state(Entry::Real {
                cs_base: GuestAddress(base),
                ip: 7,
            })
        };
        assert!(real(0x10_0000).is_none() && real(0x7c08).is_none());
        let reached = real(0xf_fff0).unwrap();
        assert_eq!((reached.sregs.cs.selector, reached.regs.rip), (0xffff, 7));
    }
}
