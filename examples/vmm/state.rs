//! What logical servers hold on this host: listed, stopped, healed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use pellucid::partition::{
    Bdf, CgroupHealer, ClaimRecord, CpuMode, HealOutcome, Holding, Owner, Resource, Standing, StateDir,
};
use pellucid::passthrough::{PciHealer, Quarantine, SriovHealer};
use rustix::process::{Signal, pidfd_send_signal};

use crate::arguments::Format;
use crate::control::sockets;
use crate::{Outcome, Status};

/// The state directory: `PELLUCID_STATE_DIR`, or the system's.
pub(crate) fn open() -> Result<StateDir, pellucid::partition::ClaimError> {
    match std::env::var_os("PELLUCID_STATE_DIR") {
        Some(path) => StateDir::at(Path::new(&path)),
        None => StateDir::standard(),
    }
}

/// Every claim with its owner.
pub(crate) fn list(format: Format) -> Outcome {
    let records = open()?.records()?;
    if format.json {
        let rows: Vec<_> = records
            .iter()
            .map(|(record, alive)| serde_json::json!({ "claim": record, "alive": alive }))
            .collect();
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(Status::Done);
    }
    // A partition's name and all that is held under it; the records come in the order of kinds, the name last.
    let mut partitions: BTreeMap<&str, Vec<&(ClaimRecord, bool)>> = BTreeMap::new();
    for row in &records {
        partitions.entry(&row.0.partition).or_default().push(row);
    }
    for (name, rows) in partitions {
        print_partition(name, &rows);
    }
    Ok(Status::Done)
}

fn print_partition(name: &str, rows: &[&(ClaimRecord, bool)]) {
    let is_name = |row: &&&(ClaimRecord, bool)| row.0.resource.kind == Resource::PARTITION;
    let Some((first, _)) = rows.iter().find(is_name).or(rows.first()) else {
        return;
    };
    let alive = rows.iter().any(|(_, alive)| *alive);
    let state = if alive {
        "running"
    } else {
        "dead, `vmm heal` restores it"
    };
    say!("{name:<16} {state}, {}", owner(&first.owner));
    if let Some(holding) = &first.holding {
        say!("{:16} {}", "", held(holding));
    }
    for (record, _) in rows {
        // Dedicated CPUs are told with the holding, unless its record is gone.
        let told = first.holding.is_some() && record.resource.kind == Resource::CPU;
        if !told && record.resource.kind != Resource::PARTITION {
            // A claim's name has no slash; a socket's has what looks like one.
            let resource = record.resource.to_string().replace('\u{2215}', "/");
            say!("{:16} {resource}{}", "", quarantine(record));
        }
    }
}

/// Why a device is kept from everybody, if it is.
fn quarantine(record: &ClaimRecord) -> String {
    Quarantine::of(record).map_or_else(String::new, |quarantine| {
        let (since, reason) = (utc(quarantine.since), quarantine.reason);
        format!(", in quarantine since {since}: {reason}")
    })
}

fn owner(owner: &Owner) -> String {
    match &owner.started {
        Some(started) => format!("pid {} since {}", owner.pid, utc(started.unix)),
        None => format!("pid {}", owner.pid),
    }
}

fn held(holding: &Holding) -> String {
    let cpus = match holding.cpus.as_slice() {
        [] => String::new(),
        cpus => format!(" on CPUs {cpus:?}"),
    };
    let mode = match holding.mode {
        CpuMode::Dedicated => "dedicated",
        _ => "shared",
    };
    let node = holding
        .node
        .map_or_else(String::new, |node| format!(" on node {node}"));
    format!(
        "{} vCPUs{cpus}, {mode}; {} MiB in {} pages{node}",
        holding.vcpus,
        holding.memory >> 20,
        holding.pages
    )
}

/// Seconds since 1970 as a date and time of day (the calendar of H. Hinnant's `civil_from_days`).
fn utc(unix: u64) -> String {
    let days = unix / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (unix / 3_600 % 24, unix / 60 % 60, unix % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The claim of the running server `name` on its name.
pub(crate) fn running(state: &StateDir, name: &str) -> Result<ClaimRecord, Box<dyn Error>> {
    let ours = |record: &ClaimRecord| record.resource.kind == Resource::PARTITION && record.partition == name;
    let records = state.records()?;
    let running = records.into_iter().find(|(record, alive)| *alive && ours(record));
    let Some((record, _)) = running else {
        return Err(format!("no logical server {name:?} is running; `vmm list` shows those that are").into());
    };
    Ok(record)
}

/// Asks the server's process to power the guest off, or kills it.
pub(crate) fn stop(name: &str, force: bool) -> Outcome {
    let record = running(&open()?, name)?;
    // The process itself, not whatever has its number by now.
    let pid = record.owner.pid;
    let process = match record.owner.standing() {
        Standing::Running(process) => process,
        Standing::Gone => return Err(format!("process {pid} of {name:?} has just ended; `vmm heal`").into()),
        Standing::Unknown => {
            let why = "in another pid namespace, or /proc is not mounted";
            return Err(format!("process {pid} of {name:?} is {why}; stop it from there").into());
        }
    };
    pidfd_send_signal(process, if force { Signal::KILL } else { Signal::TERM })?;
    if force {
        tell!("vmm: killed; `vmm heal` gives back what it held");
    }
    Ok(Status::Done)
}

/// Restores what dead processes left.
pub(crate) fn heal(dry_run: bool, lift: &[Bdf]) -> Outcome {
    let mut status = Status::Done;
    let state = open()?;
    let (mut devices, groups) = (PciHealer::new(), CgroupHealer::new(&state));
    for device in lift {
        if Quarantine::find(&state, *device)?.is_none() {
            return Err(
                format!("device {device} is not in quarantine; `vmm list` shows those that are").into(),
            );
        }
        devices = devices.lifting(*device);
    }
    if !dry_run {
        remove_sockets(&state)?;
    }
    let functions = SriovHealer::of(&state);
    let entries = state.heal(&[&devices, &groups, &functions], dry_run)?;
    if entries.is_empty() {
        say!("nothing to restore: no logical server has left anything");
    }
    for entry in entries {
        let (resource, owner) = (&entry.record.resource, &entry.record.partition);
        let outcome = match &entry.outcome {
            HealOutcome::InUse => "in use, left alone".to_owned(),
            HealOutcome::NothingToUndo => "nothing to undo".to_owned(),
            HealOutcome::Healed => "restored".to_owned(),
            HealOutcome::WouldHeal => "would be restored".to_owned(),
            HealOutcome::Failed(error) => {
                status = Status::HostFailed;
                format!("not restored: {error}")
            }
        };
        say!("{resource} of {owner}: {outcome}");
    }
    Ok(status)
}

/// The sockets of servers that are dead; one that lives has its name claimed before it has a socket.
fn remove_sockets(state: &StateDir) -> Result<(), Box<dyn Error>> {
    for (name, path) in sockets(state.path())? {
        let free = state
            .refusal(&Resource::new(Resource::PARTITION, &name))?
            .is_none();
        if free || running(state, &name).is_err() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (unix, expected) in known {
            assert_eq!(utc(unix), expected);
        }
    }
}
