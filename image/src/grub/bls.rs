//! `blscfg`, as Fedora and its relatives have it: boot loader entries become menu entries, newest first.
//!
//! Source: grub-core/commands/blscfg.c of Fedora's GRUB: the order is that of package names, versions and releases as RPM compares them.

use std::cmp::Ordering;

use super::device;
use super::machine::{Machine, Status};
use super::menu::{self, RawEntry};
use super::script::parse;
use crate::entries::key_values;

/// Adds the entries of `loader/entries` on `$boot`, else on `$root`, and of `$blsdir` where that is set.
pub(super) fn entries(machine: &mut Machine<'_>, arguments: &[String]) -> Result<(), String> {
    let environment = &machine.environment;
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let device = set("boot").or(set("root")).unwrap_or_default();
    let directory = match arguments.first() {
        Some(name) if name.starts_with('(') || name.starts_with('/') => device::full(machine, name),
        Some(_) => {
            machine.doubt("blscfg is asked for something other than a directory");
            return Ok(());
        }
        None => format!("({device}){}", set("blsdir").unwrap_or("/loader/entries")),
    };
    let directory = directory.trim_end_matches('/').to_owned();
    machine.spend(1000)?;
    let Some((volume, path)) = device::locate(machine, &directory) else {
        machine.status = Status::False;
        return Ok(());
    };
    let listed = machine.volumes.list(volume, &path);
    let mut names = listed.unwrap_or_else(|error| {
        machine.doubt(&format!("{directory} cannot be read: {error}"));
        Vec::new()
    });
    names.retain(|name| name.ends_with(".conf") && !name.starts_with('.') && name.len() > 5);
    if names.is_empty() {
        machine.status = Status::False;
    }
    if names.len() > MAX_ENTRIES {
        return Err(format!("{directory} has more than {MAX_ENTRIES} entries"));
    }
    names.sort_by(|a, b| compare_packages(stem(b), stem(a)));
    for name in names {
        if let Some(content) = machine.read(&format!("{directory}/{name}"))? {
            add(machine, stem(&name), &content)?;
        }
    }
    Ok(())
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".conf").unwrap_or(name)
}

/// Makes the script that GRUB makes of an entry: `linux` and `initrd` with `$root` in front of the paths.
fn add(machine: &mut Machine<'_>, id: &str, content: &[u8]) -> Result<(), String> {
    let lines = key_values(content);
    let values = |key: &'static str| {
        lines
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    };
    let Some(kernel) = values("linux").next() else {
        return Ok(());
    };
    let options: Vec<&str> = values("options").collect();
    let options = match options.is_empty() {
        true => machine
            .environment
            .get("default_kernelopts")
            .unwrap_or_default()
            .to_owned(),
        false => options.join(" "),
    };
    let mut script = format!("linux ($root){kernel} {options}\n");
    let early = machine.environment.get("early_initrd").unwrap_or_default();
    let words = values("initrd").flat_map(str::split_whitespace);
    let words = early
        .split_whitespace()
        .chain(words)
        .map(|word| match word.strip_prefix('$') {
            Some(name) => machine
                .environment
                .get(name.trim_matches(['{', '}']))
                .unwrap_or_default(),
            None => word,
        });
    let initrds: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(|word| format!("($root){word}"))
        .collect();
    if !initrds.is_empty() {
        script += &format!("initrd {}\n", initrds.join(" "));
    }
    let body = match parse(&script) {
        Ok(body) => body,
        Err(error) => {
            machine.doubt(&format!("the loader entry {id} cannot be read: {error}"));
            return Ok(());
        }
    };
    let title = values("title").next().unwrap_or(id).to_owned();
    machine.spend(script.len() as u32 / 64 + 50)?;
    menu::add(
        machine,
        RawEntry {
            arguments: vec![title.clone()],
            title,
            id: id.to_owned(),
            body,
            is_submenu: false,
        },
    )
}

/// Names, then versions, then releases: the last part behind a dash is the release, the one before it the version.
fn compare_packages(a: &str, b: &str) -> Ordering {
    let parts = |text: &'_ str| -> [String; 3] {
        let mut parts: Vec<String> = text.rsplitn(3, '-').map(str::to_owned).collect();
        parts.reverse();
        parts.resize(3, String::new());
        [parts.remove(0), parts.remove(0), parts.remove(0)]
    };
    let (a, b) = (parts(a), parts(b));
    let compared = a.iter().zip(&b).map(|(a, b)| compare_rpm(a, b));
    compared.fold(Ordering::Equal, Ordering::then)
}

/// RPM's order of versions: runs of digits and of letters, digits newer than letters, `~` older than nothing.
fn compare_rpm(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let separates = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'~';
        (a, b) = (skip(a, separates), skip(b, separates));
        match (a.strip_prefix(b"~"), b.strip_prefix(b"~")) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        let (Some(first), Some(second)) = (a.first(), b.first()) else {
            return a.len().min(1).cmp(&b.len().min(1));
        };
        if first.is_ascii_digit() != second.is_ascii_digit() {
            return first.is_ascii_digit().cmp(&second.is_ascii_digit());
        }
        let same =
            |byte: &u8| byte.is_ascii_alphanumeric() && byte.is_ascii_digit() == first.is_ascii_digit();
        let (rest_a, rest_b) = (skip(a, same), skip(b, same));
        let (run_a, run_b) = (&a[..a.len() - rest_a.len()], &b[..b.len() - rest_b.len()]);
        let order = if first.is_ascii_digit() {
            let (run_a, run_b) = (
                skip(run_a, |&byte| byte == b'0'),
                skip(run_b, |&byte| byte == b'0'),
            );
            run_a.len().cmp(&run_b.len()).then_with(|| run_a.cmp(run_b))
        } else {
            run_a.cmp(run_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn skip(text: &[u8], belongs: impl Fn(&u8) -> bool) -> &[u8] {
    let end = text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len());
    &text[end..]
}

const MAX_ENTRIES: usize = 512;
