//! Each PCI function of the host: what it is, whether it can be lent, and if not, what to do. A table for people, JSON for programs.

use std::collections::BTreeSet;
use std::io;

use pellucid::passthrough::{Advice, Function, Inventory, Member, Names, Verdict};
use rustix::termios::tcgetwinsize;
use serde_json::json;

use crate::arguments::Format;
use crate::{Outcome, Status, output};

/// Surveys the host's PCI functions and prints them.
pub(crate) fn print(format: Format) -> Outcome {
    let (inventory, names) = (Inventory::survey()?, Names::survey());
    if format.json {
        say!("{:#}", as_json(&inventory, &names));
        return Ok(Status::Done);
    }
    let columns = tcgetwinsize(io::stdout()).map_or(PIPE_COLUMNS, |size| usize::from(size.ws_col));
    let text = as_text(&inventory, &names, columns.max(LEAST_COLUMNS));
    output::out(format_args!("{text}"));
    Ok(Status::Done)
}

fn as_json(inventory: &Inventory, names: &Names) -> serde_json::Value {
    let row = |advice: &Advice| {
        let function = inventory.function(advice.device);
        let name = function.map(|function| names.of(function.ids));
        json!({ "advice": advice, "name": name, "function": function })
    };
    let devices: Vec<_> = inventory.advise().iter().map(row).collect();
    json!({ "unready": inventory.unready(), "devices": devices })
}

fn as_text(inventory: &Inventory, names: &Names, columns: usize) -> String {
    let advice = inventory.advise();
    let mut text = String::new();
    if let Some(reason) = inventory.unready() {
        let line = format!("Nothing can be lent yet: {}; {}", reason.cause, reason.remedy);
        wrap(&mut text, "", &line, columns);
        text.push('\n');
    }
    table(&mut text, inventory, &advice, names, columns);
    explanations(&mut text, &advice, columns);
    ignored(&mut text, inventory, &advice, columns);
    if !names.known() && !advice.is_empty() {
        text.push('\n');
        wrap(&mut text, "", NO_NAMES, columns);
    }
    text
}

/// A line for each function, cut to fit.
fn table(text: &mut String, inventory: &Inventory, advice: &[Advice], names: &Names, columns: usize) {
    let mut rows = vec![["DEVICE", "GROUP", "DRIVER", "LEND", "WHAT"].map(str::to_owned)];
    for advice in advice {
        let Some(function) = inventory.function(advice.device) else {
            continue;
        };
        rows.push(row(advice, function, names));
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(|column| width(column).min(WIDEST_COLUMN));
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let cell: String = cell.chars().take(width).collect();
            line.push_str(&format!("{cell:<width$}  "));
        }
        line.push_str(&row[4]);
        let cut: String = line.chars().take(columns).collect();
        text.push_str(cut.trim_end());
        text.push('\n');
    }
}

fn row(advice: &Advice, function: &Function, names: &Names) -> [String; 5] {
    let group = function.group.as_ref();
    let lend = match advice.lend {
        Verdict::Yes => "yes",
        Verdict::Together => "together",
        Verdict::No => "no",
        Verdict::Bridge => "bridge",
    };
    [
        advice.device.to_string(),
        group.map_or_else(|| "-".to_owned(), |group| group.id.to_string()),
        function.driver.bound.clone().unwrap_or_else(|| "-".to_owned()),
        lend.to_owned(),
        names.of(function.ids).to_string(),
    ]
}

/// Who must be lent together, and why the others cannot be lent: what several have in common is said once.
fn explanations(text: &mut String, advice: &[Advice], columns: usize) {
    let mut said: Vec<(Vec<String>, String)> = Vec::new();
    for advice in advice {
        let device = advice.device.to_string();
        let mut lines: Vec<String> = advice
            .reasons
            .iter()
            .map(|reason| format!("{}; {}", reason.cause, reason.remedy))
            .collect();
        if advice.lend == Verdict::Together {
            lines.push("in one IOMMU group, to be lent to the same server or not at all".to_owned());
        }
        for line in lines {
            let company = |(devices, other): &&mut (Vec<String>, String)| {
                let mates = advice.with.is_empty()
                    || advice.with.iter().any(|with| devices.contains(&with.to_string()));
                *other == line && mates
            };
            match said.iter_mut().find(company) {
                Some((devices, _)) => devices.push(device.clone()),
                None => said.push((vec![device.clone()], line)),
            }
        }
    }
    for (devices, line) in said {
        text.push('\n');
        wrap(text, "", &devices.join(" "), columns);
        wrap(text, "    ", &line, columns);
    }
}

/// Members of groups that keep nobody from being lent.
fn ignored(text: &mut String, inventory: &Inventory, advice: &[Advice], columns: usize) {
    let mut told = BTreeSet::new();
    for advice in advice.iter().filter(|advice| advice.lend != Verdict::Bridge) {
        let group = inventory
            .function(advice.device)
            .and_then(|function| function.group.as_ref());
        let Some(group) = group.filter(|_| !advice.ignored.is_empty()) else {
            continue;
        };
        if told.insert(group.id) {
            let names: Vec<String> = advice.ignored.iter().map(Member::to_string).collect();
            let line = format!("Not in the way in group {}: {}", group.id, names.join(", "));
            text.push('\n');
            wrap(text, "", &line, columns);
        }
    }
}

/// Adds `words`, broken between words, each line after `indent`.
fn wrap(text: &mut String, indent: &str, words: &str, columns: usize) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > columns {
            text.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&format!("{indent}{line}\n"));
}

/// As wide as a pipe's reader likely is.
const PIPE_COLUMNS: usize = 100;
const LEAST_COLUMNS: usize = 60;
const WIDEST_COLUMN: usize = 20;
const NO_NAMES: &str = "This host has no PCI ID database, so devices go by their ids: install pci.ids (Debian) or hwdata (others).";

#[cfg(test)]
mod tests {
    use super::*;
    use pellucid::passthrough::{Group, Ids};

    fn host() -> Inventory {
        let mut inventory = Inventory::default();
        for (address, class) in [
            ("01:00.0", 0x03_0000),
            ("01:00.1", 0x04_0300),
            ("02:00.0", 0x01_0802),
        ] {
            let bdf = address.parse().unwrap();
            let (vendor, device, revision, subsystem) = (0x10de, 0x1b81, 0, [0, 0]);
            let ids = Ids {
                vendor,
                device,
                class,
                revision,
                subsystem,
            };
            let mut function = Function::bare(bdf, ids);
            function.group = (class != 0x01_0802).then(|| Group {
                id: 2,
                members: Vec::new(),
                others: Vec::new(),
                reserved: Vec::new(),
            });
            inventory.functions.insert(bdf, function);
        }
        inventory
    }

    #[test]
    fn a_table_fits_its_terminal_and_says_once_what_several_have_in_common() {
        let text = as_text(&host(), &Names::default(), 60);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("Nothing can be lent yet: the driver vfio-pci"),
            "{text}"
        );
        assert!(
            lines.contains(&"0000:01:00.1  2      -       together  audio: 10de:1b81"),
            "{text}"
        );
        assert!(lines.contains(&"0000:01:00.0 0000:01:00.1"), "{text}");
        assert!(lines.contains(&"0000:02:00.0"), "{text}");
        assert_eq!(text.matches("to be lent to the same server").count(), 1, "{text}");
        assert!(text.contains("no IOMMU is in use for it"), "{text}");
    }

    #[test]
    fn programs_are_told_of_each_function_what_it_is_and_what_to_do() {
        let json = as_json(&host(), &Names::default());
        let row = &json["devices"][0];
        assert_eq!(
            (&row["advice"]["lend"], &row["advice"]["with"][0]),
            (&json!("together"), &json!("0000:01:00.1"))
        );
        assert_eq!(row["name"]["class"], "VGA graphics");
        assert!(json["unready"]["remedy"].as_str().unwrap().contains("modprobe"));
    }
}
