//! Virtual functions of a real card: addresses and VLANs set by the host and unreachable for the guest, tokens, and their end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::fs;
use std::process::Command;

use pellucid_partition::Bdf;
use pellucid_passthrough::{
    Admitted, BindError, Claimant, Inventory, IoSpace, RegionIndex, ResetAct, VfSettings, VfToken, Wanted,
};
use scene::{bdf, driver_of, state};

fn physical() -> Bdf {
    let host = Inventory::survey().unwrap();
    let igb = |function: &&pellucid_passthrough::Function| function.driver.bound.as_deref() == Some("igb");
    host.functions.values().find(igb).unwrap().bdf
}

/// By force: a card that was brought up may have the default route.
fn admitted(device: Bdf) -> Admitted {
    let wanted = [Wanted::new(device).by_force()];
    let mut admitted = Inventory::survey().unwrap().admit_together(&wanted).unwrap();
    admitted.remove(0)
}

fn attribute(device: Bdf, name: &str) -> String {
    let path = format!("/sys/bus/pci/devices/{device}/{name}");
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What `ip` says of the card, its virtual functions included.
fn ip_link(device: Bdf) -> String {
    let net = fs::read_dir(format!("/sys/bus/pci/devices/{device}/net")).unwrap();
    let name = net.flatten().next().unwrap().file_name();
    let output = Command::new("ip")
        .args(["link", "show", "dev"])
        .arg(name)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_servers_have_one_virtual_function_each_as_the_host_set_them_up() {
    let (_directory, state) = state();
    let physical = physical();
    let one = Claimant::new(&state, "one");
    let made = one.virtual_functions(physical, 2).unwrap();
    for function in made.functions() {
        assert_eq!(driver_of(&function.to_string()), None, "no host driver takes it");
    }
    let before = ip_link(physical);
    let lend = |name, index: usize, mac: &str, vlan: u16| {
        let admitted = Inventory::survey()
            .unwrap()
            .admit(made.functions()[index])
            .unwrap();
        let mut claimed = Claimant::new(&state, name).claim(admitted).unwrap();
        let settings = VfSettings {
            mac: Some(mac.parse().unwrap()),
            vlan: Some(vlan.try_into().unwrap()),
        };
        claimed.configure(&settings).unwrap();
        claimed.bind(&IoSpace::open().unwrap()).unwrap()
    };
    let first = lend("one", 0, "52:54:00:0a:00:01", 7);
    let second = lend("two", 1, "52:54:00:0a:00:02", 0);
    let link = ip_link(physical);
    assert!(
        link.contains("52:54:00:0a:00:01") && link.contains("vlan 7"),
        "{link}"
    );
    assert!(link.contains("52:54:00:0a:00:02"), "{link}");
    for bound in [&first, &second] {
        let mut ids = [0; 4];
        bound.transport().read(RegionIndex::Config, 0, &mut ids).unwrap();
        assert_eq!(ids, [0x86, 0x80, 0xca, 0x10], "a virtual function of an 82576");
        let report = bound.admission().unwrap();
        assert_eq!(report.reset_by().unwrap().act, ResetAct::Function, "{report}");
    }
    let released = first.release().unwrap();
    assert!(released.reset.is_well() && released.is_back, "{}", released.reset);
    assert!(!made.release().unwrap(), "the other server has one");
    assert_eq!(attribute(physical, "sriov_numvfs"), "2");
    let shared = Claimant::new(&state, "two")
        .virtual_functions(physical, 2)
        .unwrap();
    second.release().unwrap();
    assert_eq!(ip_link(physical), before, "addresses and VLANs are as they were");
    assert!(shared.release().unwrap());
    assert_eq!(attribute(physical, "sriov_numvfs"), "0");
    assert_eq!(attribute(physical, "sriov_drivers_autoprobe"), "1");
    assert!(state.records().unwrap().is_empty());
    assert_eq!(driver_of(&physical.to_string()).as_deref(), Some("igb"));
}

#[test]
fn where_vfio_drives_the_card_only_its_token_opens_a_virtual_function() {
    let (_directory, state) = state();
    let physical = physical();
    fs::write("/sys/module/vfio_pci/parameters/enable_sriov", "Y").unwrap();
    let token = VfToken::random().unwrap();
    let claimant = Claimant::new(&state, "db1");
    let claim = |device| claimant.claim(admitted(device)).unwrap();
    let card = claim(physical)
        .with_token(token)
        .bind(&IoSpace::open().unwrap())
        .unwrap();
    let made = claimant.virtual_functions(physical, 1).unwrap();
    let function = made.functions()[0];
    for wrong in [None, Some(VfToken::random().unwrap())] {
        let claimed = claim(function);
        let claimed = match wrong {
            Some(token) => claimed.with_token(token),
            None => claimed,
        };
        let Err(BindError::Open { source, .. }) = claimed.bind(&IoSpace::open().unwrap()) else {
            panic!("opened without the token")
        };
        assert_eq!(source.raw_os_error(), Some(libc::EACCES), "{source}");
    }
    let bound = claim(function)
        .with_token(token)
        .bind(&IoSpace::open().unwrap())
        .unwrap();
    bound.release().unwrap();
    // vfio-pci marks new virtual functions as its own, so one of them is on it still.
    fs::write("/sys/bus/pci/drivers/vfio-pci/unbind", function.to_string()).unwrap_or_default();
    assert!(made.release().unwrap());
    card.release().unwrap();
    assert_eq!(driver_of(&physical.to_string()).as_deref(), Some("igb"));
}

#[test]
fn a_card_whose_virtual_functions_are_lent_is_not_taken_from_under_them() {
    let (_directory, state) = state();
    let physical = physical();
    let claimant = Claimant::new(&state, "db1");
    // Surveyed before it had any; an admission from now on would be refused.
    let card = admitted(physical);
    let made = claimant.virtual_functions(physical, 1).unwrap();
    let function = made.functions()[0];
    let used = claimant.claim(admitted(function)).unwrap();
    let refusal = claimant.claim(card).unwrap_err().to_string();
    assert!(refusal.contains(&function.to_string()), "{refusal}");
    used.release().unwrap();
    assert!(made.release().unwrap());
    assert_eq!(bdf(&physical.to_string()), physical);
}
