//! Which entry of a boot menu is booted: the one that the disk's own boot loader would take.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use support::{DiskRecipe, plan};

fn chosen(recipe: DiskRecipe) -> String {
    plan(&recipe.build()).unwrap().entry_id
}

#[test]
fn without_a_default_the_first_entry_of_the_menu_is_booted() {
    let disk = DiskRecipe::default()
        .entry("arch.conf", "title no sort key")
        .entry("debian-6.1.0-9.conf", "sort-key debian\nversion 6.1.0-9")
        .entry("debian-6.1.0-10.conf", "sort-key debian\nversion 6.1.0-10")
        .entry("a-newest+0-3.conf", "sort-key aaa\nversion 99");
    let plan = plan(&disk.build()).unwrap();
    let order: Vec<&str> = plan.menu.entries.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(
        order,
        [
            "debian-6.1.0-10.conf",
            "debian-6.1.0-9.conf",
            "arch.conf",
            "a-newest+0-3.conf"
        ]
    );
    assert_eq!(plan.entry_id, order[0]);
}

#[test]
fn the_default_pattern_wins_and_one_that_matches_nothing_is_no_obstacle() {
    let two = || {
        DiskRecipe::default()
            .entry("Old.conf", "version 1")
            .entry("new.conf", "version 2")
    };
    assert_eq!(
        chosen(two().with("loader/loader.conf", "default OLD*\n")),
        "old.conf"
    );
    assert_eq!(
        chosen(two().with("loader/loader.conf", "default gone*\n")),
        "old.conf"
    );
    assert_eq!(
        chosen(two().with("loader/loader.conf", "default @saved\n")),
        "old.conf"
    );
}

#[test]
fn an_entry_for_another_architecture_is_not_in_the_menu() {
    let disk = DiskRecipe::default()
        .entry("z-arm.conf", "architecture aa64")
        .entry("a.conf", "architecture x64");
    assert_eq!(plan(&disk.build()).unwrap().menu.entries.len(), 1);
}

#[test]
fn hidden_and_automatic_files_are_not_entries() {
    let disk = DiskRecipe::default()
        .entry("auto-x.conf", "")
        .entry("z.conf.bak", "")
        .entry("a.CONF", "title A");
    let plan = plan(&disk.build()).unwrap();
    assert_eq!((plan.menu.entries.len(), plan.entry_id.as_str()), (1, "a.conf"));
}

#[test]
fn an_entry_whose_kernel_is_gone_is_passed_over_as_the_loader_does() {
    let gone = "version 9\nlinux /gone";
    let disk = DiskRecipe::default()
        .entry("a.conf", "")
        .with("loader/entries/z.conf", gone);
    let plan = plan(&disk.build()).unwrap();
    assert_eq!(plan.entry_id, "a.conf");
    assert_eq!(
        plan.menu.entries[0].obstacle(),
        Some("it names \\gone, which is missing")
    );
}
