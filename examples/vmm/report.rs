//! Reports for people and for programs: the plan of a server.

use pellucid::partition::Plan;
use pellucid::passthrough::{Admitted, VirtualFunctions};
use pellucid::{DeviceSource, Examination, Offer, ServerSpec};
use serde_json::json;

use crate::arguments::RunArguments;
use crate::inventory::ranges;
use crate::{Outcome, Status, firmware_arguments, state};

/// The plan, every claim and every refusal; touches nothing.
pub(crate) fn check(arguments: &RunArguments) -> Outcome {
    let spec = arguments.spec()?;
    let examination = spec.examine(&state::open()?)?.with_root_drivers();
    match arguments.json {
        true => {
            let mut report = as_json(&spec, &examination);
            report["twin"] = arguments.twin().as_json(&examination);
            say!("{report:#}");
        }
        false => {
            print_plan(&spec, &examination);
            arguments.twin().print(&examination);
        }
    }
    Ok(complain(&examination))
}

/// Every warning and every refusal of a server that is only looked at, and what they come to.
pub(crate) fn complain(examination: &Examination) -> Status {
    for warning in examination.warnings() {
        tell!("vmm: warning: {warning}");
    }
    let mut status = Status::Done;
    for refusal in examination.refusals() {
        tell!("vmm: {refusal}");
        status = Status::HostFailed;
    }
    status
}

fn as_json(spec: &ServerSpec, examination: &Examination) -> serde_json::Value {
    let device = |(offer, guest): (&Offer, Option<_>)| match (&offer.spec().from, offer.admitted()) {
        (DeviceSource::Virtual(function), _) => {
            json!({ "card": function.card, "vf": function.index, "of": function.of, "guest": guest, "hot_plug": false })
        }
        (DeviceSource::Served(socket), _) => {
            json!({ "socket": socket, "guest": guest, "hot_plug": offer.spec().hot_plug })
        }
        (DeviceSource::Host(host), admitted) => {
            json!({ "host": host, "guest": guest, "hot_plug": offer.spec().hot_plug, "group": admitted.map(Admitted::group),
                    "driver": admitted.and_then(|admitted| admitted.function().driver.bound.as_ref()),
                    "overridden": admitted.map(Admitted::overridden) })
        }
    };
    let devices: Vec<_> = examination.devices().map(device).collect();
    let refusals: Vec<_> = examination.refusals().map(ToString::to_string).collect();
    let warnings: Vec<_> = examination.warnings().map(ToString::to_string).collect();
    let smbios = examination
        .smbios()
        .map(|tables| json!({ "structures": tables.structures().count(), "left_out": tables.left_out() }));
    json!({ "name": spec.partition.name(), "plan": examination.plan(), "boot": examination.boot_plan(), "smbios": smbios,
            "firmware": firmware_arguments::as_json(&spec.source),
            "devices": devices, "warnings": warnings, "refusals": refusals })
}

fn print_plan(spec: &ServerSpec, examination: &Examination) {
    say!("logical server {}", spec.partition.name());
    if let Some(plan) = examination.plan() {
        print_share(plan);
    }
    if let Some(boot) = examination.boot_plan() {
        say!("  boots    {} ({})", boot.title, boot.entry_id);
        say!("  chosen   {}", boot.why);
        say!("  kernel   {}", boot.kernel);
        say!("  cmdline  {}", boot.command_line);
    }
    firmware_arguments::print(&spec.source);
    if let Some(smbios) = examination.smbios() {
        let (count, left) = (smbios.structures().count(), smbios.left_out().len());
        let whose = match spec.machine {
            Some(_) => "captured machine's",
            None => "host's",
        };
        say!("  smbios   {count} records of the {whose} for its share, {left} left out");
    }
    for (offer, guest) in examination.devices() {
        let guest = guest.map_or("nothing yet".to_owned(), |guest| guest.to_string());
        let whose = match (offer.admitted(), &offer.spec().from) {
            (Some(admitted), _) => {
                let driver = admitted.function().driver.bound.as_deref();
                format!(
                    "group {}, from {}",
                    admitted.group(),
                    driver.unwrap_or("no driver")
                )
            }
            (None, DeviceSource::Virtual(function)) => {
                let (found, of) = (VirtualFunctions::find(function.card, function.index), function.of);
                found.map_or_else(
                    || format!("one of {of} to be made"),
                    |found| format!("which is {found}"),
                )
            }
            (None, _) => "served by another process".to_owned(),
        };
        let slot = if offer.spec().hot_plug {
            ", in a hot-plug slot"
        } else {
            ""
        };
        say!("  device   {} as {guest}, {whose}{slot}", offer.spec().from);
        for overridden in offer.admitted().into_iter().flat_map(Admitted::overridden) {
            say!("           taken by force although {overridden}");
        }
    }
}

/// CPUs and memory: which, on which nodes, how strongly kept from others.
fn print_share(plan: &Plan) {
    let cpus = match plan.pinned() {
        [] => "on any host CPU".to_owned(),
        pinned => format!("on host CPUs {}", ranges(pinned)),
    };
    say!("  vCPUs    {} {cpus}", plan.vcpus());
    if let [_, ..] = plan.withheld() {
        say!("  idle     {} (siblings of those)", ranges(plan.withheld()));
    }
    for node in plan.nodes().iter().filter(|node| node.memory > 0) {
        let place = node
            .host
            .map_or_else(String::new, |host| format!(" on node {host}"));
        say!(
            "  memory   {} MiB in {} pages{place}",
            node.memory >> 20,
            plan.pages()
        );
    }
    if let Some(isolation) = plan.isolation() {
        say!("  held by  {isolation}");
    }
}
