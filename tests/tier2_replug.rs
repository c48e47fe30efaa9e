//! Again and again: a controller leaves a guest that works with it and with another one, is the host's, and comes again. Nothing is left behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::time::Instant;

use support::Vmm;
use support::holdings::{Holdings, settled};
use support::host::{DATA, Pattern};
use support::lent::{Disk, lent, powers_off};
use support::plug::{does, hot, is_there, is_with_the_host, named, slot_of, switched_on};

#[test]
fn unplugs_and_plugs_under_load_leave_nothing_behind() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let other = Disk::of("PELLUCID-BOOT");
    let mut server = lent(&vmm, "a", "128M", &[&hot(), &other.at]);
    let load = named(&mut server, "PELLUCID-BOOT");
    server.types(&format!(
        "(while dd if=/dev/{load}n1 of=/tmp/load bs=64k count=16 && dd if=/tmp/load of=/dev/{load}n1 bs=64k conv=fsync; \
         do echo >>/tmp/rounds; done) 2>/dev/null &\n"
    ));
    server.says("# ");
    let slot = slot_of(&mut server);
    let cycles = cycles();
    let begun = Instant::now();
    let mut first: Option<Holdings> = None;
    for cycle in 0..cycles {
        let name = named(&mut server, "PELLUCID-DATA");
        // It is at work until it is gone.
        server.types(&format!("cat /dev/{name}n1 >/dev/null 2>&1 &\n"));
        server.says("# ");
        match cycle % 5 {
            // By the button, after which Linux gives people five seconds to think again.
            0 if cycle % 25 == 0 => does(&vmm, &["unplug", "a", DATA]),
            // The guest lets go by itself.
            0 | 1 => {
                server.asks(&format!("echo 0 >/sys/bus/pci/slots/{slot}/power"));
                does(&vmm, &["unplug", "a", DATA]);
            }
            _ => does(&vmm, &["unplug", "a", DATA, "--force"]),
        }
        is_with_the_host(&pattern, "unplugged");
        does(&vmm, &["plug", "a", DATA]);
        if cycle % 25 != 0 {
            switched_on(&mut server);
        }
        is_there(&mut server, &pattern);
        println!("{cycle}: {:?}", begun.elapsed());
        let now = settled(server.pid(), first.as_ref());
        assert_eq!(first.get_or_insert(now.clone()), &now, "cycle {cycle}");
    }
    println!("{cycles} cycles in {:?}: {first:?}", begun.elapsed());
    let rounds: u32 = server.asks("wc -l </tmp/rounds").parse().unwrap();
    println!("the guest read and wrote its other disk {rounds} times");
    assert!(rounds > 0);
    powers_off(server);
    pattern.is_back();
    assert!(vmm.claims().is_empty());
}

/// As many as the suite has time for, or as many as `PELLUCID_TEST_CYCLES` says.
fn cycles() -> usize {
    std::env::var("PELLUCID_TEST_CYCLES").map_or(3, |text| text.parse().unwrap())
}
