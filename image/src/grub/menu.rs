//! A menu that a script has made: every entry is run to see what it starts, and the default is chosen as GRUB chooses.

use super::machine::Machine;
use super::notes::shown;
use super::script::Block;
use crate::boot_file::BootFile;
use crate::boot_menu::LinuxFiles;

/// A `menuentry` or `submenu`, not run yet.
#[derive(Debug, Clone)]
pub(super) struct RawEntry {
    pub(super) title: String,
    pub(super) id: String,
    pub(super) body: Block,
    pub(super) arguments: Vec<String>,
    pub(super) is_submenu: bool,
}

/// What an entry has started, so far.
#[derive(Debug, Default)]
pub(super) struct Started {
    /// Whether an entry runs, and not the script around it.
    pub(super) in_entry: bool,
    /// Volume and path of the kernel.
    pub(super) kernel: Option<(usize, String)>,
    pub(super) initrds: Vec<(usize, String)>,
    pub(super) command_line: String,
    /// What it does in place of starting Linux.
    pub(super) other: Option<String>,
    /// Why it cannot be started.
    pub(super) problem: Option<String>,
}

/// A menu as it was shown.
#[derive(Debug)]
pub(super) struct Menu {
    /// The file that made it, with its device.
    pub(super) file: String,
    pub(super) nodes: Vec<Node>,
    /// The variable `default` at the end of the script.
    default: String,
}

/// One line of the menu.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) title: String,
    pub(super) id: String,
    pub(super) kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    /// What it starts, or why it starts nothing.
    Entry(Result<LinuxFiles, String>),
    Submenu(Vec<Node>),
}

/// An entry of any depth, with the ids and titles above it.
#[derive(Debug)]
pub(super) struct Leaf<'m> {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) files: &'m Result<LinuxFiles, String>,
}

/// Adds an entry to the menu being made.
pub(super) fn add(machine: &mut Machine<'_>, entry: RawEntry) -> Result<(), String> {
    if machine.menu.len() == MAX_ENTRIES {
        return Err(format!("its menu has more than {MAX_ENTRIES} entries"));
    }
    machine.menu.push(entry);
    Ok(())
}

/// Runs all entries of the menu that the script in `file` has made.
pub(super) fn finish(machine: &mut Machine<'_>, file: &str) -> Result<Menu, String> {
    let default = machine.environment.get("default").unwrap_or_default().to_owned();
    Ok(Menu {
        file: file.to_owned(),
        nodes: nodes(machine, 0)?,
        default,
    })
}

fn nodes(machine: &mut Machine<'_>, depth: u32) -> Result<Vec<Node>, String> {
    if depth > MAX_DEPTH {
        return Err("its submenus go deeper than 8".to_owned());
    }
    let entries = std::mem::take(&mut machine.menu);
    let mut made = Vec::with_capacity(entries.len());
    for entry in entries {
        machine.spend(200)?;
        let variables = machine.environment.clone();
        let arguments = std::mem::replace(&mut machine.arguments, entry.arguments.clone());
        let kind = if entry.is_submenu {
            machine.environment = variables.inner();
            machine.run(&entry.body)?;
            NodeKind::Submenu(nodes(machine, depth + 1)?)
        } else {
            NodeKind::Entry(start(machine, &entry)?)
        };
        machine.environment = variables;
        machine.arguments = arguments;
        made.push(Node {
            title: shown(&entry.title),
            id: shown(&entry.id),
            kind,
        });
    }
    Ok(made)
}

/// Runs one entry as if it had been chosen.
fn start(machine: &mut Machine<'_>, entry: &RawEntry) -> Result<Result<LinuxFiles, String>, String> {
    let doubts = std::mem::take(&mut machine.doubts);
    machine.started = Started {
        in_entry: true,
        ..Started::default()
    };
    machine.environment.set("chosen", &entry.id)?;
    machine.run(&entry.body)?;
    machine.menu.clear();
    let started = std::mem::take(&mut machine.started);
    let own = std::mem::replace(&mut machine.doubts, doubts);
    if let Some(reason) = own.into_iter().next().or(started.other).or(started.problem) {
        return Ok(Err(shown(&reason)));
    }
    let Some((volume, path)) = started.kernel else {
        return Ok(Err("it starts no kernel".to_owned()));
    };
    let volumes = machine.volumes.volumes();
    let file = |(volume, path): &(usize, String)| {
        volumes
            .get(*volume)
            .map(|found| BootFile::new(found.volume, path))
    };
    let kernel = file(&(volume, path)).ok_or("a volume went away")?;
    Ok(Ok(LinuxFiles {
        kernel,
        initrds: started.initrds.iter().filter_map(file).collect(),
        command_line: started.command_line,
    }))
}

impl Menu {
    /// All entries, those of submenus in their place.
    pub(super) fn leaves(&self) -> Vec<Leaf<'_>> {
        let mut found = Vec::new();
        collect(&self.nodes, "", "", &mut found);
        found
    }

    /// The place among the leaves of the entry that GRUB would start, and why it; an error is why there is none.
    pub(super) fn chosen(&self) -> Result<(usize, String), String> {
        let (mut nodes, mut wanted, mut before) = (&self.nodes, self.default.as_str(), 0);
        let (_, why) = position(nodes, wanted);
        loop {
            let (index, _) = position(nodes, wanted);
            let Some(node) = nodes.get(index) else {
                return Err("the default of GRUB's menu is a submenu without an entry".to_owned());
            };
            before += nodes.iter().take(index).map(Node::leaves).sum::<usize>();
            match &node.kind {
                NodeKind::Submenu(inner) => (nodes, wanted) = (inner, split(wanted).1),
                NodeKind::Entry(_) => return Ok((before, why)),
            }
        }
    }
}

impl Node {
    /// How many entries it stands for.
    fn leaves(&self) -> usize {
        match &self.kind {
            NodeKind::Entry(_) => 1,
            NodeKind::Submenu(inner) => inner.iter().map(Self::leaves).sum(),
        }
    }
}

fn collect<'m>(nodes: &'m [Node], ids: &str, titles: &str, found: &mut Vec<Leaf<'m>>) {
    for node in nodes {
        let (id, title) = (format!("{ids}{}", node.id), format!("{titles}{}", node.title));
        match &node.kind {
            NodeKind::Submenu(inner) => collect(inner, &format!("{id}>"), &format!("{title} > "), found),
            NodeKind::Entry(files) => found.push(Leaf { id, title, files }),
        }
    }
}

/// Which line of a menu the variable `default` means: a number, an id or a title, of which only what is before `>` counts here.
/// What is out of range or matches nothing means the first.
fn position(nodes: &[Node], wanted: &str) -> (usize, String) {
    let (first, _) = split(wanted);
    if first.is_empty() {
        return (0, "the first entry of GRUB's menu".to_owned());
    }
    let matches = |node: &Node| node.title == first || node.id == first;
    let why = format!("the default of GRUB's menu ({wanted})");
    if let Ok(number) = first.parse::<usize>() {
        if number < nodes.len() {
            return (number, why);
        }
    } else if let Some(index) = nodes.iter().position(matches) {
        return (index, why);
    }
    (
        0,
        format!("the first entry of GRUB's menu, since no entry is its default ({wanted})"),
    )
}

/// The parts before and behind the first `>` that is not doubled; a doubled one in the first part is one.
fn split(wanted: &str) -> (String, &str) {
    let mut first = String::new();
    let mut rest = wanted.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c == '>' && rest.next_if(|&(_, next)| next == '>').is_none() {
            return (first, &wanted[at + 1..]);
        }
        first.push(c);
    }
    (first, "")
}

const MAX_ENTRIES: usize = 512;
const MAX_DEPTH: u32 = 8;
