//! GRUB's script language and its choice: small configurations on an ESP, run as GRUB runs them, and hostile ones.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Cursor;
use std::time::{Duration, Instant};

use pellucid_image::{BootDisk, BootMenu, Choice, Verdict};
use proptest::prelude::*;
use support::DiskRecipe;

/// A disk whose GRUB starts with this configuration; three kernels and an initrd lie beside it.
fn disk(script: &str) -> DiskRecipe {
    let mut recipe = DiskRecipe {
        esp_mebibytes: 4,
        ..DiskRecipe::default()
    };
    for name in ["a", "b", "c", "initrd"] {
        recipe = recipe.with(name, format!("the file {name}"));
    }
    recipe.with("EFI/debian/grub.cfg", script)
}

fn menu_of(recipe: &DiskRecipe) -> BootMenu {
    BootDisk::new("disk.img", Cursor::new(recipe.build()))
        .unwrap()
        .menu()
        .unwrap()
}

/// The command line of what is started, or why nothing is.
fn started(recipe: &DiskRecipe) -> String {
    let disk = BootDisk::new("disk.img", Cursor::new(recipe.build())).unwrap();
    match disk.plan() {
        Ok(plan) => plan.command_line,
        Err(error) => format!("refused: {error}"),
    }
}

const THREE: &str = "menuentry 'First' --id one { linux /a 1 }\n\
    submenu 'More > of them' --id more {\n menuentry 'Second' --id two { linux /b 2 }\n menuentry \"Third\" --id 3rd { linux /c 3 }\n}\n\
    menuentry 'Fourth' { linux /a 4 ; initrd /initrd }\n";

#[test]
fn the_default_is_found_by_number_title_id_and_path() {
    for (default, expected) in [
        ("", "/a 1"),
        ("0", "/a 1"),
        ("2", "/a 4"),
        ("Fourth", "/a 4"),
        ("one", "/a 1"),
        ("1", "/b 2"),
        ("1>1", "/c 3"),
        ("more>3rd", "/c 3"),
        ("more>Second", "/b 2"),
        ("More >> of them>3rd", "/c 3"),
        ("more>nothing", "/b 2"),
        ("3", "/a 1"),
        ("99999999999999999999", "/a 1"),
        ("nothing", "/a 1"),
        ("3rd", "/a 1"),
    ] {
        let script = format!("set default=\"{default}\"\n{THREE}");
        assert_eq!(
            started(&disk(&script)),
            format!("BOOT_IMAGE={expected}"),
            "{default}"
        );
    }
}

#[test]
fn every_entry_is_listed_by_its_path_and_can_be_chosen_by_it() {
    let recipe = disk(THREE);
    let menu = menu_of(&recipe);
    let ids: Vec<&str> = menu.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["one", "more>two", "more>3rd", "Fourth"]);
    assert_eq!(menu.entries[1].title, "More > of them > Second");
    let boot = BootDisk::new("disk.img", Cursor::new(recipe.build())).unwrap();
    let plan = boot.plan_entry("Fourth").unwrap();
    assert_eq!(
        (plan.command_line.as_str(), plan.initrds.len()),
        ("BOOT_IMAGE=/a 4", 1)
    );
    assert_eq!(support::read_file(&boot, &plan.kernel), b"the file a");
}

fn environment(lines: &str) -> String {
    format!("{:#<1024}", format!("# GRUB Environment Block\n{lines}"))
}

#[test]
fn the_entry_kept_for_the_next_boot_goes_before_the_saved_one() {
    let script = format!(
        "if [ -s $prefix/grubenv ]; then\n  set have_grubenv=true\n  load_env\nfi\n\
         if [ \"${{next_entry}}\" ] ; then\n set default=\"${{next_entry}}\"\n set next_entry=\n save_env next_entry\n set boot_once=true\n\
         else\n set default=\"${{saved_entry}}\"\nfi\n{THREE}"
    );
    for (block, expected) in [
        ("saved_entry=more>two\nnext_entry=more>3rd\n", "/c 3"),
        ("saved_entry=more>two\nnext_entry=\n", "/b 2"),
        ("# WARNING: a comment=1\nsaved_entry=Fo\\urth\n", "/a 4"),
        ("", "/a 1"),
    ] {
        let recipe = disk(&script).with("EFI/debian/grubenv", environment(block));
        assert_eq!(started(&recipe), format!("BOOT_IMAGE={expected}"), "{block}");
    }
    assert_eq!(started(&disk(&script)), "BOOT_IMAGE=/a 1", "without a block");
    assert_eq!(
        started(&disk(&script).with("EFI/debian/grubenv", "no block")),
        "BOOT_IMAGE=/a 1"
    );
}

#[test]
fn conditions_loops_and_functions_are_those_of_grub() {
    for (script, expected) in [
        (
            "if [ x$feature_menuentry_id = xy -a \"$grub_platform\" = efi ]; then set k=b; fi",
            "/b",
        ),
        (
            "if [ -f /nothing ]; then set k=b; elif [ -d /EFI ]; then set k=c; else set k=b; fi",
            "/c",
        ),
        ("if test ! -e /b -o -z \"\" ; then k=b; fi", "/b"),
        ("if [ ( 3 -gt 10 ) -o ( abc '<' abd ) ] ; then k=c\nfi", "/c"),
        ("if ! true; then k=b; elif false; then k=b; else k=c; fi", "/c"),
        ("for x in b c; do k=$x; if [ $x = b ]; then break; fi; done", "/b"),
        (
            "n=0; while [ $n -lt 7 ]; do increment n; done; if [ $n = 7 ]; then k=b; fi",
            "/b",
        ),
        ("n=3; until [ $n = 0 ]; do decrement n; done; k=b", "/b"),
        (
            "function f { if [ $# = 2 ]; then k=$2; return; fi; k=a; }; f x c",
            "/c",
        ),
        ("function f { return 1; }; if f; then k=b; else k=c; fi", "/c"),
        ("w='b  c'; for x in $w; do k=$x; done", "/c"),
        ("w='b'; for x in \"$w\"'' ${w}; do k=${x}; done # k=c", "/b"),
        ("set k=\\\n\"b\"", "/b"),
        ("false; if [ $? = 1 ]; then k=c; fi", "/c"),
        ("eval \"k=b\"", "/b"),
        ("set k=b; unset k; if [ -z \"$k\" ]; then k=c; fi", "/c"),
        ("source ($root)/EFI/debian/more.cfg", "/b"),
        (
            "if [ -f ${config_directory}/more.cfg ]; then . ${config_directory}/more.cfg; fi",
            "/b",
        ),
        (
            "search --no-floppy --file --set=other /EFI/debian/more.cfg; if [ \"$other\" = hd0,gpt1 ]; then k=c; fi",
            "/c",
        ),
    ] {
        let script = format!("k=a\n{script}\nmenuentry x {{ linux /$k }}\n");
        let recipe = disk(&script).with("EFI/debian/more.cfg", "set k=b");
        assert_eq!(started(&recipe), format!("BOOT_IMAGE={expected}"), "{script}");
    }
}

#[test]
fn a_command_line_is_quoted_as_grub_quotes_it() {
    for (words, expected) in [
        ("root=/dev/sda1 ro  quiet", "root=/dev/sda1 ro quiet"),
        ("'a b' c\\ d", "\"a b\" \"c d\""),
        ("x=\\\"y\\\"", "x=\\\"y\\\""),
        ("'dyndbg=\"file x +p\"'", "\"dyndbg=\\\"file x +p\\\"\""),
        ("'a\\x20b' 'c\\d'", "a\\x20b c\\\\d"),
        ("$empty \"$empty\" x", " x"),
    ] {
        let script = format!("menuentry x {{ linux /a {words} }}");
        assert_eq!(
            started(&disk(&script)),
            format!("BOOT_IMAGE=/a {expected}"),
            "{words}"
        );
    }
}

#[test]
fn only_exported_variables_reach_a_submenu_and_another_file() {
    let script = "hidden=b; shown=c; export shown\nsubmenu m { menuentry x { linux /a $hidden $shown } }";
    assert_eq!(started(&disk(script)), "BOOT_IMAGE=/a c");
    let script = "hidden=b; shown=c; export shown; configfile ($root)/EFI/debian/real.cfg\nmenuentry never { linux /b }";
    let recipe = disk(script).with(
        "EFI/debian/real.cfg",
        "menuentry x { linux ($root)/a $hidden $shown }",
    );
    assert_eq!(started(&recipe), "BOOT_IMAGE=(hd0,gpt1)/a c");
}

#[test]
fn what_cannot_be_decided_is_refused_with_all_entries_and_one_can_be_asked_for() {
    let script =
        "if smbios_says laptop; then\nmenuentry one { linux /a }\nelse\nmenuentry two { linux /b }\nfi";
    let recipe = disk(script);
    let text = started(&recipe);
    for word in ["refused", "smbios_says", "esp:one", "esp:two"] {
        assert!(text.contains(word), "{text}");
    }
    let boot = BootDisk::new("disk.img", Cursor::new(recipe.build())).unwrap();
    assert_eq!(boot.plan_entry("two").unwrap().command_line, "BOOT_IMAGE=/b");
    // A command that is not known and changes nothing is no obstacle.
    let menu = menu_of(&disk("frobnicate\nmenuentry one { linux /a }"));
    assert!(matches!(menu.choice, Choice::Entry { index: 0, .. }));
    assert!(
        menu.warnings.iter().any(|text| text.contains("frobnicate")),
        "{:?}",
        menu.warnings
    );
    for script in ["regexp --set=1:k '(.)' b", "probe --set=k --fs $root", "read k"] {
        let text = started(&disk(&format!("{script}\nmenuentry one {{ linux /a }}")));
        assert!(text.contains("sets a variable"), "{script}: {text}");
    }
}

#[test]
fn an_entry_that_starts_no_linux_is_refused_by_what_it_does() {
    for (body, reason) in [
        (
            "chainloader /EFI/Microsoft/Boot/bootmgfw.efi",
            "bootmgfw.efi by chainloader",
        ),
        ("fwsetup", "boots nothing (fwsetup)"),
        ("echo hello", "starts no kernel"),
        ("linux /missing", "(hd0,gpt1)/missing, which is missing"),
        ("linux (hd1,gpt1)/a", "(hd1,gpt1)/a, which is missing"),
        ("linux /a; initrd /gone", "/gone, which is missing"),
        ("configfile /other.cfg", "opens another configuration"),
        ("if who_knows; then linux /a; else linux /b; fi", "who_knows"),
        ("linux /a; initrd newc:x:/initrd", "newc:x"),
    ] {
        let text = started(&disk(&format!("menuentry one {{ {body} }}")));
        assert!(
            text.contains("refused") && text.contains(reason),
            "{body}: {text}"
        );
    }
}

#[test]
fn a_second_kernel_is_started_where_the_first_is_missing() {
    let script = "menuentry x { if linux /gone; then true; else linux /a; fi }";
    assert_eq!(started(&disk(script)), "BOOT_IMAGE=/a");
}

#[test]
fn what_is_shown_of_a_configuration_is_short_and_no_terminal_obeys_it() {
    let script = format!(
        "menuentry '{}\u{1b}[2J\n' {{ linux '/x\u{1b}{}' }}\nb\u{7}d",
        "t".repeat(9000),
        "y".repeat(9000)
    );
    let menu = menu_of(&disk(&script));
    let entry = &menu.entries[0];
    for text in [
        &entry.title,
        &entry.id,
        entry.obstacle().unwrap(),
        &menu.warnings[0],
    ] {
        assert!(text.len() <= 400 && !text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn two_installations_of_grub_leave_the_choice_to_firmware() {
    let recipe = disk("menuentry one { linux /a }").with("EFI/fedora/grub.cfg", "menuentry two { linux /b }");
    let text = started(&recipe);
    assert!(
        text.contains("EFI/debian/grub.cfg") && text.contains("EFI/fedora/grub.cfg"),
        "{text}"
    );
    let menu = menu_of(&recipe);
    assert_eq!(menu.entries.len(), 2);
    // A copy for firmware that has lost its variables is no second one.
    let recipe = disk("menuentry one { linux /a }").with("EFI/BOOT/grub.cfg", "menuentry two { linux /b }");
    assert_eq!(started(&recipe), "BOOT_IMAGE=/a");
}

#[test]
fn scripts_that_never_end_do_end() {
    let nested = "if true; then ".repeat(40) + &"fi; ".repeat(40);
    let braces = "menuentry x { ".repeat(5000);
    let entries = "menuentry x { linux /a }\n".repeat(600);
    let functions: String = (0..40)
        .map(|i| format!("function f{i} {{ f{} ; f{} ; }}\n", i + 1, i + 1))
        .collect();
    for (script, word) in [
        ("while true; do x=1; done", "endless loop"),
        ("until false; do true; done", "endless loop"),
        (
            "x=0; while [ $x = 0 ]; do for y in 1 2 3; do continue; done; done",
            "endless loop",
        ),
        ("function f { f; }\nf", "calls itself"),
        ("configfile $prefix/grub.cfg", "calls itself"),
        ("source $prefix/grub.cfg", "calls itself"),
        (
            "eval $@; x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done",
            "64 KiB",
        ),
        (
            "n=0; while true; do increment n; eval \"v$n=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"; done",
            "variables hold more",
        ),
        (
            "while true; do search --file --set=x /nothing; done",
            "endless loop",
        ),
        (&nested, "32 blocks"),
        (&braces, "32 blocks"),
        (&entries, "512 entries"),
        (&format!("{functions}f0"), "endless loop"),
        ("menuentry x { while true; do y=1; done }", "endless loop"),
        (
            "submenu x { submenu x { submenu x { submenu x { submenu x { submenu x { submenu x { submenu x { submenu x { submenu x { echo } } } } } } } } } }",
            "submenus",
        ),
        ("menuentry 'x { linux /a }", "never closed"),
        ("menuentry x { linux /a", "never closed"),
        ("if true; then linux /a", "never closed|fi"),
        ("echo a | cat", "outside of quotes"),
        ("}", "nothing opened"),
    ] {
        let before = Instant::now();
        let text = started(&disk(script));
        let shown: String = script.chars().take(60).collect();
        assert!(text.contains("refused"), "{shown}: {text}");
        assert!(word.split('|').any(|word| text.contains(word)), "{shown}: {text}");
        assert!(
            before.elapsed() < Duration::from_secs(10),
            "{shown}: {:?}",
            before.elapsed()
        );
    }
}

#[test]
fn a_configuration_that_is_too_large_is_refused() {
    let text = started(&disk(&"# comment\n".repeat(120_000)));
    assert!(text.contains("more than 1024 KiB"), "{text}");
}

/// Pieces of scripts, to be put together in any order.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("menuentry 'x' --id y {".to_owned()),
        Just("}\n".to_owned()),
        Just("submenu s {".to_owned()),
        Just("if [ -f /a ]; then".to_owned()),
        Just("; else ".to_owned()),
        Just("; fi\n".to_owned()),
        Just("linux /a $x\n".to_owned()),
        Just("set x=\"$x ${y}\"\n".to_owned()),
        Just("for x in a b $x; do ".to_owned()),
        Just("while true; do ".to_owned()),
        Just("; done\n".to_owned()),
        Just("function f { ".to_owned()),
        Just("f 1 2; ".to_owned()),
        Just("set default=".to_owned()),
        "[ -~\n]{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_script_gives_a_menu_or_a_refusal(fragments in prop::collection::vec(fragment(), 0..30)) {
        let menu = menu_of(&disk(&fragments.concat()));
        for entry in &menu.entries {
            if let Verdict::Boots(files) = &entry.verdict {
                prop_assert!(files.command_line.starts_with("BOOT_IMAGE="));
            }
        }
        if let Choice::Entry { index, .. } = menu.choice {
            prop_assert!(index < menu.entries.len());
        }
    }
}
