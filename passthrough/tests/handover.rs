//! Handing functions over on a host of files: what hangs, what others do meanwhile, what comes back besides the driver.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::fs;
use std::time::{Duration, Instant};

use fixture::kernel::Kernel;
use fixture::{Card, Host, NVME, PORT};
use pellucid_partition::{HealOutcome, Healer, StateDir};
use pellucid_passthrough::{Admitted, Claimant, PciHealer, TakeError};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const SECOND: Card = Card {
    bdf: "0000:02:00.0",
    group: Some(10),
    ..NVME
};

fn state(host: &Host) -> StateDir {
    StateDir::at(&host.root().join("state")).unwrap()
}

fn admit(host: &Host, card: &Card) -> Admitted {
    host.survey().admit(card.bdf.parse().unwrap()).unwrap()
}

fn driver(host: &Host, card: &Card) -> Option<String> {
    let host = host.survey();
    let function = host.function(card.bdf.parse().unwrap()).unwrap();
    function.driver.bound.clone()
}

fn attribute(card: &Card, name: &str) -> String {
    format!("{}/{name}", Host::place(card))
}

/// Has the driver of a card hang when it is asked to let go. Whoever opens the pipe to read ends the hang.
fn hanging(host: &Host, driver: &str) -> std::path::PathBuf {
    let unbind = host.root().join(format!("sys/bus/pci/drivers/{driver}/unbind"));
    fs::remove_file(&unbind).unwrap();
    mknodat(CWD, &unbind, FileType::Fifo, Mode::RWXU, 0).unwrap();
    unbind
}

#[test]
fn a_driver_that_hangs_is_broken_off_and_nothing_is_lost() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    hanging(&host, "nvme");
    let state = state(&host);
    let begun = Instant::now();
    let claimant = Claimant::new(&state, "db1").at(host.root());
    let refusal = claimant
        .patient_for(Duration::from_millis(300))
        .claim(admit(&host, &NVME))
        .unwrap_err();
    let TakeError::Stuck { driver: name, .. } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!(name, "nvme");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "and does not wait twice"
    );
    assert_eq!(driver(&host, &NVME).as_deref(), Some("nvme"));
    assert_eq!(host.read(&attribute(&NVME, "driver_override")).trim(), "");
    assert!(state.records().unwrap().is_empty(), "given back as it was");
}

#[test]
fn of_several_functions_all_are_taken_or_none() {
    let host = Host::with(&[
        PORT,
        NVME,
        Card {
            driver: Some("other"),
            ..SECOND
        },
    ]);
    let _kernel = Kernel::start(&host);
    hanging(&host, "other");
    let state = state(&host);
    let claimant = Claimant::new(&state, "db1")
        .at(host.root())
        .patient_for(Duration::from_millis(300));
    let both = || vec![admit(&host, &NVME), admit(&host, &SECOND)];
    assert!(claimant.claim_all(both()).is_err());
    assert_eq!(driver(&host, &NVME).as_deref(), Some("nvme"));
    assert_eq!(driver(&host, &SECOND).as_deref(), Some("other"));
    assert!(state.records().unwrap().is_empty());

    fs::remove_file(host.root().join("sys/bus/pci/drivers/other/unbind")).unwrap();
    host.driver("other");
    let claimed = claimant.claim_all(both()).unwrap();
    for card in [&NVME, &SECOND] {
        assert_eq!(driver(&host, card).as_deref(), Some("vfio-pci"));
    }
    drop(claimed);
    assert_eq!(driver(&host, &NVME).as_deref(), Some("nvme"));
    assert_eq!(driver(&host, &SECOND).as_deref(), Some("other"));
}

#[test]
fn a_function_that_another_holds_keeps_all_others_untouched() {
    let host = Host::with(&[PORT, NVME, SECOND]);
    let _kernel = Kernel::start(&host);
    let state = state(&host);
    let claimant = |name| Claimant::new(&state, name).at(host.root());
    let _held = claimant("db1").claim(admit(&host, &SECOND)).unwrap();
    let both = vec![admit(&host, &NVME), admit(&host, &SECOND)];
    let refusal = claimant("db2").claim_all(both).unwrap_err().to_string();
    assert!(refusal.contains("db1"), "{refusal}");
    assert_eq!(driver(&host, &NVME).as_deref(), Some("nvme"));
    assert_eq!(
        host.read(&attribute(&NVME, "driver_override")),
        "(null)\n",
        "not even for a moment"
    );
}

#[test]
fn power_settings_and_reset_methods_come_back_with_the_driver() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    host.write(&attribute(&NVME, "power/control"), "on\n");
    host.write(&attribute(&NVME, "d3cold_allowed"), "0\n");
    let state = state(&host);
    let claimed = Claimant::new(&state, "db1")
        .at(host.root())
        .claim(admit(&host, &NVME))
        .unwrap();
    assert_eq!(host.read(&attribute(&NVME, "power/control")).trim(), "auto");
    host.write(&attribute(&NVME, "reset_method"), "pm\n");
    claimed.release().unwrap();
    for (name, value) in [
        ("power/control", "on"),
        ("d3cold_allowed", "0"),
        ("reset_method", "flr bus"),
    ] {
        assert_eq!(host.read(&attribute(&NVME, name)).trim(), value, "{name}");
    }
}

#[test]
fn interrupts_return_to_the_cpus_that_they_had_where_the_kernel_lets_them() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let interrupts = |numbers: &[u32], cpus: &str| {
        let _ = fs::remove_dir_all(host.root().join(attribute(&NVME, "msi_irqs")));
        for number in numbers {
            host.write(&attribute(&NVME, &format!("msi_irqs/{number}")), "msix\n");
            host.write(&format!("proc/irq/{number}/smp_affinity_list"), cpus);
        }
    };
    interrupts(&[24, 101], "3\n");
    host.write("proc/irq/101/smp_affinity_list", "1-2\n");
    let state = state(&host);
    let claimed = Claimant::new(&state, "db1")
        .at(host.root())
        .claim(admit(&host, &NVME))
        .unwrap();
    // The driver gets other numbers, and the kernel places them anew.
    interrupts(&[30, 31, 32], "0-7\n");
    claimed.release().unwrap();
    let of = |number: u32| host.read(&format!("proc/irq/{number}/smp_affinity_list"));
    assert_eq!(
        [of(30), of(31), of(32)].map(|text| text.trim().to_owned()),
        ["3", "1-2", "0-7"]
    );
}

#[test]
fn interrupts_that_a_driver_requests_after_it_is_bound_are_waited_for() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let msi = host.root().join(attribute(&NVME, "msi_irqs"));
    let interrupt = |number: u32, cpus: &str| {
        host.write(&format!("proc/irq/{number}/smp_affinity_list"), cpus);
        host.write(&attribute(&NVME, &format!("msi_irqs/{number}")), "msix\n");
    };
    let state = state(&host);
    interrupt(24, "3\n");
    let claimed = Claimant::new(&state, "db1")
        .at(host.root())
        .claim(admit(&host, &NVME))
        .unwrap();
    fs::remove_dir_all(&msi).unwrap();
    std::thread::scope(|scope| {
        let release = scope.spawn(|| claimed.release().unwrap());
        while driver(&host, &NVME).as_deref() != Some("nvme") {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(!release.is_finished());
        interrupt(30, "0-7\n");
    });
    assert_eq!(host.read("proc/irq/30/smp_affinity_list").trim(), "3");
}

#[test]
fn what_others_did_meanwhile_is_theirs() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let state = state(&host);
    let claimed = Claimant::new(&state, "db1")
        .at(host.root())
        .claim(admit(&host, &NVME))
        .unwrap();
    host.driver("uio_pci_generic");
    let seat = host.root().join(attribute(&NVME, "driver"));
    fs::remove_file(&seat).unwrap();
    std::os::unix::fs::symlink(host.root().join("sys/bus/pci/drivers/uio_pci_generic"), seat).unwrap();
    host.write(&attribute(&NVME, "driver_override"), "uio_pci_generic\n");
    claimed.release().unwrap();
    assert_eq!(driver(&host, &NVME).as_deref(), Some("uio_pci_generic"));
    assert_eq!(
        host.read(&attribute(&NVME, "driver_override")).trim(),
        "uio_pci_generic"
    );
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn a_function_with_virtual_functions_in_use_is_not_taken_from_under_them() {
    let host = Host::with(&[PORT, NVME, SECOND]);
    let _kernel = Kernel::start(&host);
    let second = host.root().join(Host::place(&SECOND));
    // Somebody has made and taken it since the function was admitted.
    let admitted = admit(&host, &NVME);
    host.link(&attribute(&NVME, "virtfn0"), &second);
    let state = state(&host);
    let claimant = Claimant::new(&state, "db1").at(host.root());
    let refusal = claimant.claim(admitted).unwrap_err();
    let TakeError::VirtualFunctions { functions, .. } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!(functions[0].to_string(), SECOND.bdf);
    assert!(state.records().unwrap().is_empty());
    fs::remove_file(second.join("driver")).unwrap();
    claimant.claim(admit(&host, &NVME)).unwrap().release().unwrap();
}

#[test]
fn virtual_functions_that_went_with_the_driver_are_made_again() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    host.write(&attribute(&NVME, "sriov_numvfs"), "4\n");
    let state = state(&host);
    let claimed = Claimant::new(&state, "db1")
        .at(host.root())
        .claim(admit(&host, &NVME))
        .unwrap();
    host.write(&attribute(&NVME, "sriov_numvfs"), "0\n");
    claimed.release().unwrap();
    assert_eq!(host.read(&attribute(&NVME, "sriov_numvfs")), "4");
}

#[test]
fn a_healer_waits_no_longer_for_a_driver_than_a_claim_does() {
    let host = Host::with(&[
        PORT,
        Card {
            driver: Some("vfio-pci"),
            ..NVME
        },
    ]);
    let kernel = Kernel::start(&host);
    host.driver("nvme");
    let pipe = hanging(&host, "vfio-pci");
    let record = serde_json::json!({ "original": { "bound": "nvme", "only": null }, "quarantined": null });
    let healer = PciHealer::at(host.root()).patient_for(Duration::from_millis(300));
    let refusal = healer.undo(NVME.bdf, &record).unwrap_err().to_string();
    assert!(
        refusal.contains("vfio-pci") && refusal.contains("`vmm heal`"),
        "{refusal}"
    );
    fs::remove_file(pipe).unwrap();
    host.driver("vfio-pci");
    healer.undo(NVME.bdf, &record).unwrap();
    assert_eq!(driver(&host, &NVME).as_deref(), Some("nvme"));
    drop(kernel);
}

#[test]
fn while_a_child_is_at_a_driver_nobody_else_heals_the_function() {
    let host = Host::with(&[PORT, NVME]);
    hanging(&host, "nvme");
    let state = state(&host);
    let admitted = admit(&host, &NVME);
    std::thread::scope(|scope| {
        let claimant = Claimant::new(&state, "db1").at(host.root());
        let claim = scope.spawn(move || {
            claimant
                .patient_for(Duration::from_secs(2))
                .claim(admitted)
                .map(drop)
        });
        while !host.read(&attribute(&NVME, "driver_override")).contains("vfio") {
            std::thread::yield_now();
        }
        let report = state.heal(&[&PciHealer::at(host.root())], false).unwrap();
        assert!(matches!(report[0].outcome, HealOutcome::InUse), "{report:?}");
        assert!(claim.join().unwrap().is_err());
    });
}
