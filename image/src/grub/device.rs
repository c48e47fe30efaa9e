//! GRUB's names of devices and files: `(hd0,gpt2)/boot/grub.cfg`, and the search for a device by what is on it.

use super::machine::{Machine, Status};

/// The volume and the path on it that a file's name means; without a device it is on `$root`.
pub(super) fn locate(machine: &Machine<'_>, name: &str) -> Option<(usize, String)> {
    let (device, path) = match name.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?,
        None => (machine.environment.get("root")?, name),
    };
    Some((volume(machine, device)?, path.to_owned()))
}

/// A file's name with its device, as GRUB keeps it.
pub(super) fn full(machine: &Machine<'_>, name: &str) -> String {
    if name.starts_with('(') {
        return name.to_owned();
    }
    format!("({}){name}", machine.environment.get("root").unwrap_or_default())
}

/// The volume with this device name. `hd0,2` means the second partition of whatever table there is.
pub(super) fn volume(machine: &Machine<'_>, device: &str) -> Option<usize> {
    let device = device.trim_start_matches('(').trim_end_matches(')');
    let number = |name: &str| -> Option<u32> {
        let (disk, partition) = name.split_once(',')?;
        let partition = partition.trim_start_matches("gpt").trim_start_matches("msdos");
        (disk == "hd0").then(|| partition.parse().ok())?
    };
    let volumes = machine.volumes.volumes();
    let exact = volumes.iter().position(|volume| volume.device == device);
    let plain = device
        .split_once(',')
        .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    exact.or_else(|| {
        volumes
            .iter()
            .position(|volume| plain && number(&volume.device) == number(device))
    })
}

/// What `search` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    File,
    Label,
    Uuid,
}

/// `search`: sets a variable to the first device that has what is asked for.
pub(super) fn search(machine: &mut Machine<'_>, arguments: &[String]) -> Result<(), String> {
    let (mut key, mut variable, mut name) = (Key::File, None, None);
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        match word {
            "-f" | "--file" => key = Key::File,
            "-l" | "--label" => key = Key::Label,
            "-u" | "--fs-uuid" => key = Key::Uuid,
            "-s" | "--set" => {
                // The name is optional when more follows that is no option.
                let next = rest.peek().copied().filter(|next| !next.starts_with('-'));
                let has_more = rest.clone().skip(1).any(|word| !word.starts_with('-'));
                variable = Some(match next {
                    Some(next) if has_more || name.is_some() => {
                        rest.next();
                        next.to_owned()
                    }
                    _ => "root".to_owned(),
                });
            }
            "-h" | "--hint" => {
                rest.next();
            }
            _ if word.starts_with("--set=") => variable = word.strip_prefix("--set=").map(str::to_owned),
            _ if word.starts_with('-') => {}
            _ => name = name.or(Some(word.to_owned())),
        }
    }
    let Some(name) = name else {
        machine.status = Status::False;
        return Ok(());
    };
    find(machine, key, &name, variable.as_deref())
}

/// Sets `variable` to the device that has `name`. None found is the command's failure, and the variable stays.
pub(super) fn find(
    machine: &mut Machine<'_>,
    key: Key,
    name: &str,
    variable: Option<&str>,
) -> Result<(), String> {
    let volumes = machine.volumes.volumes().to_vec();
    for volume in &volumes {
        let is_it = match key {
            Key::Label => volume.label == name,
            Key::Uuid => !name.is_empty() && volume.uuid.eq_ignore_ascii_case(name),
            Key::File => {
                let path = name.trim_start_matches('/');
                machine.look(&format!("({})/{path}", volume.device))?.is_some()
            }
        };
        if is_it {
            return match variable {
                Some(variable) => machine.environment.set(variable, &volume.device),
                None => Ok(()),
            };
        }
    }
    machine.warn(&format!(
        "search found no file system with {name} on this disk that can be read (FAT and ext2 to ext4 can)"
    ));
    machine.status = Status::False;
    Ok(())
}
