//! Reports for people and for programs: the plan of a server, the inventory of a host.

use pellucid::partition::Inventory;
use pellucid::passthrough::Inventory as PciInventory;
use pellucid::{Examination, ServerSpec};
use serde_json::json;

use crate::arguments::{Format, RunArguments};
use crate::{Outcome, Status, state};

/// The plan, every claim and every refusal; touches nothing.
pub(crate) fn check(arguments: &RunArguments) -> Outcome {
    let spec = arguments.spec();
    let examination = spec.examine(&state::open()?)?;
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&as_json(&spec, &examination))?),
        false => print_plan(&spec, &examination),
    }
    for refusal in examination.refusals() {
        eprintln!("vmm: {refusal}");
    }
    Ok(if examination.refusals().is_empty() {
        Status::Done
    } else {
        Status::HostFailed
    })
}

fn as_json(spec: &ServerSpec, examination: &Examination) -> serde_json::Value {
    let devices: Vec<_> = examination
        .devices()
        .map(|(device, admitted)| {
            json!({ "host": device.host, "guest": device.guest(), "group": admitted.group(),
                    "driver": admitted.function().driver.bound })
        })
        .collect();
    let refusals: Vec<_> = examination.refusals().iter().map(ToString::to_string).collect();
    json!({ "name": spec.partition.name, "plan": examination.plan(), "boot": examination.boot_plan(), "isolation": examination.isolation(),
            "devices": devices, "refusals": refusals })
}

fn print_plan(spec: &ServerSpec, examination: &Examination) {
    println!("logical server {}", spec.partition.name);
    if let Some(plan) = examination.plan() {
        let cpus = match plan.pinned() {
            [] => "on any host CPU".to_owned(),
            pinned => format!("on host CPUs {pinned:?}"),
        };
        println!("  vCPUs    {} {cpus}", plan.vcpus());
        if let Some(isolation) = examination.isolation() {
            println!("  held by  {isolation}");
        }
        println!(
            "  memory   {} MiB in {} pages",
            plan.layout().memory() >> 20,
            plan.pages()
        );
    }
    if let Some(boot) = examination.boot_plan() {
        println!("  boots    {} ({})", boot.title, boot.entry_id);
        println!("  kernel   {}", boot.kernel);
        println!("  cmdline  {}", boot.command_line);
    }
    for (device, admitted) in examination.devices() {
        let function = admitted.function();
        let driver = function.driver.bound.as_deref().unwrap_or("no driver");
        println!(
            "  device   {} as {}, group {}, from {driver}",
            device.host,
            device.guest(),
            admitted.group()
        );
    }
}

/// What this host has to give.
pub(crate) fn inventory(host: &Inventory, pci: &PciInventory, format: Format) {
    if format.json {
        println!("{:#}", json!({ "host": host, "pci": pci }));
        return;
    }
    let usable = host.usable_cpus().count();
    println!("CPUs     {} of {} usable", usable, host.cpus.len());
    for node in &host.nodes {
        println!(
            "node {:<3} {} of {} MiB free, {} free 2m pages, {} free 1g pages",
            node.id,
            node.free >> 20,
            node.total >> 20,
            node.free_2m,
            node.free_1g
        );
    }
    match &host.kvm {
        Ok(kvm) => println!(
            "KVM      up to {} vCPUs and {} memory slots",
            kvm.max_vcpus, kvm.max_slots
        ),
        Err(reason) => println!("KVM      {reason}"),
    }
    for function in pci.functions.values() {
        let driver = function.driver.bound.as_deref().unwrap_or("-");
        let ids = function.ids;
        let verdict = match pci.admit(function.bdf) {
            Ok(_) => "can be lent".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        println!(
            "{} {:04x}:{:04x} class {:06x} {driver:<12} {verdict}",
            function.bdf, ids.vendor, ids.device, ids.class
        );
    }
}
