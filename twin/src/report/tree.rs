//! A PCI tree as nested boxes: what is behind a bridge is in its box. Each box has the colour of the worst that it has come to.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::Bdf;

use super::{escaped, token};
use crate::diff::{Class, Diff, Difference, Pairs};
use crate::pci::PciFunction;
use crate::twin::Twin;

/// One machine's tree with what is said of its functions.
pub(super) struct Tree<'t> {
    twin: &'t Twin,
    said: BTreeMap<Bdf, Vec<&'t Difference>>,
    /// What systemd calls the interfaces on a function.
    names: BTreeMap<Bdf, Vec<String>>,
}

impl<'t> Tree<'t> {
    pub(super) fn before(twin: &'t Twin, diff: &'t Diff) -> Tree<'t> {
        let names = diff.names.iter().filter_map(|row| row.before.as_ref());
        Tree {
            said: said(diff, twin),
            names: named(twin, names.map(|side| (side.current.as_str(), side.name()))),
            twin,
        }
    }

    /// What is said of a function that was elsewhere before is said here too.
    pub(super) fn after(before: &'t Twin, twin: &'t Twin, (diff, pairs): (&'t Diff, &Pairs)) -> Tree<'t> {
        let mut here: BTreeMap<Bdf, Vec<&Difference>> = BTreeMap::new();
        for (bdf, differences) in said(diff, before) {
            if let Some(at) = pairs.after(bdf) {
                here.entry(at).or_default().extend(differences);
            }
        }
        // What is new has a before that is empty.
        for (bdf, differences) in said(diff, twin)
            .into_iter()
            .filter(|(bdf, _)| pairs.before(*bdf).is_none())
        {
            let new = differences
                .into_iter()
                .filter(|difference| difference.before.is_none());
            here.entry(bdf).or_default().extend(new);
        }
        let names = diff.names.iter().filter_map(|row| row.after.as_ref());
        Tree {
            said: here,
            names: named(twin, names.map(|side| (side.current.as_str(), side.name()))),
            twin,
        }
    }

    pub(super) fn draw(&self, page: &mut String) {
        let functions = &self.twin.pci.functions;
        // A function whose bridge is not there stands at the root, and so does one that is its own.
        let parent = |bdf: &Bdf, function: &PciFunction| {
            let port = function.upstream.last().filter(|port| *port < bdf);
            port.filter(|port| functions.contains_key(port)).copied()
        };
        let mut children: BTreeMap<Option<Bdf>, Vec<Bdf>> = BTreeMap::new();
        for (bdf, function) in functions {
            children.entry(parent(bdf, function)).or_default().push(*bdf);
        }
        if functions.is_empty() {
            page.push_str("<p>No PCI functions are known.</p>\n");
        }
        let mut buses = BTreeSet::new();
        page.push_str("<ul class=\"tree\">\n");
        for bdf in children.get(&None).into_iter().flatten() {
            if buses.insert((bdf.domain(), bdf.bus())) {
                page.push_str(&format!(
                    "<li class=\"bus\">bus {:04x}:{:02x}</li>\n",
                    bdf.domain(),
                    bdf.bus()
                ));
            }
            self.function(page, *bdf, (&children, 0));
        }
        page.push_str("</ul>\n");
    }

    fn function(
        &self,
        page: &mut String,
        bdf: Bdf,
        (children, depth): (&BTreeMap<Option<Bdf>, Vec<Bdf>>, usize),
    ) {
        let Some(function) = self.twin.pci.functions.get(&bdf) else {
            return;
        };
        let said = self.said.get(&bdf).map(Vec::as_slice).unwrap_or_default();
        let worst = said.iter().map(|difference| difference.class).max();
        page.push_str(&format!(
            "<li><div class=\"box {}\"><p class=\"what\"><code>{bdf}</code> {}</p>\n",
            worst.map_or("plain", token),
            escaped(function.what())
        ));
        let has = self.facts(bdf, function);
        if !has.is_empty() {
            page.push_str(&format!("<p class=\"has\">{}</p>\n", escaped(&has.join(" · "))));
        }
        let told = said.iter().filter(|difference| difference.class > Class::None);
        for difference in told.clone().take(MOST_SAID) {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not there".to_owned());
            let subject = difference
                .subject
                .strip_prefix(&format!("{bdf} "))
                .unwrap_or(&difference.subject);
            let text = format!(
                "{}: {subject}: {} → {}",
                difference.class,
                value(&difference.before),
                value(&difference.after)
            );
            page.push_str(&format!(
                "<p class=\"said {}\">{}</p>\n",
                token(difference.class),
                escaped(&text)
            ));
        }
        let rest = told.count().saturating_sub(MOST_SAID);
        if rest > 0 {
            page.push_str(&format!("<p class=\"has\">and {rest} more below</p>\n"));
        }
        let behind = children.get(&Some(bdf));
        if behind.is_some() && depth == MOST_DEPTH {
            page.push_str("<p>What is behind it is not drawn.</p>\n");
        }
        if let Some(behind) = behind.filter(|_| depth < MOST_DEPTH) {
            page.push_str("<ul>\n");
            for child in behind {
                self.function(page, *child, (children, depth + 1));
            }
            page.push_str("</ul>\n");
        }
        page.push_str("</div></li>\n");
    }

    fn facts(&self, bdf: Bdf, function: &PciFunction) -> Vec<String> {
        let mut facts = vec![format!("{:04x}:{:04x}", function.ids.vendor, function.ids.device)];
        facts.extend(function.driver.clone());
        if let Some(bridge) = function.bridge {
            facts.push(format!("to bus {:02x}", bridge.secondary));
        }
        facts.extend(function.place.slot.as_ref().map(|slot| format!("slot {slot}")));
        facts.extend(
            function
                .place
                .label
                .as_ref()
                .map(|label| format!("label {label}")),
        );
        facts.extend(
            function
                .place
                .onboard()
                .map(|index| format!("number {index} on the board")),
        );
        facts.extend(self.names.get(&bdf).into_iter().flatten().cloned());
        let disks = self.twin.disks.iter().filter(|(_, disk)| disk.pci == Some(bdf));
        facts.extend(
            disks.map(|(name, disk)| format!("{name} {}", disk.serial.as_deref().unwrap_or_default())),
        );
        facts
    }
}

/// Differences by the function of `twin` that they are about.
fn said<'t>(diff: &'t Diff, twin: &Twin) -> BTreeMap<Bdf, Vec<&'t Difference>> {
    let mut said: BTreeMap<Bdf, Vec<&Difference>> = BTreeMap::new();
    let mut nics: BTreeMap<&str, Option<Bdf>> = BTreeMap::new();
    for (name, nic) in &twin.nics {
        nics.insert(&nic.mac, nic.pci);
        nics.insert(name, nic.pci);
    }
    for difference in &diff.differences {
        let (subject, name) = (difference.subject.as_str(), difference.subject.split(": ").next());
        let name = name.unwrap_or_default();
        let about = match difference.part.as_str() {
            "pci" => subject.split(' ').next().and_then(|word| word.parse().ok()),
            "nics" => nics.get(name).copied().flatten(),
            "disks" => twin.disks.get(name).and_then(|disk| disk.pci),
            _ => None,
        };
        if let Some(bdf) = about {
            said.entry(bdf).or_default().push(difference);
        }
    }
    said
}

fn named<'n>(twin: &Twin, names: impl Iterator<Item = (&'n str, &'n str)>) -> BTreeMap<Bdf, Vec<String>> {
    let mut named: BTreeMap<Bdf, Vec<String>> = BTreeMap::new();
    for (current, name) in names {
        if let Some(bdf) = twin.nics.get(current).and_then(|nic| nic.pci) {
            named.entry(bdf).or_default().push(name.to_owned());
        }
    }
    named
}

const MOST_SAID: usize = 6;
/// Sixty-four bridges in a row: trees that exist have less than ten.
const MOST_DEPTH: usize = 64;
