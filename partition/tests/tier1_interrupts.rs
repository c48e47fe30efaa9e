//! Interrupt wiring on a real KVM: what is signalled arrives at the local APIC of a vCPU that never ran, once and as routed.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, kvm_ioapic_state, kvm_ioapic_state__bindgen_ty_1, kvm_irqchip,
    kvm_irqchip__bindgen_ty_1,
};
use kvm_ioctls::VcpuFd;
use pellucid_partition::{Gsi, InterruptError, Interrupts, MsiMessage, Vm};

/// A VM with one vCPU whose local APIC is enabled.
struct Board {
    vm: Arc<Vm>,
    vcpu: VcpuFd,
    interrupts: Arc<Interrupts>,
}

impl Board {
    fn new() -> Self {
        let vm = Arc::new(Vm::create().unwrap());
        let vcpu = vm.fd().create_vcpu(0).unwrap();
        let board = Self {
            interrupts: Arc::new(Interrupts::new(Arc::clone(&vm))),
            vm,
            vcpu,
        };
        board.clear();
        board
    }

    /// Forgets every request and enables the local APIC (bit 8 of the spurious-interrupt vector register).
    fn clear(&self) {
        let mut lapic = self.vcpu.get_lapic().unwrap();
        lapic.regs[0x200..0x280].fill(0);
        (lapic.regs[0xf0], lapic.regs[0xf1]) = (0xffu8 as _, 1);
        self.vcpu.set_lapic(&lapic).unwrap();
    }

    /// Lets pins of the I/O APIC stand for a vector and its flags (bit 15: level-triggered).
    fn wire_pins(&self, pins: &[(usize, u64)]) {
        let mut ioapic = kvm_ioapic_state {
            base_address: 0xfec0_0000,
            ..Default::default()
        };
        for entry in &mut ioapic.redirtbl {
            *entry = kvm_ioapic_state__bindgen_ty_1 { bits: 1 << 16 };
        }
        for &(pin, bits) in pins {
            ioapic.redirtbl[pin] = kvm_ioapic_state__bindgen_ty_1 { bits };
        }
        let chip = kvm_irqchip__bindgen_ty_1 { ioapic };
        self.vm
            .fd()
            .set_irqchip(&kvm_irqchip {
                chip_id: KVM_IRQCHIP_IOAPIC,
                chip,
                ..Default::default()
            })
            .unwrap();
    }

    /// The vectors requested now (the interrupt request register).
    fn requested(&self) -> Vec<u8> {
        let lapic = self.vcpu.get_lapic().unwrap();
        let is_set = |vector: &u8| {
            let at = 0x200 + usize::from(vector / 32) * 0x10 + usize::from(vector % 32 / 8);
            lapic.regs[at] as u8 >> (vector % 8) & 1 == 1
        };
        (0..=255).filter(is_set).collect()
    }

    /// Waits for exactly these requests; KVM delivers from a work queue.
    fn expect(&self, vectors: &[u8]) {
        let patience = Instant::now() + Duration::from_secs(5);
        while self.requested() != vectors && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.requested(), vectors);
    }

    fn expect_nothing(&self) {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(self.requested(), [0u8; 0]);
    }
}

/// To the first local APIC, as this vector.
fn message(vector: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data: vector,
    }
}

#[test]
fn a_routed_vector_arrives_as_its_message_says() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    assert!(vector.gsi() >= Gsi(24));
    vector.route(message(0x41)).unwrap();
    board.expect_nothing();
    vector.eventfd().write(1).unwrap();
    board.expect(&[0x41]);
    assert!(!vector.pending(), "what was delivered is not pending");
}

#[test]
fn a_vector_is_masked_until_it_is_routed_and_loses_no_signal() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    assert!(!vector.pending());
    vector.eventfd().write(1).unwrap();
    board.expect_nothing();
    assert!(
        vector.pending() && vector.pending(),
        "asking does not take the signal"
    );
    vector.route(message(0x42)).unwrap();
    board.expect(&[0x42]);
    assert!(!vector.pending());
}

#[test]
fn a_signal_while_masked_is_delivered_on_the_next_route_as_that_says() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    for target in [0x61, 0x62, 0x41] {
        vector.route(message(target)).unwrap();
        vector.eventfd().write(1).unwrap();
        board.expect(&[target as u8]);
        board.clear();
    }
    vector.mask().unwrap();
    vector.mask().unwrap();
    vector.eventfd().write(1).unwrap();
    board.expect_nothing();
    assert!(vector.pending());
    vector.route(message(0x52)).unwrap();
    board.expect(&[0x52]);
}

#[test]
fn masking_and_routing_again_connects_again_with_the_same_message() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    for _ in 0..3 {
        vector.route(message(0x43)).unwrap();
        vector.eventfd().write(1).unwrap();
        board.expect(&[0x43]);
        vector.mask().unwrap();
        board.clear();
    }
}

#[test]
fn routing_one_vector_leaves_the_others_as_they_were() {
    let board = Board::new();
    let vectors: Vec<_> = (0..8).map(|_| board.interrupts.msi().unwrap()).collect();
    for (n, vector) in vectors.iter().enumerate() {
        vector.route(message(0x70 + n as u32)).unwrap();
    }
    for (n, vector) in vectors.iter().enumerate() {
        vector.eventfd().write(1).unwrap();
        board.expect(&[0x70 + n as u8]);
        board.clear();
    }
}

#[test]
fn a_dropped_vectors_number_is_used_again_and_its_old_signal_goes_nowhere() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    let (gsi, event) = (vector.gsi(), vector.eventfd().try_clone().unwrap());
    vector.route(message(0x41)).unwrap();
    drop(vector);
    let next = board.interrupts.msi().unwrap();
    assert_eq!(next.gsi(), gsi);
    event.write(1).unwrap();
    board.expect_nothing();
    next.route(message(0x41)).unwrap();
    next.eventfd().write(1).unwrap();
    board.expect(&[0x41]);
}

#[test]
fn a_message_that_kvm_does_not_take_is_refused_and_not_remembered() {
    let board = Board::new();
    let vector = board.interrupts.msi().unwrap();
    let vm = &board.vm;
    vector.route(message(0x41)).unwrap();
    // Bits 7:0 of the upper half are reserved where KVM was told of 32-bit APIC ids, and ignored elsewhere.
    let odd = MsiMessage {
        address: 0x1_fee0_0000,
        data: 0x55,
    };
    let x2apic = kvm_bindings::kvm_enable_cap {
        cap: 129,
        args: [1, 0, 0, 0],
        ..Default::default()
    };
    vm.fd().enable_cap(&x2apic).unwrap();
    for _ in 0..2 {
        let refusal = vector.route(odd).unwrap_err();
        assert!(
            matches!(refusal, InterruptError::Route { .. }),
            "the second time too: {refusal}"
        );
    }
    vector.eventfd().write(1).unwrap();
    board.expect(&[0x41]);
}

#[test]
fn an_edge_line_raises_its_pin_each_time() {
    let board = Board::new();
    board.wire_pins(&[(4, 0x64)]);
    let line = board.interrupts.line(Gsi(4)).unwrap();
    for _ in 0..3 {
        line.trigger();
        board.expect(&[0x64]);
        board.clear();
    }
    line.eventfd().write(1).unwrap();
    board.expect(&[0x64]);
}

#[test]
fn lines_still_work_after_messages_were_routed() {
    let board = Board::new();
    board.wire_pins(&[(4, 0x64), (23, 0x65)]);
    let (low, high) = (
        board.interrupts.line(Gsi(4)).unwrap(),
        board.interrupts.line(Gsi(23)).unwrap(),
    );
    board.interrupts.msi().unwrap().route(message(0x41)).unwrap();
    low.trigger();
    high.trigger();
    board.expect(&[0x64, 0x65]);
}

#[test]
fn a_message_that_is_sent_arrives_without_a_route_and_one_for_nobody_is_lost() {
    let board = Board::new();
    let message = |destination: u64| MsiMessage {
        address: 0xfee0_0000 | destination << 12,
        data: 0x55,
    };
    board.interrupts.send(message(0)).unwrap();
    board.expect(&[0x55]);
    board.clear();
    board.interrupts.send(message(9)).unwrap();
    board.expect_nothing();
}

#[test]
fn a_level_line_requests_while_it_is_up() {
    let board = Board::new();
    let level = 1 << 15;
    board.wire_pins(&[(9, 0x69 | level)]);
    let line = board.interrupts.level_line(Gsi(9));
    line.assert_level(true);
    board.expect(&[0x69]);
    board.clear();
    board.wire_pins(&[(9, 0x69 | level)]);
    line.assert_level(false);
    board.expect_nothing();
    line.assert_level(true);
    board.expect(&[0x69]);
}

#[test]
fn a_resampled_line_raises_its_pin_and_is_not_acknowledged_by_itself() {
    let board = Board::new();
    board.wire_pins(&[(11, 0x6b | 1 << 15)]);
    let line = board.interrupts.resample_line(Gsi(11)).unwrap();
    line.eventfd().write(1).unwrap();
    board.expect(&[0x6b]);
    assert!(
        line.resample_eventfd().read().is_err(),
        "the guest has acknowledged nothing"
    );
}

#[test]
fn a_dropped_line_is_disconnected() {
    let board = Board::new();
    board.wire_pins(&[(4, 0x64)]);
    let line = board.interrupts.line(Gsi(4)).unwrap();
    let event = line.eventfd().try_clone().unwrap();
    drop(line);
    event.write(1).unwrap();
    board.expect_nothing();
    let again = board.interrupts.line(Gsi(4)).unwrap();
    again.trigger();
    board.expect(&[0x64]);
}

#[test]
fn a_line_that_is_no_pin_is_refused_with_those_that_are() {
    let board = Board::new();
    for refusal in [
        board.interrupts.line(Gsi(24)).map(drop),
        board.interrupts.resample_line(Gsi(24)).map(drop),
    ] {
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "GSI 24 is not a line; lines are the I/O APIC's pins 0 to 23"
        );
    }
}
