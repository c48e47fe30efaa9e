//! What this host has to give, for people and for programs.

use pellucid::partition::{Cgroup, CgroupVersion, CoreKind, Cpu, Inventory, Node, PageSize, StateDir};
use pellucid::passthrough::Inventory as PciInventory;
use serde_json::json;

use crate::arguments::Format;
use crate::{Outcome, Status, state};

/// Surveys the host and prints it.
pub(crate) fn print(format: Format) -> Outcome {
    let mut host = Inventory::survey()?;
    // Who may not see the claims still sees the host.
    match state::open().and_then(|state: StateDir| state.records()) {
        Ok(records) => host = host.with_claims(&records),
        Err(error) => tell!("vmm: claims are not shown: {error}"),
    }
    let pci = PciInventory::survey()?;
    if format.json {
        say!("{:#}", json!({ "host": host, "pci": pci }));
        return Ok(Status::Done);
    }
    print_cpus(&host);
    for node in &host.nodes {
        print_node(node);
    }
    print_rest(&host);
    print_functions(&pci);
    Ok(Status::Done)
}

fn print_cpus(host: &Inventory) {
    let usable: Vec<&Cpu> = host.usable_cpus().collect();
    let of = |wanted: &dyn Fn(&Cpu) -> bool| {
        let ids = usable.iter().filter(|cpu| wanted(cpu)).map(|cpu| cpu.id);
        ranges(&ids.collect::<Vec<_>>())
    };
    say!(
        "CPUs     {} of {} usable: {}",
        usable.len(),
        host.cpus.len(),
        of(&|_| true)
    );
    let lines = [
        ("isolated", of(&|cpu| cpu.isolated)),
        ("slow", of(&|cpu| cpu.kind == CoreKind::Efficiency)),
        ("threads", of(&|cpu| cpu.siblings.first() != Some(&cpu.id))),
    ];
    for (name, cpus) in lines.into_iter().filter(|(_, cpus)| !cpus.is_empty()) {
        say!("{name:<8} {cpus}");
    }
    for held in host.held.iter().filter(|held| held.cpu().is_some()) {
        say!("held     {} by {}", held.resource, held.holder);
    }
    for cache in host.caches.iter().filter(|cache| cache.level > 2) {
        let (level, size) = (cache.level, cache.size >> 10);
        say!(
            "cache    L{level} {size} KiB shared by CPUs {}",
            ranges(&cache.cpus)
        );
    }
}

fn print_node(node: &Node) {
    say!(
        "node {:<3} {} of {} MiB free, {} available, {} free 2m pages, {} free 1g pages, distances {:?}",
        node.id,
        node.free >> 20,
        node.total >> 20,
        node.available >> 20,
        node.free_pages(PageSize::Size2M),
        node.free_pages(PageSize::Size1G),
        node.distances
    );
}

fn print_rest(host: &Inventory) {
    say!("cgroup   {}", cgroup_text(&host.cgroup));
    match host.memlock {
        Some(bytes) => say!("memlock  {} KiB", bytes >> 10),
        None => say!("memlock  without limit"),
    }
    match &host.kvm {
        Ok(kvm) => say!(
            "KVM      up to {} vCPUs ({} advised), {} memory slots, {} interrupt routes",
            kvm.max_vcpus,
            kvm.recommended_vcpus,
            kvm.max_slots,
            kvm.max_routes
        ),
        Err(reason) => say!("KVM      {reason}"),
    }
}

fn cgroup_text(cgroup: &Cgroup) -> String {
    let version = match cgroup.version {
        CgroupVersion::None => return "none".to_owned(),
        CgroupVersion::V1 => "version 1",
        CgroupVersion::Hybrid => "version 2 beside version 1",
        CgroupVersion::V2 => "version 2",
    };
    let (all, own) = (cgroup.controllers.join(" "), cgroup.own_controllers.join(" "));
    format!("{version}: {all}; {} can use: {own}", cgroup.path)
}

fn print_functions(pci: &PciInventory) {
    for function in pci.functions.values() {
        let driver = function.driver.bound.as_deref().unwrap_or("-");
        let ids = function.ids;
        let verdict = match pci.admit(function.bdf) {
            Ok(_) => "can be lent".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        say!(
            "{} {:04x}:{:04x} class {:06x} {driver:<12} {verdict}",
            function.bdf,
            ids.vendor,
            ids.device,
            ids.class
        );
    }
}

/// `0-3,8`: neighbours as a range, in the order given.
pub(crate) fn ranges(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|one, next| one + 1 == *next);
    let text = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(ToString::to_string).collect(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_a_range_and_others_stand_alone() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[3, 1]), "3,1");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn what_the_own_group_can_use_is_told_beside_what_there_is() {
        let cgroup = Cgroup {
            version: CgroupVersion::V2,
            controllers: vec!["cpuset".to_owned(), "cpu".to_owned()],
            own_controllers: vec!["cpu".to_owned()],
            path: "/vmm".to_owned(),
            ..Cgroup::default()
        };
        assert_eq!(cgroup_text(&cgroup), "version 2: cpuset cpu; /vmm can use: cpu");
        assert_eq!(cgroup_text(&Cgroup::default()), "none");
    }
}
