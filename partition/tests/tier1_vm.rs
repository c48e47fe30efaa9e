//! The VM on a real KVM: what it refuses by name, and that a slot is the guest's exactly as long as its value lives.
#![allow(clippy::unwrap_used, reason = "a test")]

mod guest;

use std::path::Path;
use std::sync::Arc;

use guest::{CODE, Exit, LOAD, STORE, memory, restart, run, vcpu};
use kvm_ioctls::Cap;
use pellucid_partition::{Access, GuestAddress, Inventory, Slot, Vm, VmError};

const DATA: GuestAddress = GuestAddress(0x2000);

/// A VM with `code` at its place; the slot must be kept.
fn vm(code: &[u8]) -> (Arc<Vm>, Slot) {
    let vm = Arc::new(Vm::create().unwrap());
    let slot = vm
        .map_slot(GuestAddress(CODE), memory(4096, code), Access::ReadWrite)
        .unwrap();
    (vm, slot)
}

fn mapped(host: u64) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.starts_with(&format!("{host:x}-")))
}

#[test]
fn a_missing_device_is_refused_with_the_modules_to_load() {
    let refusal = Vm::create_on(Path::new("/dev/no-such-kvm")).unwrap_err();
    assert!(matches!(refusal, VmError::Open { .. }));
    let text = refusal.to_string();
    assert!(
        text.starts_with("/dev/no-such-kvm: No such file")
            && text.contains("load the kvm_amd or kvm_intel module"),
        "{text}"
    );
}

#[test]
fn what_is_not_kvm_is_refused_by_name() {
    for path in ["/dev/null", "/", "/proc/self/exe", "/dev/zero"] {
        let refusal = Vm::create_on(Path::new(path)).unwrap_err();
        assert!(matches!(refusal, VmError::Open { .. }), "{path}: {refusal:?}");
        let text = refusal.to_string();
        assert!(
            text.starts_with(&format!("{path}: ")) && text.contains("os error"),
            "{text}"
        );
    }
    let text = Vm::create_on(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(text.contains("is this a KVM device?"), "{text}");
}

#[test]
fn a_path_with_a_nul_byte_is_refused_not_cut() {
    assert!(matches!(
        Vm::create_on(Path::new("/dev/kvm\0x")),
        Err(VmError::Open { .. })
    ));
}

#[test]
fn a_vm_has_what_its_guests_need() {
    let vm = Vm::create().unwrap();
    assert!(vm.kvm().check_extension(Cap::Irqchip));
    let pit = vm.fd().get_pit2().unwrap();
    assert_eq!(pit.channels.len(), 3, "the timer is in the kernel");
    assert!(
        vm.fd().create_irq_chip().is_err(),
        "the interrupt controllers are there already"
    );
}

#[test]
fn the_survey_agrees_with_the_vm() {
    let facts = Inventory::survey().unwrap().kvm.unwrap();
    let vm = Vm::create().unwrap();
    assert_eq!(facts.max_slots, vm.kvm().get_nr_memslots());
    assert_eq!(facts.max_vcpus, vm.kvm().get_max_vcpus());
    assert!(facts.max_vcpus > 0 && facts.max_slots > 0);
}

#[test]
fn the_guest_reads_what_a_slot_shows() {
    let (vm, _code) = vm(&LOAD);
    let _data = vm
        .map_slot(DATA, memory(4096, &[0x5a]), Access::ReadWrite)
        .unwrap();
    assert_eq!(run(&mut vcpu(&vm)), Exit::Out(0x10, 0x5a));
}

#[test]
fn a_dropped_slot_is_taken_away_from_the_guest_and_unmapped() {
    let (vm, _code) = vm(&LOAD);
    let data = memory(4096, &[0x5a]);
    let host = data.host().0;
    let slot = vm.map_slot(DATA, data, Access::ReadWrite).unwrap();
    let mut vcpu = vcpu(&vm);
    assert_eq!(run(&mut vcpu), Exit::Out(0x10, 0x5a));
    assert!(mapped(host), "the slot alone keeps the mapping");
    drop(slot);
    assert!(!mapped(host));
    restart(&vcpu);
    assert_eq!(run(&mut vcpu), Exit::Load(0x2000));
}

#[test]
fn where_a_slot_was_dropped_another_can_be_shown() {
    let (vm, _code) = vm(&LOAD);
    let mut vcpu = vcpu(&vm);
    let both = [memory(4096, &[0x5a]), memory(4096, &[0x33])];
    for (page, byte) in both.iter().zip([0x5a, 0x33]) {
        let _slot = vm.map_slot(DATA, Arc::clone(page), Access::ReadWrite).unwrap();
        restart(&vcpu);
        assert_eq!(run(&mut vcpu), Exit::Out(0x10, byte));
    }
}

#[test]
fn the_guest_writes_through_a_slot() {
    let (vm, _code) = vm(&STORE);
    let data = memory(4096, &[0]);
    let _slot = vm.map_slot(DATA, Arc::clone(&data), Access::ReadWrite).unwrap();
    assert_eq!(run(&mut vcpu(&vm)), Exit::Out(0x10, 0x77));
    let mut seen = [0];
    assert!(data.read(0, &mut seen));
    assert_eq!(seen, [0x77]);
}

#[test]
fn a_write_to_a_read_only_slot_comes_out_and_changes_nothing() {
    let (vm, _code) = vm(&STORE);
    let data = memory(4096, &[0x11]);
    let _slot = vm.map_slot(DATA, Arc::clone(&data), Access::ReadOnly).unwrap();
    assert_eq!(run(&mut vcpu(&vm)), Exit::Store(0x2000, 0x77));
    let mut seen = [0];
    assert!(data.read(0, &mut seen));
    assert_eq!(seen, [0x11]);
}

#[test]
fn an_overlap_is_refused_with_its_address_and_leaves_the_first_in_place() {
    let (vm, _code) = vm(&LOAD);
    let first = vm
        .map_slot(DATA, memory(8192, &[0x5a]), Access::ReadWrite)
        .unwrap();
    let refusal = vm
        .map_slot(GuestAddress(0x3000), memory(4096, &[]), Access::ReadWrite)
        .map(drop)
        .unwrap_err();
    assert!(matches!(
        refusal,
        VmError::Slot {
            guest: 0x3000,
            size: 4096,
            ..
        }
    ));
    let text = refusal.to_string();
    assert!(text.contains("0x3000") && text.contains("File exists"), "{text}");
    assert_eq!(first.guest(), DATA);
    assert_eq!(run(&mut vcpu(&vm)), Exit::Out(0x10, 0x5a));
}

#[test]
fn memory_at_an_odd_address_is_refused() {
    let (vm, _code) = vm(&LOAD);
    let refusal = vm
        .map_slot(GuestAddress(0x2001), memory(4096, &[]), Access::ReadWrite)
        .map(drop);
    assert!(
        refusal
            .unwrap_err()
            .to_string()
            .contains("KVM refused memory at 0x2001, 0x1000 bytes")
    );
}

#[test]
fn numbers_of_dropped_and_refused_slots_come_back() {
    let (vm, _code) = vm(&LOAD);
    let held = || {
        format!("{vm:?}")
            .split("slots: ")
            .nth(1)
            .and_then(|rest| rest[..1].parse::<u32>().ok())
    };
    assert_eq!(held(), Some(1), "{vm:?}");
    let page = memory(4096, &[]);
    for _ in 0..3 {
        let slot = vm.map_slot(DATA, Arc::clone(&page), Access::ReadWrite).unwrap();
        assert_eq!(held(), Some(2));
        assert!(vm.map_slot(DATA, Arc::clone(&page), Access::ReadWrite).is_err());
        assert_eq!(held(), Some(2));
        drop(slot);
        assert_eq!(held(), Some(1));
    }
}

#[test]
fn a_slot_keeps_its_vm_alive() {
    let (vm, code) = vm(&LOAD);
    let weak = Arc::downgrade(&vm);
    drop(vm);
    assert!(weak.upgrade().is_some());
    drop(code);
    assert!(weak.upgrade().is_none());
}
