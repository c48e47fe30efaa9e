//! From a function's network interfaces up through bonds, bridges, teams and VLANs to the default route.
//!
//! Of the main routing table and this process's network namespace; interfaces that were moved into another are not seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Use, members};
use crate::error::SurveyError;
use crate::inventory::attribute::{link, list, names};

/// The default routes of a host, and its interfaces.
pub(super) struct Routes {
    class: PathBuf,
    /// Interfaces that a default route names.
    outlets: BTreeSet<String>,
    interfaces: Vec<(String, PathBuf)>,
}

impl Routes {
    pub(super) fn read(root: &Path) -> Result<Routes, SurveyError> {
        let class = root.join("sys/class/net");
        let four = list(&root.join("proc/net/route"))?;
        let six = list(&root.join("proc/net/ipv6_route"))?;
        let outlets = four
            .lines()
            .filter_map(outlet_four)
            .chain(six.lines().filter_map(outlet_six))
            .map(str::to_owned)
            .collect();
        Ok(Routes {
            interfaces: members(&class).collect(),
            class,
            outlets,
        })
    }

    /// Adds the default routes through interfaces below a function's directory.
    pub(super) fn of(&self, function: &Path, uses: &mut BTreeSet<Use>) {
        for (interface, place) in &self.interfaces {
            if !place.starts_with(function) {
                continue;
            }
            let through = self
                .above(interface)
                .into_iter()
                .filter(|name| self.outlets.contains(name));
            uses.extend(through.map(|through| Use::DefaultRoute {
                interface: interface.clone(),
                through,
            }));
        }
    }

    /// An interface and everything that is built on it.
    fn above(&self, interface: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![interface.to_owned()];
        while let Some(name) = open.pop() {
            let directory = self.class.join(&name);
            let uppers = names(&directory)
                .into_iter()
                .filter_map(|entry| entry.strip_prefix("upper_").map(str::to_owned));
            let bridge = link(&directory.join("brport"), "bridge");
            let master = link(&directory, "master");
            // An Open vSwitch keeps to itself which of its bridges a port belongs to.
            let switched = master.as_deref() == Some(OPEN_VSWITCH);
            let above: Vec<String> = uppers.chain(bridge).chain(master).collect();
            if found.insert(name) {
                open.extend(above);
                open.extend(switched.then(|| self.without_lower()).into_iter().flatten());
            }
        }
        found
    }

    /// Virtual interfaces that say of nobody that they are built on it.
    fn without_lower(&self) -> Vec<String> {
        let alone = |(name, place): &&(String, PathBuf)| {
            let entries = names(&self.class.join(name));
            place.components().any(|part| part.as_os_str() == "virtual")
                && !entries.iter().any(|entry| entry.starts_with("lower_"))
        };
        self.interfaces
            .iter()
            .filter(alone)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// The interface of a line of /proc/net/route (net/ipv4/fib_trie.c), if it is a default route that is up.
fn outlet_four(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (destination == "00000000" && mask == "00000000" && leads_out(flags)).then_some(interface)
}

/// The same of /proc/net/ipv6_route (net/ipv6/route.c), whose lines end in the interface.
fn outlet_six(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, prefix, _, _, _, _, _, _, flags, interface] = fields[..] else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let default = prefix == "00" && destination.bytes().all(|digit| digit == b'0');
    (default && leads_out(flags) && interface != "lo").then_some(interface)
}

fn leads_out(flags: u32) -> bool {
    flags & RTF_UP != 0 && flags & RTF_REJECT == 0
}

// include/uapi/linux/route.h
const RTF_UP: u32 = 1;
const RTF_REJECT: u32 = 0x200;
/// The one interface that is above every port of every Open vSwitch bridge (net/openvswitch).
const OPEN_VSWITCH: &str = "ovs-system";
