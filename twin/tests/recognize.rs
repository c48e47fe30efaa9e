//! Which device here is which of a captured machine.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod fixture;

use std::collections::BTreeMap;

use fixture::Machine;
use pellucid_partition::Bdf;
use pellucid_twin::Twin;

const NVME: &str = "0000:01:00.0";
const CARD: &str = "0000:00:19.0";
const PORTS: [&str; 2] = ["0000:02:00.0", "0000:02:00.1"];

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn server() -> Twin {
    Machine::server().capture()
}

/// What `captured` has, by its address in `here`.
fn recognized(captured: &Twin, here: &Twin) -> BTreeMap<String, String> {
    let pairs = captured.recognize(here).into_iter();
    pairs
        .map(|(here, there)| (here.to_string(), there.to_string()))
        .collect()
}

/// The server with its devices at other addresses.
fn moved(moves: &[(&str, &str)]) -> Twin {
    let (mut here, server) = (server(), server());
    for (from, _) in moves {
        here.pci.functions.remove(&bdf(from));
    }
    for (from, to) in moves {
        here.pci
            .functions
            .insert(bdf(to), server.pci.functions[&bdf(from)].clone());
        let stays = |pci: Option<Bdf>| pci == Some(bdf(from));
        for (name, nic) in &server.nics {
            if stays(nic.pci) {
                here.nics.get_mut(name).unwrap().pci = Some(bdf(to));
            }
        }
        for (name, disk) in &server.disks {
            if stays(disk.pci) {
                here.disks.get_mut(name).unwrap().pci = Some(bdf(to));
            }
        }
    }
    here
}

fn same(at: &[&str]) -> BTreeMap<String, String> {
    at.iter().map(|at| ((*at).to_owned(), (*at).to_owned())).collect()
}

#[test]
fn a_machine_is_recognized_as_itself_without_its_bridges() {
    let pairs = recognized(&server(), &server());
    assert_eq!(pairs, same(&[NVME, CARD, PORTS[0], PORTS[1]]));
}

#[test]
fn devices_are_known_by_their_numbers_wherever_they_are() {
    let here = moved(&[(NVME, "0000:07:00.0"), (PORTS[0], PORTS[1]), (PORTS[1], PORTS[0])]);
    let pairs = recognized(&server(), &here);
    assert_eq!(pairs["0000:07:00.0"], NVME);
    assert_eq!(
        (pairs[PORTS[0]].as_str(), pairs[PORTS[1]].as_str()),
        (PORTS[1], PORTS[0])
    );
}

#[test]
fn a_random_address_is_no_number_and_another_number_is_another_device() {
    let mut here = server();
    for nic in here.nics.values_mut() {
        nic.mac = format!("{}f", &nic.mac[..16]);
    }
    assert_eq!(recognized(&server(), &here), same(&[NVME]), "other cards");
    for nic in here.nics.values_mut() {
        nic.mac_origin = Some(1);
    }
    let all = same(&[NVME, CARD, PORTS[0], PORTS[1]]);
    assert_eq!(recognized(&server(), &here), all, "by their ids and places");
    here.disks.get_mut("nvme0n1").unwrap().serial = Some("OTHER".to_owned());
    assert_eq!(recognized(&server(), &here), same(&[CARD, PORTS[0], PORTS[1]]));
}

#[test]
fn a_number_that_two_have_tells_nothing() {
    let mut here = moved(&[(PORTS[0], "0000:03:00.0"), (PORTS[1], "0000:04:00.0")]);
    for nic in here.nics.values_mut() {
        nic.mac = "52:54:00:00:02:00".to_owned();
    }
    let pairs = recognized(&server(), &here);
    assert!(
        !pairs.values().any(|there| PORTS.contains(&there.as_str())),
        "{pairs:?}"
    );
}

#[test]
fn a_device_that_no_driver_shows_is_taken_for_the_one_that_was_there() {
    let mut captured = server();
    for function in captured.pci.functions.values_mut() {
        function.driver = Some("own".to_owned());
    }
    let mut here = captured.clone();
    here.nics.remove("eno1");
    let other = here.nics.remove("ens2f0").unwrap();
    here.nics.insert("eno1".to_owned(), other);
    here.disks.clear();
    for at in [NVME, CARD] {
        here.pci.functions.get_mut(&bdf(at)).unwrap().driver = Some("vfio-pci".to_owned());
    }
    let pairs = captured.recognize(&here);
    let (shown, assumed) = here.shown_as(&captured, &pairs);
    assert_eq!(assumed, [bdf(CARD), bdf(NVME)]);
    assert_eq!(shown.disks["nvme0n1"], captured.disks["nvme0n1"]);
    let taken = &shown.nics[&format!("eno1 of {CARD}")];
    assert_eq!(
        (&taken.mac, taken.pci),
        (&captured.nics["eno1"].mac, Some(bdf(CARD)))
    );
    assert_eq!(shown.notes.len(), here.notes.len() + 2);
    // Its own driver shows it, and it has nothing.
    here.pci.functions.get_mut(&bdf(CARD)).unwrap().driver = Some("own".to_owned());
    assert_eq!(here.shown_as(&captured, &pairs).1, [bdf(NVME)]);
}
