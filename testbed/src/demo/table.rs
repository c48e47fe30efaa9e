//! The demo's result as a table: one column per boot, one row per finding, every row that should be the same and
//! is not marked.

use super::questions::Findings;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    name: &'static str,
    cells: Vec<String>,
    verdict: Verdict,
}

/// What a row's cells mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// They only inform.
    Told,
    /// They are equal, as they should be.
    Same,
    /// They should be equal and are not.
    Differs,
    /// They are as they should be.
    Holds,
    /// They are not.
    Fails,
}

impl Row {
    /// A row that only informs.
    pub(crate) fn told(name: &'static str, cells: impl IntoIterator<Item = String>) -> Row {
        Row {
            name,
            cells: cells.into_iter().collect(),
            verdict: Verdict::Told,
        }
    }

    /// A row whose cells must be equal and not empty.
    pub(crate) fn same(name: &'static str, cells: impl IntoIterator<Item = String>) -> Row {
        let cells: Vec<String> = cells.into_iter().collect();
        let same = cells.iter().all(|cell| *cell == cells[0] && !cell.is_empty());
        Row {
            name,
            cells,
            verdict: if same { Verdict::Same } else { Verdict::Differs },
        }
    }

    /// A row that holds or does not.
    pub(crate) fn judged(name: &'static str, cells: impl IntoIterator<Item = String>, holds: bool) -> Row {
        let verdict = if holds { Verdict::Holds } else { Verdict::Fails };
        Row {
            name,
            cells: cells.into_iter().collect(),
            verdict,
        }
    }

    /// Whether the row is as it should be.
    pub(crate) fn holds(&self) -> bool {
        !matches!(self.verdict, Verdict::Differs | Verdict::Fails)
    }

    /// A cell as it is shown: equal ones need not be told apart to the last letter.
    fn shown(&self, column: usize) -> String {
        let cell = self.cells.get(column).map_or("", String::as_str);
        if self.verdict != Verdict::Same || cell.chars().count() <= WIDEST {
            return cell.to_owned();
        }
        cell.chars().take(WIDEST - 1).chain(['…']).collect()
    }
}

/// The rows that compare what was found at each boot. `exits` are those of the second boot, the logical server's,
/// one number for each vCPU.
pub(crate) fn compare(boots: &[Findings], exits: &[u64]) -> Vec<Row> {
    let cells = |cell: &dyn Fn(&Findings) -> String| boots.iter().map(cell).collect::<Vec<_>>();
    let none_failed = boots.iter().all(|found| found.failed.is_empty());
    let counts: Vec<_> = exits.iter().map(u64::to_string).collect();
    let exits = (0..boots.len()).map(|index| if index == 1 { counts.join(" ") } else { "-".into() });
    vec![
        Row::same("kernel", cells(&|found| found.kernel.clone())),
        Row::same("CPUs", cells(&|found| found.cpus.clone())),
        Row::told("init after, s", cells(&|found| found.init.clone())),
        Row::told("boot complete after, s", cells(&|found| found.boot.clone())),
        Row::same("root device", cells(&|found| found.root.clone())),
        Row::same("root UUID", cells(&|found| found.root_uuid.clone())),
        Row::same("its NVMe serial", cells(&|found| found.serial.clone())),
        Row::same("its controller", cells(&|found| found.controller.clone())),
        Row::same("behind root port", cells(&|found| found.parent.clone())),
        Row::same("network", cells(&|found| list(&found.nics))),
        Row::judged("failed units", cells(&|found| list(&found.failed)), none_failed),
        Row::told("exits per vCPU", exits),
    ]
}

/// Renders rows under `titles`, columns aligned, the verdict of each row behind it.
pub(crate) fn render(titles: &[&str], rows: &[Row]) -> String {
    let head = Row::told("", titles.iter().map(|&title| title.to_owned()));
    let lines: Vec<&Row> = std::iter::once(&head).chain(rows).collect();
    let columns = lines.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let widest = |texts: &dyn Fn(&Row) -> String| {
        lines
            .iter()
            .map(|row| texts(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let name = widest(&|row| row.name.to_owned());
    let widths: Vec<usize> = (0..columns)
        .map(|column| widest(&|row| row.shown(column)))
        .collect();
    let mut text = String::new();
    for row in &lines {
        let mut line = format!("{:name$}", row.name);
        for (column, width) in widths.iter().enumerate() {
            line.push_str(&format!("  {:width$}", row.shown(column)));
        }
        line.push_str(match row.verdict {
            Verdict::Told => "",
            Verdict::Same => "  same",
            Verdict::Differs => "  DIFFERS",
            Verdict::Holds => "  ok",
            Verdict::Fails => "  FAILED",
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        "none".into()
    } else {
        items.join(", ")
    }
}

/// The most letters of a cell that equals its neighbours.
const WIDEST: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Findings {
        Findings {
            kernel: "6.1.0".into(),
            cpus: "2".into(),
            root: "/dev/nvme0n1p2".into(),
            root_uuid: "b2d4f0a6-3c58-4e7b-9a11-7d60c2e8f514".into(),
            serial: "S1".into(),
            controller: "0000:01:00.0".into(),
            parent: "0000:00:02.0".into(),
            ..Findings::default()
        }
    }

    #[test]
    fn equal_boots_hold_in_every_row() {
        let rows = compare(&[found(), found(), found()], &[1234, 99]);
        assert!(rows.iter().all(Row::holds));
        let text = render(&["physical", "logical", "physical again"], &rows);
        let kernel = text
            .lines()
            .find(|line| line.starts_with("kernel"))
            .expect("kernel");
        assert!(kernel.ends_with("same"), "{kernel}");
        let exits = text
            .lines()
            .find(|line| line.starts_with("exits"))
            .expect("exits");
        assert!(exits.contains("1234 99") && !exits.contains("same"), "{exits}");
    }

    #[test]
    fn each_difference_is_marked_in_its_own_row() {
        let moved = Findings {
            controller: "0000:00:04.0".into(),
            ..found()
        };
        let rows = compare(&[found(), moved, found()], &[]);
        let text = render(&["a", "b", "c"], &rows);
        let marked: Vec<&str> = text.lines().filter(|line| line.ends_with("DIFFERS")).collect();
        assert_eq!(marked.len(), 1, "{text}");
        assert!(marked[0].starts_with("its controller"), "{text}");
    }

    #[test]
    fn a_failed_unit_is_named_and_fails_its_row() {
        let broken = Findings {
            failed: vec!["nginx.service".into()],
            ..found()
        };
        let rows = compare(&[found(), broken, found()], &[]);
        let failed: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].cells.contains(&"nginx.service".into()));
    }

    #[test]
    fn equal_cells_are_shortened_and_different_ones_are_not() {
        let text = |uuid: &str| {
            let other = Findings {
                root_uuid: uuid.into(),
                ..found()
            };
            render(&["a", "b"], &compare(&[found(), other], &[]))
        };
        assert!(text("b2d4f0a6-3c58-4e7b-9a11-7d60c2e8f514").contains("b2d4f0a6-3c58-4e7b-9a11…"));
        assert!(text("b2d4f0a6-3c58-4e7b-9a11-7d60c2e8f515").contains("7d60c2e8f515"));
    }

    #[test]
    fn answers_that_are_all_missing_do_not_count_as_the_same() {
        assert!(!Row::same("x", [String::new(), String::new()]).holds());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            Row::told("a", ["1".into(), "22".into()]),
            Row::told("bb", ["333".into(), "4".into()]),
        ];
        assert_eq!(
            render(&["x", "y"], &rows),
            "    x    y\na   1    22\nbb  333  4\n"
        );
    }
}
