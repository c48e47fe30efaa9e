//! What logical servers hold on this host: listed, stopped, healed.

use std::path::Path;

use pellucid::partition::{ClaimRecord, HealOutcome, Resource, StateDir};
use pellucid::passthrough::PciHealer;
use rustix::process::{Pid, Signal, kill_process};

use crate::arguments::Format;
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
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(Status::Done);
    }
    for (record, alive) in records {
        let state = if alive {
            "running"
        } else {
            "dead, `vmm heal` restores it"
        };
        println!(
            "{:<16} {:<24} pid {:<8} {state}",
            record.partition,
            record.resource.to_string(),
            record.pid
        );
    }
    Ok(Status::Done)
}

/// Asks the server's process to power the guest off, or kills it.
pub(crate) fn stop(name: &str, force: bool) -> Outcome {
    let records = open()?.records()?;
    let ours = |record: &ClaimRecord| record.resource.kind == Resource::PARTITION && record.partition == name;
    let running = records.into_iter().find(|(record, alive)| *alive && ours(record));
    let Some((record, _)) = running else {
        return Err(format!("no logical server {name:?} is running; `vmm list` shows those that are").into());
    };
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("the record of {name:?} has no process; `vmm heal`"))?;
    kill_process(pid, if force { Signal::KILL } else { Signal::TERM })?;
    if force {
        eprintln!("vmm: killed; `vmm heal` gives back what it held");
    }
    Ok(Status::Done)
}

/// Restores what dead processes left.
pub(crate) fn heal(dry_run: bool) -> Outcome {
    let mut status = Status::Done;
    let healer = PciHealer::new();
    let entries = open()?.heal(&[&healer], dry_run)?;
    if entries.is_empty() {
        println!("nothing to restore: no logical server has left anything");
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
        println!("{resource} of {owner}: {outcome}");
    }
    Ok(status)
}
