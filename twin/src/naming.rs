//! What systemd will call each network interface (udev's net_id builtin and the default policy `keep kernel database onboard slot
//! path`). Pure: computed from a twin, so also for a machine that does not exist yet.

mod scheme;
mod slots;

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::network::Nic;
use crate::pci::{Pci, PciFunction};
use crate::twin::Twin;
use scheme::SlotOfBridge;
use slots::Slots;

pub use scheme::{Scheme, SchemeError};

/// The names that systemd knows for one interface, and which it gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Names {
    /// By its number on the board: `eno1`.
    pub onboard: Option<String>,
    /// The board's label for it: it is not a name by default.
    pub label: Option<String>,
    /// By its slot: `ens2`.
    pub slot: Option<String>,
    /// By its address: `enp0s25`.
    pub path: Option<String>,
    /// By its hardware address: `enx525400123456`. By default only USB interfaces are called so.
    pub mac: Option<String>,
    /// The name that the default policy gives; None: it keeps what the kernel called it, which may change from boot to boot.
    pub chosen: Option<String>,
    /// Why it is that name, or none.
    pub why: String,
}

impl Twin {
    /// The naming scheme of the system that made the capture: of its kernel's command line, else of its version of systemd.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        let asked = self
            .origin
            .naming_scheme
            .as_deref()
            .and_then(|text| text.parse().ok());
        let own = self.origin.systemd.and_then(Scheme::of_version);
        asked.or(own).unwrap_or(Scheme::V252)
    }

    /// What systemd calls each interface, by the name that it has in the capture.
    #[must_use]
    pub fn names(&self, scheme: Scheme) -> BTreeMap<String, Names> {
        let mut names: BTreeMap<String, Names> = BTreeMap::new();
        let slots = Slots::of(&self.pci);
        for (name, nic) in &self.nics {
            names.insert(name.clone(), self.names_of(nic, (scheme, &slots)));
        }
        self.settle(&mut names);
        names
    }

    fn names_of(&self, nic: &Nic, (scheme, slots): (Scheme, &Slots<'_>)) -> Names {
        let nothing = |why: &str| Names {
            why: why.to_owned(),
            ..Names::default()
        };
        if nic.stacked {
            return nothing("it is built on another interface");
        }
        let Some(prefix) = prefix(nic, scheme) else {
            return nothing("interfaces of its kind are not named");
        };
        let mac = mac_name(nic, prefix);
        let Some((own, function)) = nic.pci.and_then(|bdf| Some((bdf, self.pci.functions.get(&bdf)?))) else {
            return Names {
                mac,
                ..nothing("it is not on a PCI function")
            };
        };
        let physical = function.virtual_of.filter(|_| scheme.virtual_suffix());
        let physical = physical.and_then(|of| Some((of, self.pci.functions.get(&of.physical)?)));
        let (bdf, function, suffix) = match physical {
            Some((of, physical)) => (of.physical, physical, format!("v{}", of.index)),
            None => (own, function, String::new()),
        };
        let named = Named {
            pci: &self.pci,
            slots,
            bdf,
            function,
            scheme,
        };
        let ending = format!("{}{suffix}", port(nic, prefix == "ib", scheme));
        // An InfiniBand port number is in the names by slot and path only.
        let onboard_ending = format!("{}{suffix}", port(nic, false, scheme));
        Names {
            onboard: named
                .index()
                .map(|index| format!("{prefix}o{index}{onboard_ending}")),
            label: function.place.label.clone(),
            slot: named
                .slot()
                .map(|slot| format!("{prefix}{slot}{}{ending}", named.number())),
            path: Some(format!("{prefix}{}{}{ending}", named.path(), named.number())),
            mac,
            chosen: None,
            why: String::new(),
        }
    }

    /// The policy: the first that is short enough for the kernel and not taken.
    fn settle(&self, names: &mut BTreeMap<String, Names>) {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for (current, names) in names {
            let Some(nic) = self.nics.get(current) else {
                continue;
            };
            if self.origin.kernel_names {
                names.why = "net.ifnames=0 leaves all names to the kernel".to_owned();
                continue;
            }
            // The kernel itself says that this name is for good.
            if nic.name_origin == Some(NET_NAME_PREDICTABLE) {
                names.chosen = Some(current.clone());
                names.why = "its driver gives it this name for good".to_owned();
                continue;
            }
            let candidates = [
                (&names.onboard, "its number on the board"),
                (&names.slot, "its slot"),
                (&names.path, "its address"),
            ];
            let fits = |name: &&String| name.len() <= LONGEST_NAME && is_name(name);
            let choice = candidates
                .into_iter()
                .find_map(|(name, why)| Some((name.as_ref().filter(fits)?.clone(), why)));
            let Some((name, why)) = choice else { continue };
            match taken.get(&name) {
                Some(other) => {
                    names.why = format!(
                        "{name} by {why}, but {other} is called so too: who comes second keeps its kernel's name"
                    );
                }
                None => {
                    names.why = format!("by {why}");
                    taken.insert(name.clone(), current.clone());
                    names.chosen = Some(name);
                }
            }
        }
    }
}

/// The function that an interface is named after.
struct Named<'t> {
    pci: &'t Pci,
    slots: &'t Slots<'t>,
    bdf: Bdf,
    function: &'t PciFunction,
    scheme: Scheme,
}

impl Named<'_> {
    /// Its number on the board: ACPI's, else that of SMBIOS type 41.
    fn index(&self) -> Option<u32> {
        let index = self.function.place.onboard()?;
        let believed =
            index <= self.scheme.highest_index() && (index > 0 || self.scheme.infiniband_and_index_zero());
        believed.then_some(index)
    }

    fn path(&self) -> String {
        format!("{}p{}s{}", self.domain(), self.bdf.bus(), self.bdf.device())
    }

    fn domain(&self) -> String {
        match self.bdf.domain() {
            0 => String::new(),
            domain => format!("P{domain}"),
        }
    }

    /// `f` and the function's number, where that tells functions apart.
    fn number(&self) -> String {
        let mut number = u32::from(self.bdf.function());
        if self.function.ari && self.scheme.virtual_suffix() {
            number += u32::from(self.bdf.device()) * 8;
        }
        if number > 0 || self.pci.is_multifunction(self.bdf) {
            format!("f{number}")
        } else {
            String::new()
        }
    }

    /// `s` and the number of the innermost slot that it or something above it is in.
    fn slot(&self) -> Option<String> {
        if let Some(own) = self.function.sun.filter(|_| self.scheme.own_slot_number()) {
            return Some(format!("{}s{own}", self.domain()));
        }
        let above = self.function.upstream.iter().rev().take(MOST_DEPTH);
        for bdf in std::iter::once(&self.bdf).chain(above) {
            let Some(number) = self.slots.at(*bdf) else {
                continue;
            };
            let is_bridge = self
                .pci
                .functions
                .get(bdf)
                .is_some_and(|function| function.ids.class >> 8 & 0xff == 0x04);
            let used = match self.scheme.slot_of_bridge() {
                _ if !is_bridge => true,
                SlotOfBridge::Used => true,
                SlotOfBridge::UsedByMultifunction => self.pci.is_multifunction(self.bdf),
                SlotOfBridge::Ends => false,
            };
            return used.then(|| format!("{}s{number}", self.domain()));
        }
        None
    }
}

fn prefix(nic: &Nic, scheme: Scheme) -> Option<&'static str> {
    match (nic.kind, nic.devtype.as_deref()) {
        (ETHERNET, Some("wlan")) => Some("wl"),
        (ETHERNET, Some("wwan")) => Some("ww"),
        (ETHERNET, _) => Some("en"),
        (INFINIBAND, _) => scheme.infiniband_and_index_zero().then_some("ib"),
        (SLIP, _) => Some("sl"),
        _ => None,
    }
}

/// The port on the card: its name, else its number.
fn port(nic: &Nic, by_device_id: bool, scheme: Scheme) -> String {
    let number = match nic.dev_port {
        0 if by_device_id => nic.dev_id,
        number => number,
    };
    match &nic.port_name {
        Some(name) => match representor(name).filter(|_| scheme.representors()) {
            Some(number) => format!("r{number}"),
            None => format!("n{name}"),
        },
        None if number > 0 => format!("d{number}"),
        None => String::new(),
    }
}

/// The 3 of `pf0vf3`.
fn representor(port_name: &str) -> Option<u32> {
    let (physical, number) = port_name.strip_prefix("pf")?.split_once("vf")?;
    let plain = !physical.is_empty() && physical.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| number.parse().ok())?
}

fn mac_name(nic: &Nic, prefix: &str) -> Option<String> {
    let digits: String = nic.mac.split(':').filter(|part| part.len() == 2).collect();
    let plain = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (plain && nic.mac_origin == Some(0) && prefix != "ib")
        .then(|| format!("{prefix}x{}", digits.to_lowercase()))
}

/// What the kernel takes as a name, and udev too: no path, no control characters, not a number.
fn is_name(name: &str) -> bool {
    let letters = name
        .bytes()
        .all(|byte| (b'!'..=b'~').contains(&byte) && !matches!(byte, b'/' | b':' | b'%'));
    letters && !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit())
}

/// IFNAMSIZ without the zero.
const LONGEST_NAME: usize = 15;
const NET_NAME_PREDICTABLE: u32 = 2;
// ARPHRD_* of linux/if_arp.h
const ETHERNET: u32 = 1;
const INFINIBAND: u32 = 32;
const SLIP: u32 = 256;
/// Deeper trees do not exist: there are 256 buses.
const MOST_DEPTH: usize = 256;
