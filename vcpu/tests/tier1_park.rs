//! What a vCPU is made with, read back from /dev/kvm: the CPUID table, the local APIC, the counters, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod machine;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_msr_entry,
};
use machine::Machine;
use pellucid_partition::{Entry, GuestAddress};
use pellucid_vcpu::{Hypervisor, ParkError, Parked, Topology, VcpuPolicy};

const RESET: Entry = Entry::Reset;
const FLAT: Entry = Entry::Pvh {
    rip: GuestAddress(0x10_0000),
    start_info: GuestAddress(0x6000),
};

/// `[eax, ebx, ecx, edx]` of a leaf as KVM now has it.
fn leaf(parked: &Parked, vcpu: u32, function: u32, index: u32) -> Option<[u32; 4]> {
    let table = parked
        .vcpu(vcpu)
        .unwrap()
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .unwrap();
    let entry = table
        .as_slice()
        .iter()
        .find(|e| e.function == function && e.index == index)?;
    Some([entry.eax, entry.ebx, entry.ecx, entry.edx])
}

#[test]
fn every_vcpu_finds_its_own_number_in_its_table() {
    let machine = Machine::new(3, &[]);
    let parked = Parked::create(&machine.partition, FLAT, &VcpuPolicy::default()).unwrap();
    for vcpu in 0..3 {
        let [_, ebx, ecx, edx] = leaf(&parked, vcpu, 1, 0).unwrap();
        assert_eq!(ebx >> 24, vcpu);
        assert_eq!(
            (ecx >> 31 & 1, ecx >> 21 & 1, edx >> 28 & 1),
            (1, 1, 1),
            "hypervisor, x2apic, htt"
        );
        if leaf(&parked, vcpu, 0, 0).unwrap()[0] >= 0xb {
            assert_eq!(leaf(&parked, vcpu, 0xb, 1).unwrap(), [2, 3, 0x201, vcpu]);
        }
        assert_ne!(
            leaf(&parked, vcpu, 0x8000_0002, 0).unwrap(),
            [0; 4],
            "a processor has a name"
        );
    }
}

#[test]
fn no_child_inherits_the_pages_that_hold_a_vcpu_open() {
    let machine = Machine::new(2, &[]);
    let _parked = Parked::create(&machine.partition, FLAT, &VcpuPolicy::default()).unwrap();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut of_vcpu, mut flags) = (false, Vec::new());
    for line in maps.lines() {
        of_vcpu |= line.contains("kvm-vcpu:");
        if let Some(found) = line.strip_prefix("VmFlags:") {
            flags.extend(Some(found).filter(|_| std::mem::take(&mut of_vcpu)));
        }
    }
    // Each vCPU's pages are mapped by kvm-ioctls, their head by this crate too.
    assert!(flags.len() >= 4, "{flags:#?}");
    assert!(flags.iter().all(|flags| flags.contains(" dc")), "{flags:#?}");
}

#[test]
fn a_vcpu_has_as_many_error_banks_as_the_host() {
    let machine = Machine::new(1, &[]);
    let parked = Parked::create(&machine.partition, FLAT, &VcpuPolicy::default()).unwrap();
    let one = [kvm_msr_entry {
        index: 0x179,
        ..Default::default()
    }];
    let mut msrs = Msrs::from_entries(&one).unwrap();
    parked.vcpu(0).unwrap().get_msrs(&mut msrs).unwrap();
    let of_host = std::fs::read_dir("/sys/devices/system/machinecheck/machinecheck0");
    let banks = of_host.map_or(0, |entries| {
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| {
                name.strip_prefix("bank")
                    .is_some_and(|rest| rest.parse::<u8>().is_ok())
            })
            .count() as u64
    });
    // Where the host does not tell, KVM's own number stays.
    let expected = if banks == 0 { 32 } else { banks };
    assert_eq!(msrs.as_slice()[0].data & 0xff, expected);
}

#[test]
fn a_hidden_hypervisor_shows_neither_bit_nor_leaves() {
    let machine = Machine::new(1, &[]);
    let policy = VcpuPolicy {
        hypervisor: Hypervisor::Hidden,
        ..Default::default()
    };
    let parked = Parked::create(&machine.partition, FLAT, &policy).unwrap();
    assert_eq!(leaf(&parked, 0, 1, 0).unwrap()[2] >> 31, 0);
    assert_eq!(leaf(&parked, 0, 0x4000_0000, 0), None);
}

#[test]
fn only_the_first_vcpu_is_runnable_and_its_lines_are_wired() {
    let machine = Machine::new(2, &[]);
    let parked = Parked::create(&machine.partition, FLAT, &VcpuPolicy::default()).unwrap();
    let state = |vcpu| parked.vcpu(vcpu).unwrap().get_mp_state().unwrap().mp_state;
    assert_eq!(
        (state(0), state(1)),
        (KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED)
    );
    let lapic = parked.vcpu(0).unwrap().get_lapic().unwrap();
    // Delivery modes of LINT0 and LINT1: ExtINT and NMI, neither masked.
    assert_eq!((lapic.regs[0x351] as u8 & 7, lapic.regs[0x361] as u8 & 7), (7, 4));
    assert_eq!((lapic.regs[0x352], lapic.regs[0x362]), (0, 0));
}

#[test]
fn the_reset_entry_is_the_processors_own() {
    let machine = Machine::new(1, &[]);
    let parked = Parked::create(&machine.partition, RESET, &VcpuPolicy::default()).unwrap();
    let (regs, sregs) = (
        parked.vcpu(0).unwrap().get_regs(),
        parked.vcpu(0).unwrap().get_sregs(),
    );
    assert_eq!((regs.unwrap().rip, sregs.unwrap().cs.base), (0xfff0, 0xffff_0000));
}

#[test]
fn a_second_set_of_vcpus_is_refused_with_the_remedy() {
    let machine = Machine::new(1, &[]);
    let _first = Parked::create(&machine.partition, RESET, &VcpuPolicy::default()).unwrap();
    let error = Parked::create(&machine.partition, RESET, &VcpuPolicy::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("populate a partition anew"), "{error}");
}

#[test]
fn a_topology_for_another_machine_is_refused_before_any_vcpu_exists() {
    let machine = Machine::new(2, &[]);
    let policy = VcpuPolicy {
        topology: Some(Topology::flat(4)),
        ..Default::default()
    };
    let error = Parked::create(&machine.partition, RESET, &policy).err().unwrap();
    assert!(
        matches!(error, ParkError::Topology { topology: 4, plan: 2 }),
        "{error}"
    );
    assert!(Parked::create(&machine.partition, RESET, &VcpuPolicy::default()).is_ok());
}

#[test]
fn a_real_mode_entry_out_of_reach_names_its_address() {
    let machine = Machine::new(1, &[]);
    let entry = Entry::Real {
        cs_base: GuestAddress(0x20_0000),
        ip: 0,
    };
    let error = Parked::create(&machine.partition, entry, &VcpuPolicy::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("0x200000"), "{error}");
}

#[test]
fn threads_of_a_core_are_told_to_the_guest() {
    let machine = Machine::new(4, &[]);
    let policy = VcpuPolicy {
        topology: Some(Topology::with_threads(4, 2).unwrap()),
        ..Default::default()
    };
    let parked = Parked::create(&machine.partition, FLAT, &policy).unwrap();
    for vcpu in 0..4 {
        if leaf(&parked, vcpu, 0, 0).unwrap()[0] >= 0xb {
            assert_eq!(leaf(&parked, vcpu, 0xb, 0).unwrap(), [1, 2, 0x100, vcpu]);
            assert_eq!(leaf(&parked, vcpu, 0xb, 1).unwrap(), [2, 4, 0x201, vcpu]);
        }
    }
}

#[test]
fn every_vcpu_has_write_back_memory_and_a_fresh_fpu() {
    let machine = Machine::new(2, &[]);
    let parked = Parked::create(&machine.partition, FLAT, &VcpuPolicy::default()).unwrap();
    for vcpu in 0..2 {
        let fd = parked.vcpu(vcpu).unwrap();
        let ask = [0x2ff, 0x1a0].map(|index| kvm_msr_entry {
            index,
            ..Default::default()
        });
        let mut msrs = Msrs::from_entries(&ask).unwrap();
        assert_eq!(fd.get_msrs(&mut msrs).unwrap(), 2);
        let [mtrr, misc] = msrs.as_slice() else {
            panic!("two registers")
        };
        assert_eq!((mtrr.data, misc.data & 1), (0x806, 1));
        assert_eq!(fd.get_fpu().unwrap().fcw, 0x37f);
    }
}

#[test]
fn the_linux_entry_lies_in_guest_memory() {
    let machine = Machine::new(1, &[]);
    let entry = Entry::Linux64 {
        rip: GuestAddress(0x100_0200),
        boot_params: GuestAddress(0x1_0000),
    };
    let parked = Parked::create(&machine.partition, entry, &VcpuPolicy::default()).unwrap();
    let sregs = parked.vcpu(0).unwrap().get_sregs().unwrap();
    let word = |address| {
        let mut word = [0; 8];
        machine
            .partition
            .memory()
            .read(GuestAddress(address), &mut word)
            .unwrap();
        u64::from_le_bytes(word)
    };
    let pdpt = word(sregs.cr3) & !0xfff;
    let last = word((word(pdpt + 3 * 8) & !0xfff) | (511 * 8));
    assert_eq!(last, 0xffe0_0083, "the last 2 MiB below 4 GiB");
    assert_eq!(word(pdpt + 4 * 8), 0);
    assert_eq!(
        word(sregs.gdt.base + u64::from(sregs.cs.selector)) >> 53 & 1,
        1,
        "a 64-bit code segment"
    );
    assert_eq!(parked.vcpu(0).unwrap().get_regs().unwrap().rsi, 0x1_0000);
    assert!(parked.vcpu(1).is_none());
}
