//! Masking in every order, against a model: whatever a guest does to its MSI-X table, to the two masks and to the enable bit, and to
//! which CPU a vector goes, a signal of the device reaches the right CPU once it may, and none is lost.
#![allow(clippy::unwrap_used, reason = "a test")]

mod sham;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;
use pellucid_partition::{ConfigHandler, Gsi, LastHit};
use pellucid_passthrough::{BarKind, BarShape, Endpoint, Guest, IrqKind, RegionIndex, Transport};
use proptest::prelude::*;
use sham::{Sham, guest, view};

const BAR: BarShape = BarShape {
    index: 0,
    kind: BarKind::Memory32 { prefetchable: false },
    size: 0x4000,
    address: 0xc010_0000,
};
const TABLE: u64 = BAR.address + 0x2000;
const PENDING: u64 = BAR.address + 0x3000;
const VECTORS: usize = 4;

/// A guest with two CPUs that only take interrupts, and a function of four vectors.
struct Scene {
    sham: Arc<Sham>,
    endpoint: Endpoint,
    guest: Guest,
    cpus: Vec<VcpuFd>,
}

impl Scene {
    fn new(sham: Sham, line: Option<Gsi>) -> Scene {
        let (guest, windows) = guest();
        let cpus = (0..2).map(|number| cpu(&guest, number)).collect();
        let sham = Arc::new(
            sham.region(RegionIndex::Bar(0), BAR.size, true)
                .bytes(0x72, &[3, 0]),
        );
        let transport = Arc::clone(&sham) as Arc<dyn Transport>;
        let mut view = view(&windows, &[BAR]);
        view.line = line.map(|gsi| guest.interrupts.resample_line(gsi).unwrap());
        let endpoint = Endpoint::wire("0000:01:00.0".parse().unwrap(), &transport, &guest, view).unwrap();
        endpoint.write(0x04, &[2, 0]);
        Scene {
            sham,
            endpoint,
            guest,
            cpus,
        }
    }

    fn poke(&self, address: u64, value: u32) {
        assert!(
            self.guest
                .mmio
                .write(&mut LastHit::new(), address, &value.to_le_bytes())
        );
    }

    fn pending(&self) -> u8 {
        let mut data = [0; 8];
        self.guest.mmio.read(&mut LastHit::new(), PENDING, &mut data);
        data[0]
    }

    /// The vectors that wait in each CPU's local APIC, which forgets them.
    fn taken(&self) -> BTreeSet<(u8, u8)> {
        let mut taken = BTreeSet::new();
        for (number, cpu) in self.cpus.iter().enumerate() {
            let mut lapic = cpu.get_lapic().unwrap();
            for vector in 0..=255_u8 {
                let at = 0x200 + usize::from(vector / 32) * 0x10 + usize::from(vector % 32 / 8);
                if lapic.regs[at] as u8 >> (vector % 8) & 1 != 0 {
                    taken.insert((number as u8, vector));
                }
            }
            (0..8).for_each(|word| lapic.regs[0x200 + word * 0x10..][..4].fill(0));
            cpu.set_lapic(&lapic).unwrap();
        }
        taken
    }

    /// Waits until these have come; KVM may deliver from a thread of its own.
    fn expect(&self, wanted: &BTreeSet<(u8, u8)>) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut taken = self.taken();
        while !taken.is_superset(wanted) {
            assert!(Instant::now() < end, "{taken:?} came, of {wanted:?}");
            taken.extend(self.taken());
        }
        assert_eq!(&taken, wanted, "nothing else came");
    }
}

/// A CPU whose local APIC is enabled, as an operating system does; it never runs.
fn cpu(guest: &Guest, number: u64) -> VcpuFd {
    let cpu = guest.vm.fd().create_vcpu(number).unwrap();
    let mut lapic = cpu.get_lapic().unwrap();
    (lapic.regs[0xf0], lapic.regs[0xf1]) = (-1, 1);
    cpu.set_lapic(&lapic).unwrap();
    cpu
}

#[derive(Debug, Clone)]
enum Act {
    Switch { on: bool, masked: bool },
    Mask(usize, bool),
    Data(usize, u8),
    Cpu(usize, u8),
    Signal(usize),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let vector = 0..VECTORS;
    prop_oneof![
        2 => any::<(bool, bool)>().prop_map(|(off, masked)| Act::Switch { on: !off || masked, masked }),
        4 => (vector.clone(), any::<bool>()).prop_map(|(vector, masked)| Act::Mask(vector, masked)),
        2 => (vector.clone(), 0x30u8..0x40).prop_map(|(vector, data)| Act::Data(vector, data)),
        2 => (vector.clone(), 0u8..2).prop_map(|(vector, cpu)| Act::Cpu(vector, cpu)),
        6 => vector.prop_map(Act::Signal),
        1 => Just(Act::Reset),
    ]
}

/// What PCI 3.0, 6.8.2 makes of the same.
#[derive(Clone, Copy)]
struct Entry {
    masked: bool,
    cpu: u8,
    data: u8,
    pending: bool,
}

struct Model {
    on: bool,
    masked: bool,
    entries: [Entry; VECTORS],
}

impl Model {
    fn new(scene: &Scene) -> Model {
        let model = Model {
            on: false,
            masked: false,
            entries: [Entry {
                masked: true,
                cpu: 0,
                data: 0x30,
                pending: false,
            }; VECTORS],
        };
        (0..VECTORS).for_each(|vector| model.write(scene, vector));
        model
    }

    /// Writes what a model's entry says into the table, the mask last.
    fn write(&self, scene: &Scene, vector: usize) {
        let (entry, at) = (self.entries[vector], TABLE + vector as u64 * 16);
        scene.poke(at, 0xfee0_0000 | u32::from(entry.cpu) << 12);
        scene.poke(at + 8, entry.data.into());
        scene.poke(at + 12, entry.masked.into());
    }

    fn act(&mut self, scene: &Scene, act: &Act) {
        match *act {
            Act::Switch { on, masked } => {
                (self.on, self.masked) = (on, masked);
                scene
                    .endpoint
                    .write(0x72, &[0, u8::from(on) << 7 | u8::from(masked) << 6]);
                if !on {
                    self.entries.iter_mut().for_each(|entry| entry.pending = false);
                }
            }
            Act::Mask(vector, masked) => {
                self.entries[vector].masked = masked;
                scene.poke(TABLE + vector as u64 * 16 + 12, masked.into());
            }
            Act::Data(vector, data) => {
                self.entries[vector].data = data;
                scene.poke(TABLE + vector as u64 * 16 + 8, data.into());
            }
            Act::Cpu(vector, cpu) => {
                self.entries[vector].cpu = cpu;
                scene.poke(TABLE + vector as u64 * 16, 0xfee0_0000 | u32::from(cpu) << 12);
            }
            Act::Signal(vector) => {
                scene.sham.signal(IrqKind::Msix, vector);
                self.entries[vector].pending |= self.on;
            }
            Act::Reset => {
                scene.endpoint.write(0x88, &[0, 0x80]);
                scene.endpoint.write(0x10, &(BAR.address as u32).to_le_bytes());
                scene.endpoint.write(0x04, &[2, 0]);
                *self = Model::new(scene);
            }
        }
    }

    /// The messages that go out now.
    fn deliver(&mut self) -> BTreeSet<(u8, u8)> {
        let (on, masked) = (self.on, self.masked);
        let live = |entry: &&mut Entry| on && !masked && !entry.masked && entry.pending;
        let due = self.entries.iter_mut().filter(live);
        due.map(|entry| {
            entry.pending = false;
            (entry.cpu, entry.data)
        })
        .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_signal_reaches_its_cpu_when_it_may_and_none_is_lost(acts in proptest::collection::vec(act(), 1..60)) {
        let scene = Scene::new(Sham::new().growing(), None);
        let mut model = Model::new(&scene);
        for act in &acts {
            model.act(&scene, act);
            scene.expect(&model.deliver());
            for (vector, entry) in model.entries.iter().enumerate() {
                // What was never unmasked waits in the device's own pending bits, which the sham keeps elsewhere.
                let ours = scene.sham.connected(IrqKind::Msix).is_some_and(|all| all.contains(&vector));
                let seen = scene.pending() >> vector & 1 != 0;
                prop_assert_eq!(seen, entry.pending && ours, "vector {} after {:?}", vector, act);
            }
            prop_assert!(scene.endpoint.vectors_in_use() <= VECTORS);
        }
    }

    #[test]
    fn the_device_signals_by_one_kind_at_a_time_in_whatever_order_a_guest_switches(
        acts in proptest::collection::vec((0u8..2, any::<bool>()), 1..40),
    ) {
        let scene = Scene::new(Sham::new(), Some(Gsi(10)));
        let (mut msix, mut msi) = (false, false);
        for (kind, on) in acts {
            if kind == 0 {
                msix = on;
                scene.endpoint.write(0x72, &[0, u8::from(on) << 7]);
            } else {
                msi = on;
                scene.endpoint.write(0x52, &[u8::from(on), 0]);
            }
            let connected = |kind| scene.sham.connected(kind).is_some();
            prop_assert_eq!(connected(IrqKind::Msix), msix);
            prop_assert_eq!(connected(IrqKind::Msi), msi && !msix, "MSI comes back when MSI-X goes");
            prop_assert_eq!(connected(IrqKind::Intx), !msi && !msix);
        }
    }
}

#[test]
fn each_msi_vector_counts_up_from_the_message_and_is_masked_by_its_bit() {
    let scene = Scene::new(Sham::new(), None);
    scene.endpoint.write(0x54, &0xfee0_1000_u32.to_le_bytes());
    scene.endpoint.write(0x5c, &[0x48, 0]);
    scene.endpoint.write(0x60, &0b0100_u32.to_le_bytes());
    scene.endpoint.write(0x52, &[0x21, 0]);
    for vector in 0..4 {
        scene.sham.signal(IrqKind::Msi, vector);
    }
    scene.expect(&BTreeSet::from([(1, 0x48), (1, 0x49), (1, 0x4b)]));
    scene.endpoint.write(0x60, &0_u32.to_le_bytes());
    scene.expect(&BTreeSet::from([(1, 0x4a)]));
}

#[test]
fn a_host_that_runs_out_of_vectors_keeps_those_that_work() {
    let scene = Scene::new(Sham::new(), None);
    scene.sham.vectors.store(2, std::sync::atomic::Ordering::Relaxed);
    let mut model = Model::new(&scene);
    model.act(
        &scene,
        &Act::Switch {
            on: true,
            masked: false,
        },
    );
    for vector in 0..VECTORS {
        model.entries[vector].data = 0x30 + vector as u8;
        model.entries[vector].masked = false;
        model.write(&scene, vector);
    }
    assert_eq!(scene.sham.connected(IrqKind::Msix), Some(vec![0, 1]));
    // Once each for having been taken down and put back.
    scene.expect(&BTreeSet::from([(0, 0x30), (0, 0x31)]));
    scene.sham.signal(IrqKind::Msix, 1);
    scene.expect(&BTreeSet::from([(0, 0x31)]));
}
