//! CPUs, the cores they are threads of, and the caches they share.

use std::collections::{BTreeMap, BTreeSet};

use super::files::Files;
use super::{Cache, CacheKind, Cgroup, CoreKind, Cpu, parse_list};
use crate::error::SurveyError;

/// Every CPU that is or could be there.
pub(super) fn survey(files: &Files<'_>, cgroup: &Cgroup) -> Result<Vec<Cpu>, SurveyError> {
    let text = files.text(&format!("{BASE}/online"))?;
    let online = parse_list(&text).unwrap_or_default();
    let isolated = files.set(&format!("{BASE}/isolated"));
    let mut present = files.set(&format!("{BASE}/present"));
    present.extend(&online);
    let (nodes, kinds) = (nodes(files), kinds(files, &present));
    Ok(present
        .into_iter()
        .map(|id| {
            let topology = format!("{BASE}/cpu{id}/topology");
            let mut siblings = files.set(&format!("{topology}/thread_siblings_list"));
            siblings.insert(id);
            Cpu {
                id,
                online: online.contains(&id),
                allowed: cgroup.cpus.as_ref().is_none_or(|set| set.contains(&id)),
                isolated: isolated.contains(&id),
                kind: kinds.get(&id).copied().unwrap_or_default(),
                node: nodes.get(&id).copied().unwrap_or(0),
                package: files
                    .number(&format!("{topology}/physical_package_id"))
                    .unwrap_or(0),
                core: files.number(&format!("{topology}/core_id")).unwrap_or(id as i32),
                siblings: siblings.into_iter().collect(),
            }
        })
        .collect())
}

/// The node of each CPU that has one.
fn nodes(files: &Files<'_>) -> BTreeMap<usize, u32> {
    let mut nodes = BTreeMap::new();
    for node in files.set("sys/devices/system/node/online") {
        for cpu in files.set(&format!("sys/devices/system/node/node{node}/cpulist")) {
            nodes.entry(cpu).or_insert(node as u32);
        }
    }
    nodes
}

/// The slower CPUs: those that the kernel counts as such, else those of less than the greatest capacity.
fn kinds(files: &Files<'_>, present: &BTreeSet<usize>) -> BTreeMap<usize, CoreKind> {
    let slower = files.set("sys/devices/cpu_atom/cpus");
    if !slower.is_empty() {
        return slower
            .into_iter()
            .map(|cpu| (cpu, CoreKind::Efficiency))
            .collect();
    }
    let capacity = |cpu: &usize| {
        let capacity: Option<u32> = files.number(&format!("{BASE}/cpu{cpu}/cpu_capacity"));
        capacity.map(|capacity| (*cpu, capacity))
    };
    let capacities: Vec<_> = present.iter().filter_map(capacity).collect();
    let most = capacities
        .iter()
        .map(|(_, capacity)| *capacity)
        .max()
        .unwrap_or(0);
    let slower = capacities.into_iter().filter(|(_, capacity)| *capacity < most);
    slower.map(|(cpu, _)| (cpu, CoreKind::Efficiency)).collect()
}

/// Every cache once.
pub(super) fn caches(files: &Files<'_>, cpus: &[Cpu]) -> Vec<Cache> {
    let mut caches = BTreeSet::new();
    for cpu in cpus.iter().filter(|cpu| cpu.online) {
        for index in 0..MOST_CACHES {
            let base = format!("{BASE}/cpu{}/cache/index{index}", cpu.id);
            let Some(level) = files.number(&format!("{base}/level")) else {
                break;
            };
            let kind = match files.optional(&format!("{base}/type")).trim() {
                "Data" => CacheKind::Data,
                "Instruction" => CacheKind::Instruction,
                _ => CacheKind::Unified,
            };
            let mut sharing = files.set(&format!("{base}/shared_cpu_list"));
            sharing.insert(cpu.id);
            caches.insert(Cache {
                level,
                kind,
                cpus: sharing.into_iter().collect(),
                size: size(&files.optional(&format!("{base}/size"))),
            });
        }
    }
    caches.into_iter().collect()
}

/// Bytes of `48K`; 0 if that is not what it says.
fn size(text: &str) -> u64 {
    let text = text.trim();
    let shift = match text.chars().last() {
        Some('K') => 10,
        Some('M') => 20,
        _ => 0,
    };
    let number: u64 = text.trim_end_matches(['K', 'M']).parse().unwrap_or(0);
    number.checked_shl(shift).unwrap_or(0)
}

const BASE: &str = "sys/devices/system/cpu";
/// CPUID leaf 4 numbers caches from 0; no CPU has nearly that many.
const MOST_CACHES: usize = 16;
