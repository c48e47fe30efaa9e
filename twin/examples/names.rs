//! What systemd calls the network interfaces of this machine, or of the tree in the first argument, by each of its schemes: a change
//! of name that an upgrade brings is seen before the upgrade. `cargo run -p pellucid-twin --example names [DIR]`

use std::path::Path;

use pellucid_twin::{Scheme, Twin};

fn main() {
    let twin = match std::env::args().nth(1) {
        Some(root) => Twin::capture_at(Path::new(&root)),
        None => Twin::capture(),
    };
    let schemes = [238, 239, 240, 247, 249, 251, 253, 255, 257];
    for (current, nic) in &twin.nics {
        let pci = nic
            .pci
            .map_or_else(|| "not on PCI".to_owned(), |bdf| bdf.to_string());
        println!("{current} {} {pci}", nic.mac);
        let mut last = None;
        for scheme in schemes.into_iter().filter_map(Scheme::of_version) {
            let names = twin.names(scheme).remove(current).unwrap_or_default();
            // Only where the name changes.
            if last.as_ref() != Some(&names.chosen) {
                let name = names.chosen.as_deref().unwrap_or("as the kernel called it");
                println!("    from {scheme}: {name} {}", names.why);
                last = Some(names.chosen);
            }
        }
    }
    for note in &twin.notes {
        eprintln!("{}: {}", note.part, note.what);
    }
}
