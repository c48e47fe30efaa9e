//! A diff as one page of HTML that needs nothing else: both PCI trees side by side, names, and every difference with its reason.
//! All text of the twins is foreign and escaped.

mod tree;

use std::fmt::Write;

use crate::diff::{Class, Diff, NameRow, Pairs, Side};
use crate::twin::Twin;
use tree::Tree;

impl Diff {
    /// The page. `titles` say which machines these are, for example the names of their files.
    #[must_use]
    pub fn html(&self, before: &Twin, after: &Twin, titles: [&str; 2]) -> String {
        let mut page = String::new();
        let [one, other] = titles.map(escaped);
        page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
        page.push_str(&format!(
            "<title>{one} and {other}</title>\n<style>{STYLE}</style></head><body>\n"
        ));
        page.push_str(&format!(
            "<h1>The same machine?</h1>\n<p class=\"verdict {}\">{}</p>\n",
            token(self.worst()),
            verdict(self)
        ));
        page.push_str("<p class=\"counts\">");
        for class in Class::ALL {
            page.push_str(&format!(
                "<span class=\"chip {}\">{} {class}</span> ",
                token(class),
                self.count(class)
            ));
        }
        page.push_str("</p>\n");
        self.names_table(&mut page);
        let pairs = Pairs::of(before, after);
        page.push_str("<h2>PCI trees</h2>\n<div class=\"trees\">\n");
        for (title, tree) in [
            (&one, Tree::before(before, self)),
            (&other, Tree::after(before, after, (self, &pairs))),
        ] {
            page.push_str(&format!("<section><h3>{title}</h3>\n"));
            tree.draw(&mut page);
            page.push_str("</section>\n");
        }
        page.push_str("</div>\n");
        self.table(&mut page);
        self.rest(&mut page, before, after);
        page.push_str("</body></html>\n");
        page
    }

    fn names_table(&self, page: &mut String) {
        if self.names.is_empty() {
            return;
        }
        page.push_str(&format!(
            "<h2>Network interfaces</h2>\n<p>Names as systemd gives them by the scheme {} and its default policy.</p>\n",
            escaped(&self.scheme.to_string())
        ));
        page.push_str("<table class=\"names\"><thead><tr><th>interface</th><th>before</th><th>after</th></tr></thead><tbody>\n");
        for row in &self.names {
            let class = name_class(row);
            page.push_str(&format!(
                "<tr class=\"{}\"><td>{}</td><td data-head=\"before\">{}</td><td data-head=\"after\">{}</td></tr>\n",
                token(class),
                escaped(&row.nic),
                side(row.before.as_ref()),
                side(row.after.as_ref())
            ));
        }
        page.push_str("</tbody></table>\n");
    }

    fn table(&self, page: &mut String) {
        page.push_str("<h2>Differences</h2>\n");
        for class in Class::ALL {
            let of_class = self
                .differences
                .iter()
                .filter(|difference| difference.class == class);
            let all: Vec<_> = of_class.collect();
            if all.is_empty() {
                continue;
            }
            let open = if class > Class::Cosmetic { " open" } else { "" };
            page.push_str(&format!(
                "<details{open}><summary class=\"{}\">{class}: {}</summary>\n<table><thead><tr><th>what</th><th>before</th><th>after</th><th>why</th></tr></thead><tbody>\n",
                token(class),
                all.len()
            ));
            for difference in all {
                let value =
                    |value: &Option<String>| value.as_deref().map_or("<i>not there</i>".to_owned(), escaped);
                // Writing to a String does not fail.
                let written = writeln!(
                    page,
                    "<tr><td>{}: {}</td><td data-head=\"before\">{}</td><td data-head=\"after\">{}</td><td>{}</td></tr>",
                    escaped(&difference.part),
                    escaped(&difference.subject),
                    value(&difference.before),
                    value(&difference.after),
                    escaped(&difference.why)
                );
                debug_assert!(written.is_ok());
            }
            page.push_str("</tbody></table></details>\n");
        }
        if self.differences.is_empty() {
            page.push_str("<p>None.</p>\n");
        }
    }

    /// What is not known.
    fn rest(&self, page: &mut String, before: &Twin, after: &Twin) {
        let mut lines: Vec<String> = self
            .uncompared
            .iter()
            .map(|what| format!("not compared: {what}"))
            .collect();
        for (which, twin) in [("before", before), ("after", after)] {
            lines.extend(
                twin.notes
                    .iter()
                    .map(|note| format!("{which}, {}: {}", note.part, note.what)),
            );
        }
        if lines.is_empty() {
            return;
        }
        page.push_str("<h2>Not known</h2>\n<ul>\n");
        for line in lines {
            page.push_str(&format!("<li>{}</li>\n", escaped(&line)));
        }
        page.push_str("</ul>\n");
    }
}

fn verdict(diff: &Diff) -> &'static str {
    match diff.worst() {
        Class::None => "An operating system finds the same machine.",
        Class::Cosmetic => "An operating system runs as before; it can see that something differs.",
        Class::LicenceRisk => "An operating system runs as before; licences may not.",
        Class::ChangesName => {
            "Something gets another name: what is configured by the old one does not apply."
        }
        Class::BreaksBoot => "An operating system may not start.",
    }
}

pub(super) fn name_class(row: &NameRow) -> Class {
    match (&row.before, &row.after) {
        (Some(before), Some(after)) if before.name() == after.name() => Class::None,
        (None, _) => Class::Cosmetic,
        _ => Class::ChangesName,
    }
}

fn side(side: Option<&Side>) -> String {
    let Some(side) = side else {
        return "<i>not there</i>".to_owned();
    };
    let mut text = format!("<b>{}</b>", escaped(side.name()));
    if !side.names.why.is_empty() {
        text.push_str(&format!(" <small>{}</small>", escaped(&side.names.why)));
    }
    if side.current != side.name() {
        text.push_str(&format!(
            " <small>(in the capture: {})</small>",
            escaped(&side.current)
        ));
    }
    text
}

/// The class as a name in the style sheet.
fn token(class: Class) -> &'static str {
    match class {
        Class::None => "none",
        Class::Cosmetic => "cosmetic",
        Class::LicenceRisk => "licence",
        Class::ChangesName => "name",
        Class::BreaksBoot => "boot",
    }
}

/// Text that is nothing but text in HTML, within tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

const STYLE: &str = include_str!("report/style.css");
