//! A comparison for people.

use pellucid::twin::{Class, Diff, NameRow, Side};

/// Names first, then differences, the worst first.
pub(super) fn text(diff: &Diff, explain: bool) -> String {
    let mut text = String::new();
    for row in &diff.names {
        text.push_str(&format!("{:<17}  {}\n", row.nic, names(row)));
    }
    if !diff.names.is_empty() {
        text.push_str(&format!("names by systemd's scheme {}\n\n", diff.scheme));
    }
    for difference in &diff.differences {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not there".to_owned());
        text.push_str(&format!(
            "{:<14}  {} {}: {} -> {}\n",
            difference.class,
            difference.part,
            difference.subject,
            value(&difference.before),
            value(&difference.after)
        ));
        if explain {
            text.push_str(&format!("{:16}{}\n", "", difference.why));
        }
    }
    for what in &diff.uncompared {
        text.push_str(&format!("not compared    {what}\n"));
    }
    let counts = Class::ALL.map(|class| format!("{} {class}", diff.count(class)));
    text.push_str(&format!("worst: {} ({})\n", diff.worst(), counts.join(", ")));
    text
}

fn names(row: &NameRow) -> String {
    let side = |side: Option<&Side>| match side {
        None => "not there".to_owned(),
        Some(side) if side.names.why.is_empty() => side.name().to_owned(),
        Some(side) => format!("{} ({})", side.name(), side.names.why),
    };
    let (before, after) = (side(row.before.as_ref()), side(row.after.as_ref()));
    if before == after {
        before
    } else {
        format!("{before} -> {after}")
    }
}
