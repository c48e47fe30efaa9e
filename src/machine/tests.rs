//! A captured machine is made again on a host that has its devices elsewhere, or is refused with reasons.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

#[path = "../../twin/tests/fixture/mod.rs"]
mod fixture;
mod odd;
mod places;

use pellucid_partition::{Inventory as HostInventory, PartitionSpec, Plan};
use pellucid_passthrough::Inventory;
use pellucid_twin::{Bytes, Class, Disk, Nic, Thread, Twin};

use super::*;
use crate::error::TopologyError;
use crate::offer::Offer;
use crate::spec::DeviceSource;
use crate::topology::{RootBuses, Topology};
use places::{Place, places, plain, tables};

/// The server of the twin's tests, whose devices can be lent: NVMe at 01:00.0, a network card at 00:19.0.
struct Host {
    _tree: fixture::Machine,
    pci: Inventory,
    twin: Twin,
    plan: Plan,
}

const NVME: &str = "0000:01:00.0";
const CARD: &str = "0000:00:19.0";

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

impl Host {
    fn new() -> Host {
        let tree = fixture::Machine::server();
        tree.write("proc/self/mountinfo", "");
        tree.write("sys/bus/pci/drivers/vfio-pci/new_id", "");
        tree.write("dev/vfio/vfio", "");
        for (group, at) in [NVME, CARD].into_iter().enumerate() {
            let (folder, device) = (
                format!("sys/kernel/iommu_groups/{group}"),
                format!("sys/bus/pci/devices/{at}"),
            );
            tree.link(&format!("{folder}/devices/{at}"), &device);
            tree.link(&format!("{device}/iommu_group"), &folder);
        }
        let spec = PartitionSpec::new("db1", 2, 512 << 20).unwrap();
        Host {
            pci: Inventory::survey_at(tree.root()).unwrap(),
            twin: tree.capture(),
            plan: Plan::fit(&HostInventory::survey_at(tree.root()).unwrap(), &spec).unwrap(),
            _tree: tree,
        }
    }

    /// A capture in which the two devices of this host are where these bridges lead; the card is number 3 of the board.
    fn elsewhere(&self, place: &Place) -> Twin {
        let mut twin = Twin::empty();
        let function = |host: &str| self.twin.pci.functions[&bdf(host)].clone();
        let port = function("0000:00:02.0");
        for (index, (at, secondary, subordinate)) in place.bridges.iter().enumerate() {
            let mut port = port.clone();
            port.upstream = place.bridges[..index].iter().map(|(at, ..)| bdf(at)).collect();
            port.bridge = Some(Bridge {
                secondary: *secondary,
                subordinate: *subordinate,
                express: None,
            });
            twin.pci.functions.insert(bdf(at), port);
        }
        let (mut nvme, mut card) = (function(NVME), function(CARD));
        nvme.upstream.clear();
        nvme.carries = pellucid_twin::Carries::Root;
        card.place.index = place.index;
        let behind = if bdf(place.card).bus() == 0 {
            &mut nvme
        } else {
            &mut card
        };
        behind.upstream = place.bridges.iter().map(|(at, ..)| bdf(at)).collect();
        behind.place.slot = place.slot.map(|slot| slot.to_string());
        if let (Some(slot), Some((_, bus, _))) = (place.slot, place.bridges.last()) {
            let address = format!("0000:{bus:02x}:00");
            twin.pci.slots.insert(slot.to_string(), address);
        }
        let (nvme_at, card_at) = (bdf(place.nvme), bdf(place.card));
        twin.pci.functions.extend([(nvme_at, nvme), (card_at, card)]);
        let disk = &self.twin.disks["nvme0n1"];
        let disk = Disk {
            pci: Some(nvme_at),
            ..disk.clone()
        };
        let nic = Nic {
            pci: Some(card_at),
            ..self.twin.nics["eno1"].clone()
        };
        twin.disks.insert("nvme0n1".to_owned(), disk);
        twin.nics.insert("eno3".to_owned(), nic);
        let [entry, table] = tables(place.index.map(|index| (index, card_at)));
        (twin.smbios.entry_point, twin.smbios.table) = (Some(Bytes(entry)), Some(Bytes(table)));
        twin.smbios
            .ids
            .insert("product_serial".to_owned(), "P1".to_owned());
        twin.origin.systemd = Some(252);
        twin.cpus.threads = (0..2).map(thread).collect();
        twin
    }

    /// The server that has `devices` and is to be `captured`: its addresses, and what is said of it.
    fn judged(&self, captured: Twin, devices: &[&str]) -> Result<Outcome, TopologyError> {
        let machine = Machine::new(captured, &self.twin);
        let devices: Vec<DeviceSpec> = devices
            .iter()
            .map(|at| DeviceSpec::new(DeviceSource::Host(bdf(at))))
            .collect();
        let lent: Vec<Bdf> = devices.iter().filter_map(DeviceSpec::host).collect();
        let mut refusals = Vec::new();
        let offers = Offer::all(&machine.placed(&devices), &self.pci, &mut refusals);
        assert!(refusals.is_empty(), "{refusals:?}");
        let topology = Topology::of(&offers, &self.pci, Some(&machine), RootBuses::Own)?;
        let policy = SmbiosPolicy::Host;
        let tables = policy.tables(&self.plan, (&topology, &offers), Some(&machine));
        let tables = tables.map(Result::unwrap);
        let places = lent.iter().copied().zip(topology.places().iter().copied());
        let share = crate::predicted::share(&self.plan, &topology, places.collect(), tables.as_ref());
        let mut guest = machine.host().as_guest(&share);
        guest.origin = machine.captured().origin.clone();
        guest.smbios.ids = machine.captured().smbios.ids.clone();
        let (refusals, judged) = machine.judge((Some(&guest), policy), &lent);
        Ok(Outcome {
            places: topology.places().to_vec(),
            refusals: refusals.iter().map(ToString::to_string).collect(),
            warnings: judged.warnings.iter().map(ToString::to_string).collect(),
            diff: judged.diff.unwrap(),
        })
    }
}

struct Outcome {
    places: Vec<Bdf>,
    refusals: Vec<String>,
    warnings: Vec<String>,
    diff: Diff,
}

fn thread(id: usize) -> Thread {
    Thread {
        id,
        package: 0,
        core: id as i32,
        node: 0,
    }
}

#[test]
fn a_machine_is_made_again_wherever_its_devices_are_here() {
    let host = Host::new();
    let mut names = std::collections::BTreeSet::new();
    for place in places() {
        let outcome = host.judged(host.elsewhere(&place), &[CARD, NVME]).unwrap();
        assert_eq!(outcome.places, [bdf(place.card), bdf(place.nvme)]);
        assert!(outcome.refusals.is_empty(), "{:?}", outcome.refusals);
        assert!(outcome.diff.worst() <= Class::LicenceRisk);
        let [name] = outcome.diff.names.as_slice() else {
            panic!("one interface: {:?}", outcome.diff.names)
        };
        let [before, after] = [&name.before, &name.after].map(|side| side.as_ref().unwrap().name());
        assert_eq!(before, after);
        names.insert(after.to_owned());
        let serial = |difference: &Difference| difference.subject == "product_serial";
        assert!(!outcome.diff.differences.iter().any(serial));
    }
    for name in ["eno3", "eno4", "ens7", "enp128s0", "enp4s0", "enp0s31f6"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

#[test]
fn what_is_not_lent_is_refused_with_the_way_to_have_it() {
    let host = Host::new();
    let outcome = host.judged(host.elsewhere(&plain()), &[NVME]).unwrap();
    assert_eq!(outcome.refusals.len(), 1, "{:?}", outcome.refusals);
    for part in [
        "changes a name",
        "eno3 -> not there",
        "--device 0000:00:19.0",
        "--twin-allow changes-name",
    ] {
        assert!(outcome.refusals[0].contains(part), "{:?}", outcome.refusals);
    }
    let outcome = host.judged(host.elsewhere(&plain()), &[CARD]).unwrap();
    let lend = |refusal: &String| {
        refusal.contains("breaks boot") && refusal.contains("lend it with --device 0000:01:00.0")
    };
    assert!(outcome.refusals.iter().any(lend), "{:?}", outcome.refusals);
}

#[test]
fn another_specimen_at_the_address_is_not_the_device() {
    let host = Host::new();
    let mut place = plain();
    (place.bridges, place.nvme) = (vec![("0000:00:02.0", 1, 1)], NVME);
    let mut captured = host.elsewhere(&place);
    captured.disks.get_mut("nvme0n1").unwrap().serial = Some("ANOTHER".to_owned());
    let outcome = host.judged(captured, &[CARD, NVME]).unwrap();
    let other = |refusal: &String| refusal.contains("PELLUCID-BOOT") || refusal.contains("ANOTHER");
    assert!(outcome.refusals.iter().any(other), "{:?}", outcome.refusals);
}

#[test]
fn the_class_that_is_allowed_is_warned_of_and_no_worse_one() {
    let host = Host::new();
    let mut captured = host.elsewhere(&plain());
    captured.cpus.name = "Another CPU".to_owned();
    let outcome = host.judged(captured.clone(), &[CARD, NVME]).unwrap();
    let told = |line: &String| line.contains("licence risk: cpus name: Another CPU");
    assert!(outcome.warnings.iter().any(told), "{:?}", outcome.warnings);
    assert!(outcome.refusals.is_empty(), "{:?}", outcome.refusals);
    let guest = Twin::empty();
    let refused = |class| {
        let machine = Machine::new(captured.clone(), &host.twin).allowing(class);
        let (refusals, judged) = machine.judge((Some(&guest), SmbiosPolicy::Host), &[]);
        (refusals.len(), judged.warnings.len())
    };
    let counts = Class::ALL.map(refused);
    assert_eq!(counts[0].0, 0, "everything may differ");
    assert!(
        counts.is_sorted_by(|more, less| more.0 < less.0 || more == less),
        "{counts:?}"
    );
    assert!(counts[4].0 > counts[2].0, "{counts:?}");
}

#[test]
fn a_capture_without_tables_is_refused_unless_none_are_wanted() {
    let host = Host::new();
    let mut captured = host.elsewhere(&plain());
    captured.smbios.table = None;
    let machine = Machine::new(captured, &host.twin);
    let refused = |policy| machine.judge((None, policy), &[]).0.len();
    assert_eq!(refused(SmbiosPolicy::Host), 1);
    assert_eq!(refused(SmbiosPolicy::None), 0);
}
