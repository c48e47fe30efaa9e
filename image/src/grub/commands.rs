//! GRUB's commands: those that decide what is booted are done, those that do something else are passed over by name, and of
//! the rest it is said that they are not known, where that matters.

use super::condition::{self, Trouble};
use super::device::{self, Key};
use super::environment;
use super::ignored::is_ignored;
use super::machine::{Flow, Machine, Outcome, Status};
use super::menu::{self, RawEntry};
use super::script::Command;
use super::{bls, load};

/// Runs a command; a word with an equals sign that is no command is an assignment.
pub(super) fn run(machine: &mut Machine<'_>, name: &str, arguments: &[String], command: &Command) -> Outcome {
    match name {
        "set" => assign(machine, arguments.first().map_or("", String::as_str))?,
        "unset" => arguments.iter().for_each(|name| machine.environment.unset(name)),
        "export" => arguments.iter().for_each(|name| machine.environment.export(name)),
        "[" | "test" => test(machine, name, arguments)?,
        "true" => {}
        "false" => machine.status = Status::False,
        "setparams" => machine.arguments = arguments.to_vec(),
        "shift" => {
            let count = number(arguments).unwrap_or(1).min(machine.arguments.len() as u32);
            machine.arguments.drain(..count as usize);
        }
        "break" => return Ok(Flow::Break(number(arguments).unwrap_or(1))),
        "continue" => return Ok(Flow::Continue(number(arguments).unwrap_or(1))),
        "return" => {
            if number(arguments).unwrap_or(0) != 0 {
                machine.status = Status::False;
            }
            return Ok(Flow::Return);
        }
        "eval" => return machine.source("eval", arguments.join(" ").as_bytes()),
        "source" | "." => return source(machine, arguments),
        "configfile" | "normal" => return configfile(machine, arguments),
        "load_env" => load_env(machine, arguments)?,
        "increment" | "decrement" => step(machine, name, arguments)?,
        "search" => device::search(machine, arguments)?,
        "search.fs_uuid" | "search_fs_uuid" => find(machine, Key::Uuid, arguments)?,
        "search.fs_label" | "search_label" => find(machine, Key::Label, arguments)?,
        "search.file" | "search.fs_file" | "search_fs_file" => find(machine, Key::File, arguments)?,
        "menuentry" | "submenu" => entry(machine, name == "submenu", arguments, command)?,
        "blscfg" | "bls_import" => bls::entries(machine, arguments)?,
        "hwmatch" => machine.environment.set("match", "0")?,
        "keystatus" => machine.status = Status::False,
        "fwsetup" if arguments.first().is_some_and(|word| word == "--is-supported") => {}
        _ if name.contains('=') && arguments.is_empty() => assign(machine, name)?,
        _ if is_ignored(name) => {}
        _ => return other(machine, name, arguments, command),
    }
    Ok(Flow::Next)
}

/// Commands that load, and those that are not known.
fn other(machine: &mut Machine<'_>, name: &str, arguments: &[String], command: &Command) -> Outcome {
    if let Some(flow) = load::run(machine, name, arguments)? {
        return Ok(flow);
    }
    machine.spend(20)?;
    let unknown = format!(
        "the command {} in line {} is not known",
        shortened(name),
        command.line
    );
    let sets = |word: &String| word.starts_with("--set") || word == "-s" || word == "-v";
    if arguments.iter().any(sets) || matches!(name, "read" | "regexp") {
        machine.doubt(&format!("{unknown} and sets a variable"));
    } else {
        machine.warn(&unknown);
    }
    machine.status = Status::Unknown(unknown);
    Ok(Flow::Next)
}

fn assign(machine: &mut Machine<'_>, word: &str) -> Result<(), String> {
    match word.split_once('=') {
        Some((name, value)) => machine.environment.set(name, value),
        None => Ok(()),
    }
}

fn test(machine: &mut Machine<'_>, name: &str, arguments: &[String]) -> Result<(), String> {
    let words = match arguments.split_last() {
        Some((last, words)) if name == "[" && last == "]" => words,
        _ => arguments,
    };
    machine.status = match condition::holds(machine, words) {
        Ok(true) => Status::True,
        Ok(false) => Status::False,
        Err(Trouble::Unknown(reason)) => Status::Unknown(reason),
        Err(Trouble::Limit(reason)) => return Err(reason),
    };
    Ok(())
}

fn source(machine: &mut Machine<'_>, arguments: &[String]) -> Outcome {
    let Some(name) = arguments.first() else {
        machine.status = Status::False;
        return Ok(Flow::Next);
    };
    let Some(content) = machine.read(name)? else {
        machine.status = Status::False;
        return Ok(Flow::Next);
    };
    let full = device::full(machine, name);
    match machine.source(&full, &content)? {
        Flow::Return => Ok(Flow::Next),
        other => Ok(other),
    }
}

/// Runs another file with only the exported variables, and shows its menu, if it has one: then nothing comes after.
pub(super) fn configfile(machine: &mut Machine<'_>, arguments: &[String]) -> Outcome {
    if machine.started.in_entry {
        machine.started.other = Some("it opens another configuration file".to_owned());
        return Ok(Flow::Stop);
    }
    let prefix = machine.environment.get("prefix").unwrap_or_default();
    let name = arguments
        .first()
        .cloned()
        .unwrap_or_else(|| format!("{prefix}/grub.cfg"));
    let Some(content) = machine.read(&name)? else {
        machine.warn(&format!("the configuration file {name} is not there"));
        machine.status = Status::False;
        return Ok(Flow::Next);
    };
    let full = device::full(machine, &name);
    let inner = machine.environment.inner();
    let outer = std::mem::replace(&mut machine.environment, inner);
    let entries = std::mem::take(&mut machine.menu);
    let directory = full
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory)
        .to_owned();
    machine.environment.set("config_file", &full)?;
    machine.environment.set("config_directory", &directory)?;
    machine.source(&full, &content)?;
    if machine.shown.is_some() {
        return Ok(Flow::Stop);
    }
    if machine.started.kernel.is_some() {
        machine.doubt("a kernel is started by the script itself, without a menu");
        return Ok(Flow::Stop);
    }
    let menu = menu::finish(machine, &full)?;
    if !menu.nodes.is_empty() {
        machine.shown = Some(menu);
        return Ok(Flow::Stop);
    }
    machine.environment = outer;
    machine.menu = entries;
    Ok(Flow::Next)
}

/// `load_env [-f FILE] [--skip-sig] [NAME]...`: the variables of an environment block, or only those that are named.
fn load_env(machine: &mut Machine<'_>, arguments: &[String]) -> Result<(), String> {
    let prefix = machine.environment.get("prefix").unwrap_or_default();
    let (mut file, mut names) = (format!("{prefix}/grubenv"), Vec::new());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-f" | "--file" => file = rest.next().cloned().unwrap_or_default(),
            _ if word.starts_with("--file=") => file = word["--file=".len()..].to_owned(),
            _ if word.starts_with('-') => {}
            _ => names.push(word.as_str()),
        }
    }
    let content = machine.read(&file)?;
    let Some(variables) = content.as_deref().and_then(environment::block) else {
        machine.status = Status::False;
        return Ok(());
    };
    for (name, value) in variables {
        if names.is_empty() || names.contains(&name.as_str()) {
            machine.environment.set(&name, &value)?;
        }
    }
    Ok(())
}

fn step(machine: &mut Machine<'_>, name: &str, arguments: &[String]) -> Result<(), String> {
    let Some(variable) = arguments.first() else {
        return Ok(());
    };
    let value: i64 = machine
        .environment
        .get(variable)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    let by = if name == "increment" { 1 } else { -1 };
    machine
        .environment
        .set(variable, &value.saturating_add(by).to_string())
}

/// `search.fs_uuid NAME [VARIABLE [HINT]...]`.
fn find(machine: &mut Machine<'_>, key: Key, arguments: &[String]) -> Result<(), String> {
    let name = arguments.first().map_or("", String::as_str);
    device::find(machine, key, name, arguments.get(1).map(String::as_str))
}

/// `menuentry TITLE [--class C] [--id ID] [ARGUMENT]... { ... }`.
fn entry(
    machine: &mut Machine<'_>,
    is_submenu: bool,
    arguments: &[String],
    command: &Command,
) -> Result<(), String> {
    machine.spend(50)?;
    let (mut id, mut plain) = (None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--id" => id = rest.next().cloned(),
            "--class" | "--users" | "--hotkey" => {
                rest.next();
            }
            _ if word.starts_with("--id=") => id = Some(word["--id=".len()..].to_owned()),
            "--unrestricted" => {}
            _ if word.starts_with("--class=")
                || word.starts_with("--users=")
                || word.starts_with("--hotkey=") => {}
            _ => plain.push(word.clone()),
        }
    }
    let Some(body) = command.block.clone() else {
        machine.warn(&format!("the entry in line {} has no body", command.line));
        return Ok(());
    };
    // Without arguments of its own an entry gets its title as the first one.
    let title = plain.first().cloned().unwrap_or_default();
    menu::add(
        machine,
        RawEntry {
            id: id.unwrap_or_else(|| title.clone()),
            title,
            body,
            arguments: plain,
            is_submenu,
        },
    )
}

fn number(arguments: &[String]) -> Option<u32> {
    arguments.first()?.parse().ok()
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}
