//! Boot loader entries: what is read from their text and from their names, and which comes first in the menu.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use pellucid_image::{EntryKind, LoaderEntry};
use support::{DiskRecipe, plan};

fn parse(content: &str) -> LoaderEntry {
    LoaderEntry::parse("Debian.conf", content.as_bytes()).unwrap()
}

fn tries(name: &str) -> (Option<u32>, Option<u32>) {
    let entry = LoaderEntry::parse(name, b"linux /x").unwrap();
    (entry.tries_left, entry.tries_done)
}

/// The menu of a disk with these entries: name and lines.
fn menu(entries: &[(&str, &str)]) -> Vec<String> {
    let recipe = entries
        .iter()
        .fold(DiskRecipe::default(), |recipe, (name, lines)| {
            recipe.entry(name, lines)
        });
    plan(&recipe.build())
        .unwrap()
        .menu
        .entries
        .into_iter()
        .map(|entry| entry.id)
        .collect()
}

#[test]
fn the_last_of_a_single_key_and_all_of_a_repeated_key_count() {
    let entry =
        parse("title A\ntitle B\nlinux /a\nlinux /b\ninitrd /1\ninitrd /2\noptions x\noptions y  z\n");
    assert_eq!((entry.shown_title(), entry.kernel.as_str()), ("B", "\\b"));
    assert_eq!(entry.initrds, ["\\1", "\\2"]);
    assert_eq!(entry.command_line(), "initrd=\\1 initrd=\\2 x y  z");
}

#[test]
fn an_entry_without_options_or_initrds_has_the_command_line_that_is_left() {
    assert_eq!(parse("linux /a\ninitrd /i").command_line(), "initrd=\\i");
    assert_eq!(parse("linux /a\noptions quiet").command_line(), "quiet");
    assert_eq!(parse("linux /a").command_line(), "");
}

#[test]
fn paths_become_efi_paths() {
    for (written, read) in [
        ("/a//b/c", "\\a\\b\\c"),
        ("a/b", "a\\b"),
        ("\\a\\\\b", "\\a\\b"),
        ("/a\\/b", "\\a\\b"),
        ("/", "\\"),
    ] {
        assert_eq!(parse(&format!("linux {written}")).kernel, read, "{written}");
    }
}

#[test]
fn a_title_is_the_files_name_where_there_is_none() {
    let entry = parse("linux /a");
    assert_eq!(
        (entry.id.as_str(), entry.shown_title()),
        ("debian.conf", "debian.conf")
    );
}

#[test]
fn what_boots_nothing_here_is_no_entry() {
    assert!(LoaderEntry::parse("a.conf", b"title A\noptions x\n").is_none());
    assert!(LoaderEntry::parse("a.conf", b"linux /a\narchitecture aa64\n").is_none());
    assert!(LoaderEntry::parse("a.conf", b"").is_none());
    assert_eq!(parse("linux /a\nefi /b").kind, EntryKind::EfiProgram);
    assert_eq!(parse("efi /b\nlinux /a").kind, EntryKind::Linux);
}

#[test]
fn boot_attempts_are_read_from_the_name_as_the_loader_reads_them() {
    for (name, expected) in [
        ("a.conf", (None, None)),
        ("a+3.conf", (Some(3), Some(0))),
        ("a+3-2.conf", (Some(3), Some(2))),
        ("6.1+deb12+0-4.conf", (Some(0), Some(4))),
        ("a+.conf", (None, None)),
        ("a+3-.conf", (None, None)),
        ("a+3x.conf", (None, None)),
        ("a+3-2-1.conf", (None, None)),
        ("a+-3.conf", (None, None)),
        ("a+4294967295.conf", (None, None)),
        ("a+3.conf.conf", (None, None)),
    ] {
        assert_eq!(tries(name), expected, "{name}");
    }
}

#[test]
fn sort_keys_come_before_names_and_installations_stay_together() {
    let order = menu(&[
        ("z.conf", ""),
        ("1.conf", "sort-key debian\nmachine-id b\nversion 9"),
        ("2.conf", "sort-key debian\nmachine-id a\nversion 1"),
        ("3.conf", "sort-key debian\nmachine-id a\nversion 2"),
        ("4.conf", "sort-key debian\nversion 3"),
        ("5.conf", "sort-key arch\nmachine-id z"),
    ]);
    assert_eq!(
        order,
        ["5.conf", "4.conf", "3.conf", "2.conf", "1.conf", "z.conf"]
    );
}

#[test]
fn without_sort_keys_the_newest_name_comes_first() {
    let order = menu(&[
        ("debian-6.1.0-9.conf", ""),
        ("debian-6.1.0-10.conf", ""),
        ("debian-6.1.0-10~rc1.conf", ""),
    ]);
    assert_eq!(
        order,
        [
            "debian-6.1.0-10.conf",
            "debian-6.1.0-10~rc1.conf",
            "debian-6.1.0-9.conf"
        ]
    );
}

#[test]
fn an_entry_without_attempts_left_comes_last_whatever_its_version() {
    let order = menu(&[
        ("a+0-3.conf", "sort-key a\nversion 9"),
        ("a+2-1.conf", "sort-key a\nversion 8"),
        ("b.conf", ""),
    ]);
    assert_eq!(order, ["a+2-1.conf", "b.conf", "a+0-3.conf"]);
}
