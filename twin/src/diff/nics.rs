//! Network interfaces and their names: those that they have, and those that systemd will give.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::{Class, Joined, Pairs};
use crate::naming::{Names, Scheme};
use crate::network::Nic;
use crate::twin::Twin;

/// A network interface on both machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// Its hardware address, or what it was called where it has none.
    pub nic: String,
    /// Before; None: it was not there.
    pub before: Option<Side>,
    /// After; None: it is not there.
    pub after: Option<Side>,
}

/// A network interface on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// What it is called in the capture.
    pub current: String,
    /// What systemd calls it.
    pub names: Names,
}

impl Side {
    /// The name that systemd gives, or the one that it has.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.chosen.as_deref().unwrap_or(&self.current)
    }
}

pub(super) fn compare(
    findings: &mut Findings,
    (before, after): (&Twin, &Twin),
    (pairs, scheme): (&Pairs, Scheme),
) -> Vec<NameRow> {
    findings.part("nics");
    let joined = join(before, after, pairs);
    let (owns, theirs) = (before.names(scheme), after.names(scheme));
    let side = |names: &BTreeMap<String, Names>, current: &str| {
        Some(Side {
            current: current.to_owned(),
            names: names.get(current)?.clone(),
        })
    };
    let mut rows = Vec::new();
    for (name, nic) in &before.nics {
        let now = joined
            .after(name.as_str())
            .and_then(|now| Some((now, after.nics.get(now)?)));
        let row = NameRow {
            nic: title(name, nic),
            before: side(&owns, name),
            after: now.and_then(|(now, _)| side(&theirs, now)),
        };
        judge(findings, &row);
        if let Some((_, now)) = now {
            hardware(findings, name, (nic, now));
        }
        rows.push(row);
    }
    for (name, nic) in after
        .nics
        .iter()
        .filter(|(name, _)| joined.before(name.as_str()).is_none())
    {
        let row = NameRow {
            nic: title(name, nic),
            before: None,
            after: side(&theirs, name),
        };
        judge(findings, &row);
        rows.push(row);
    }
    rows
}

fn title(name: &str, nic: &Nic) -> String {
    if nic.mac.is_empty() {
        name.to_owned()
    } else {
        nic.mac.clone()
    }
}

fn judge(findings: &mut Findings, row: &NameRow) {
    match (&row.before, &row.after) {
        (Some(before), Some(after)) => {
            let reason = |side: &Side| {
                if side.names.why.is_empty() {
                    "kept as the kernel called it".to_owned()
                } else {
                    side.names.why.clone()
                }
            };
            let names = (Some(before.name().to_owned()), Some(after.name().to_owned()));
            let why = format!(
                "what is configured for the old name does not apply, so the network stays down; was: {}; now: {}",
                reason(before),
                reason(after)
            );
            findings.value(&format!("{}: name", row.nic), names, (Class::ChangesName, &why));
        }
        (Some(before), None) => {
            let why = "what is configured for it waits for it in vain, up to the time limit of the boot";
            let names = (Some(before.name().to_owned()), None);
            findings.value(
                &format!("{}: interface", row.nic),
                names,
                (Class::ChangesName, why),
            );
        }
        (None, Some(after)) => {
            let why = "nothing is configured for it, unless a pattern fits";
            let names = (None, Some(after.name().to_owned()));
            findings.value(&format!("{}: interface", row.nic), names, (Class::Cosmetic, why));
        }
        (None, None) => {}
    }
}

fn hardware(findings: &mut Findings, name: &str, (before, after): (&Nic, &Nic)) {
    findings.value(
        &format!("{name}: hardware address"),
        (Some(&before.mac), Some(&after.mac)),
        (
            Class::LicenceRisk,
            "licences, DHCP reservations and switch ports are bound to it",
        ),
    );
    let driver = (before.driver.as_deref(), after.driver.as_deref());
    findings.value(
        &format!("{name}: driver"),
        driver,
        (Class::Cosmetic, "offloads and statistics may differ"),
    );
}

/// By name and address, then by address where it is unique, then by function and port.
fn join<'t>(before: &'t Twin, after: &'t Twin, pairs: &Pairs) -> Joined<&'t str> {
    let mut joined = Joined::new();
    for (name, nic) in &before.nics {
        if after.nics.get(name).is_some_and(|now| now.mac == nic.mac) {
            joined.join(name.as_str(), name.as_str());
        }
    }
    type Key = fn(&Nic, Option<pellucid_partition::Bdf>) -> Option<String>;
    let by_mac: Key = |nic, _| (!nic.mac.is_empty()).then(|| nic.mac.clone());
    let by_port: Key = |nic, at| Some(format!("{} {} {:?}", at?, nic.dev_port, nic.port_name));
    for key in [by_mac, by_port] {
        let owns = before.nics.iter().filter_map(|(name, nic)| {
            let at = nic.pci.and_then(|own| pairs.after(own));
            Some((name.as_str(), key(nic, at)?))
        });
        let theirs = after.nics.iter();
        let theirs = theirs.filter_map(|(name, nic)| Some((name.as_str(), key(nic, nic.pci)?)));
        joined.unique(owns, theirs);
    }
    joined
}
