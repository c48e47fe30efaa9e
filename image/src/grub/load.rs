//! The commands that put a kernel into memory: which files, and which command line it gets.

use super::device;
use super::machine::{Flow, Machine, Status};

/// Runs a loading command; `None` when `name` is none.
pub(super) fn run(
    machine: &mut Machine<'_>,
    name: &str,
    arguments: &[String],
) -> Result<Option<Flow>, String> {
    match name {
        "linux" | "linux16" | "linuxefi" => linux(machine, arguments)?,
        "initrd" | "initrd16" | "initrdefi" => initrd(machine, arguments)?,
        "boot" => return Ok(Some(Flow::Stop)),
        "chainloader" | "multiboot" | "multiboot2" | "module" | "module2" | "xen_hypervisor"
        | "xen_module" | "ntldr" | "freedos" | "plan9" | "appleloader" | "kfreebsd" | "knetbsd"
        | "kopenbsd" | "xnu_kernel64" | "efiload" => {
            let file = arguments.iter().find(|word| !word.starts_with('-'));
            let file = file.map_or("something", String::as_str);
            machine.started.other = Some(format!(
                "it starts {file} by {name}, which needs firmware or another loader"
            ));
        }
        "halt" | "reboot" | "fwsetup" | "exit" | "normal_exit" => {
            if machine.started.in_entry {
                machine.started.other = Some(format!("it boots nothing ({name})"));
            } else if name != "normal_exit" {
                machine.doubt(&format!("the script itself ends in {name}"));
            }
            return Ok(Some(Flow::Stop));
        }
        _ => return Ok(None),
    }
    Ok(Some(Flow::Next))
}

fn linux(machine: &mut Machine<'_>, arguments: &[String]) -> Result<(), String> {
    let Some(file) = arguments.first() else {
        machine.status = Status::False;
        return Ok(());
    };
    // Another kernel than before: what was wrong with that one is over.
    machine.started.problem = None;
    let found = exists(machine, file)?;
    machine.started.initrds.clear();
    machine.started.kernel = found;
    machine.started.command_line = command_line(arguments);
    Ok(())
}

fn initrd(machine: &mut Machine<'_>, arguments: &[String]) -> Result<(), String> {
    let mut initrds = Vec::new();
    for file in arguments {
        if file.starts_with("newc:") {
            machine.started.problem = Some(format!("it puts {file} into the initrd, which is not done here"));
            return Ok(());
        }
        initrds.extend(exists(machine, file)?);
    }
    if initrds.len() > MAX_INITRDS {
        machine.started.problem = Some(format!("it names more than {MAX_INITRDS} initrds"));
        return Ok(());
    }
    machine.started.initrds = initrds;
    Ok(())
}

/// The file's volume and path. One that is missing is the entry's problem, the first of them.
fn exists(machine: &mut Machine<'_>, file: &str) -> Result<Option<(usize, String)>, String> {
    let found = machine.look(file)?;
    let place = device::locate(machine, file);
    if let (Some(Some(_)), Some(place)) = (found, place) {
        return Ok(Some(place));
    }
    let full = device::full(machine, file);
    let problem = format!("it names {full}, which is missing (or on a file system or disk that is not read)");
    machine.started.problem.get_or_insert(problem);
    machine.status = Status::False;
    Ok(None)
}

/// `BOOT_IMAGE=` and the words as GRUB gives them to a kernel: blanks get quotes, quotes and backslashes a backslash.
fn command_line(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("BOOT_IMAGE={}", quoted.join(" "))
}

fn quote(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word.char_indices();
    while let Some((at, c)) = rest.next() {
        // `\x20` and its like stay as they are.
        let code = word.get(at..at + 4).is_some_and(|code| {
            code.starts_with("\\x") && code[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if code {
            text.push_str(&word[at..at + 4]);
            rest.by_ref().take(3).for_each(drop);
            continue;
        }
        if matches!(c, '\\' | '\'' | '"') {
            text.push('\\');
        }
        text.push(c);
    }
    if word.contains(' ') {
        format!("\"{text}\"")
    } else {
        text
    }
}

const MAX_INITRDS: usize = 64;
