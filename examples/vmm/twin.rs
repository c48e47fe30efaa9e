//! `vmm twin`: a machine's identity as a file, and two of them compared.

mod table;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pellucid::twin::{Class, Diff, MOST_BYTES, Scheme, Twin};

use crate::arguments::RunArguments;
use crate::report::complain;
use crate::{Outcome, Status, output, state};

#[derive(Subcommand)]
pub(crate) enum TwinCommand {
    /// Print this machine's identity as JSON: on the physical machine or in a guest. Only reads; as root it sees more
    Capture {
        /// Read the tree below DIR instead, which has a machine's sys and proc
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Print the identity of the machine that a server would find: the arguments of run. Touches nothing
    Predict(Box<RunArguments>),
    /// Compare two captures, and say of each difference what it does to an operating system that moves from A to B. Exit status:
    /// 0 nothing, 10 cosmetic, 20 licence risk, 30 changes a name, 40 breaks boot
    Diff(DiffArguments),
}

#[derive(Args)]
pub(crate) struct DiffArguments {
    /// The machine that the operating system knows
    before: PathBuf,
    /// The machine that it is to find
    after: PathBuf,
    /// Say of each difference why it matters
    #[arg(long)]
    explain: bool,
    /// Also write a page with both PCI trees to FILE
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Predict names by systemd's scheme of this version (v238 and later) instead of that of A's system
    #[arg(long, value_name = "VERSION")]
    scheme: Option<Scheme>,
}

pub(crate) fn run(command: &TwinCommand) -> Outcome {
    match command {
        TwinCommand::Capture { root } => capture(root.as_deref()),
        TwinCommand::Predict(arguments) => predict(arguments),
        TwinCommand::Diff(arguments) => diff(arguments),
    }
}

fn capture(root: Option<&Path>) -> Outcome {
    let twin = root.map_or_else(Twin::capture, Twin::capture_at);
    for note in &twin.notes {
        tell!("vmm: {}: {}", note.part, note.what);
    }
    say!("{}", twin.to_json()?);
    Ok(Status::Done)
}

/// The refusals of a server that this host would not start do not keep its machine from being told, as far as it is planned.
fn predict(arguments: &RunArguments) -> Outcome {
    let spec = arguments.spec()?;
    let examination = spec.examine(&state::open()?)?;
    let status = complain(&examination);
    let host = match &spec.machine {
        Some(machine) => machine.host().clone(),
        None => Twin::capture(),
    };
    if let Some(guest) = examination.predict(&host) {
        say!("{}", guest.to_json()?);
    }
    Ok(status)
}

fn diff(arguments: &DiffArguments) -> Outcome {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let diff = before.diff(&after, arguments.scheme);
    if let Some(path) = &arguments.html {
        let titles = [&arguments.before, &arguments.after].map(|path| path.display().to_string());
        let page = diff.html(&before, &after, [&titles[0], &titles[1]]);
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let text = if arguments.json {
        let status = of(&diff);
        format!(
            "{:#}\n",
            serde_json::json!({ "worst": diff.worst(), "status": status.code(), "diff": diff })
        )
    } else {
        table::text(&diff, arguments.explain)
    };
    output::out(format_args!("{text}"));
    Ok(of(&diff))
}

fn of(diff: &Diff) -> Status {
    Status::Differs(diff.worst())
}

/// No more of a file than a twin can have.
pub(crate) fn read(path: &Path) -> Result<Twin, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| said(&error))?;
    let read = file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| said(&error))?;
    Twin::from_json(&bytes).map_err(|error| said(&error))
}

/// The exit status of a comparison: apart from those that say how a server ended.
pub(crate) fn status(class: Class) -> u8 {
    match class {
        Class::None => 0,
        Class::Cosmetic => 10,
        Class::LicenceRisk => 20,
        Class::ChangesName => 30,
        Class::BreaksBoot => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Cli, Command};
    use clap::Parser;

    fn run_diff(before: &Twin, after: &Twin) -> (u8, String) {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, page] = ["a.json", "b.json", "page.html"].map(|name| folder.path().join(name));
        std::fs::write(&one, before.to_json().unwrap()).unwrap();
        std::fs::write(&other, after.to_json().unwrap()).unwrap();
        let words = [
            "vmm".into(),
            "twin".into(),
            "diff".into(),
            one.into_os_string(),
            other.into_os_string(),
            "--html".into(),
            page.clone().into_os_string(),
        ];
        let Command::Twin(command) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not a twin")
        };
        let code = run(&command).unwrap().code();
        (code, std::fs::read_to_string(page).unwrap())
    }

    #[test]
    fn the_exit_status_is_the_worst_class() {
        let before = Twin::empty();
        let (code, page) = run_diff(&before, &before);
        assert_eq!(code, 0);
        assert!(page.contains("finds the same machine"), "{page}");
        let mut after = Twin::empty();
        after.clock.source = Some("hpet".to_owned());
        assert_eq!(run_diff(&before, &after).0, 10);
        after.cpus.name = "Other".to_owned();
        assert_eq!(run_diff(&before, &after).0, 20);
        after.firmware.efi = true;
        assert_eq!(run_diff(&before, &after).0, 40);
        let all = Class::ALL.map(status);
        assert!(all.is_sorted_by(|worse, better| worse > better), "{all:?}");
        assert!(!all.iter().any(|status| (1..=4).contains(status)));
    }

    #[test]
    fn a_file_that_is_no_twin_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = read(file.path()).unwrap_err();
        assert!(
            error.starts_with(&file.path().display().to_string()) && error.contains("not a twin"),
            "{error}"
        );
        assert!(
            read(Path::new("/nowhere/a.json"))
                .unwrap_err()
                .contains("/nowhere/a.json")
        );
    }

    #[test]
    fn a_table_says_names_first_and_reasons_when_asked() {
        let mut before = Twin::empty();
        before.nics.insert(
            "eth0".to_owned(),
            pellucid::twin::Nic {
                kind: 1,
                ..Default::default()
            },
        );
        let after = Twin::empty();
        let diff = before.diff(&after, None);
        let text = table::text(&diff, true);
        assert!(
            text.starts_with("eth0               eth0 (it is not on a PCI function) -> not there\n"),
            "{text}"
        );
        assert!(
            text.contains("changes a name  nics eth0: interface: eth0 -> not there\n                what is"),
            "{text}"
        );
        assert!(text.ends_with("worst: changes a name (0 breaks boot, 1 changes a name, 0 licence risk, 0 cosmetic, 0 none)\n"), "{text}");
    }
}
