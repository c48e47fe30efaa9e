//! Unified kernel images and XBOOTLDR: their entries stand in one menu with all others, ordered and chosen as systemd-boot does.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Cursor;

use pellucid_image::{BootDisk, BootPlan, EntrySource, SourceFile, UnifiedKernel, Verdict, Volume};
use pellucid_partition::{GuestAddress, Layout};
use proptest::prelude::*;
use support::machine::Machine;
use support::{DiskRecipe, KERNEL, efi_program, plan, read_file, small_kernel};

const OS: &[u8] =
    b"NAME=Debian\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";

fn image(command_line: &[u8]) -> Vec<u8> {
    efi_program(&[
        (".text", &[0xc3; 700]),
        (".osrel", OS),
        (".cmdline", command_line),
        (".uname", b"6.1.0-50-amd64"),
        (".ucode", &[1; 515]),
        (".dtb", &[9; 10]),
        (".initrd", &[2; 70_000]),
        (".linux", KERNEL),
    ])
}

fn ids(plan: &BootPlan) -> Vec<String> {
    plan.menu.entries.iter().map(|entry| entry.full_id()).collect()
}

fn refusal(recipe: DiskRecipe) -> String {
    plan(&recipe.build()).unwrap_err().to_string()
}

#[test]
fn an_image_boots_its_own_kernel_initrds_and_command_line() {
    let disk = DiskRecipe::default().with("EFI/Linux/Debian-12.efi", image(b"root=UUID=a3c1 ro\tquiet\n\0"));
    let disk = disk.build();
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let plan = boot.plan().unwrap();
    assert_eq!(
        (plan.title.as_str(), plan.entry_id.as_str()),
        ("Debian GNU/Linux 12 (bookworm)", "debian-12.efi")
    );
    assert_eq!(plan.command_line, "root=UUID=a3c1 ro quiet");
    assert_eq!(plan.kernel.to_string(), "esp:\\EFI\\Linux\\Debian-12.efi[.linux]");
    assert_eq!(plan.menu.entries[0].source, EntrySource::UnifiedKernel);
    assert_eq!(read_file(&boot, &plan.kernel), KERNEL);
    let initrds: Vec<_> = plan
        .initrds
        .iter()
        .map(|initrd| read_file(&boot, initrd))
        .collect();
    assert_eq!(
        initrds,
        [vec![1; 515], vec![2; 70_000]],
        "microcode first, no padding"
    );
}

#[test]
fn the_parts_of_an_image_are_loaded_one_behind_the_other() {
    let image = efi_program(&[
        (".osrel", OS),
        (".linux", &small_kernel()),
        (".initrd", &[2; 5000]),
        (".ucode", &[1; 515]),
    ]);
    let disk = DiskRecipe::default().with("EFI/Linux/a.efi", image).build();
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let plan = boot.plan().unwrap();
    let machine = Machine::of(64);
    boot.linux(&plan)
        .unwrap()
        .load(&machine.memory, &machine.layout)
        .unwrap();
    let place: u32 = machine.read(Layout::BOOT_PARAMS.0 + 0x218);
    let size: u32 = machine.read(Layout::BOOT_PARAMS.0 + 0x21c);
    assert_eq!(size, 516 + 5000);
    let loaded = machine.bytes(GuestAddress(u64::from(place)).0, 5516);
    assert_eq!(loaded[..515], [1; 515]);
    assert_eq!((loaded[515], &loaded[516..]), (0, &[2; 5000][..]));
}

#[test]
fn both_types_on_both_partitions_stand_in_one_menu() {
    let newer = efi_program(&[(".osrel", b"ID=debian\nVERSION_ID=13\n"), (".linux", KERNEL)]);
    let entry = "title Debian\nsort-key debian\nversion 12.5\nlinux /vmlinuz\n";
    let disk = DiskRecipe::default()
        .with("EFI/Linux/a-old.efi", image(b""))
        .entry("z-no-key.conf", "")
        .on_extended("EFI/Linux/new.efi", newer)
        .on_extended("loader/entries/between.conf", entry)
        .on_extended("vmlinuz", KERNEL);
    let disk = disk.build();
    let plan = plan(&disk).unwrap();
    let expected = [
        "xbootldr:new.efi",
        "xbootldr:between.conf",
        "esp:a-old.efi",
        "esp:z-no-key.conf",
    ];
    assert_eq!(ids(&plan), expected);
    assert_eq!(
        (plan.entry_id.as_str(), plan.kernel.volume),
        ("new.efi", Volume::Xbootldr)
    );
    assert!(plan.why.contains("first entry"), "{}", plan.why);
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let chosen = boot.plan_entry("between.conf").unwrap();
    assert_eq!(chosen.kernel.to_string(), "xbootldr:\\vmlinuz");
    assert_eq!(read_file(&boot, &chosen.kernel), KERNEL);
}

#[test]
fn the_default_of_loader_conf_and_attempts_left_go_for_images_too() {
    let two = || {
        DiskRecipe::default()
            .with("EFI/Linux/a.efi", image(b"a"))
            .with("EFI/Linux/b+0-3.efi", image(b"b"))
    };
    let first = plan(&two().build()).unwrap();
    assert_eq!(ids(&first), ["esp:a.efi", "esp:b+0-3.efi"]);
    assert_eq!(first.menu.entries[1].tries_left, Some(0));
    let chosen = plan(&two().with("loader/loader.conf", "default B*.efi\n").build()).unwrap();
    assert_eq!(chosen.entry_id, "b+0-3.efi");
    assert!(chosen.why.contains("loader.conf (b*.efi)"), "{}", chosen.why);
}

#[test]
fn an_entry_is_chosen_by_name_and_where_two_have_it_by_its_volume() {
    let disk = DiskRecipe::default()
        .entry("a.conf", "options esp")
        .on_extended("loader/entries/A.conf", "linux /k\noptions other")
        .on_extended("k", KERNEL)
        .build();
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let refused = |wanted: &str| boot.plan_entry(wanted).unwrap_err().to_string();
    assert!(
        refused("a.conf").contains("2 of its boot entries are named a.conf"),
        "{}",
        refused("a.conf")
    );
    assert!(
        refused("b.conf").contains("0 of its boot entries")
            && refused("b.conf").contains("esp:a.conf, xbootldr:a.conf")
    );
    assert_eq!(boot.plan_entry("xbootldr:a.conf").unwrap().command_line, "other");
    assert_eq!(boot.plan_entry("esp:a.conf").unwrap().command_line, "esp");
}

#[test]
fn what_systemd_boot_passes_over_is_listed_with_the_reason() {
    let other = {
        let mut image = image(b"");
        image[0x84..0x86].copy_from_slice(&[0x64, 0xaa]);
        image
    };
    let disk = DiskRecipe::default()
        .with("EFI/Linux/good.efi", image(b""))
        .with("EFI/Linux/arm.efi", other)
        .with("EFI/Linux/text.efi", "no program")
        .with("EFI/Linux/nameless.efi", efi_program(&[(".linux", KERNEL)]))
        .with("EFI/Linux/bare.efi", efi_program(&[(".osrel", OS)]))
        .with("EFI/Linux/.hidden.efi", image(b""))
        .with("EFI/Linux/auto-x.efi", image(b""))
        .with("EFI/Linux/readme.txt", "x");
    let plan = plan(&disk.build()).unwrap();
    assert_eq!(plan.entry_id, "good.efi");
    let reason = |id: &str| {
        let entry = plan.menu.entries.iter().find(|entry| entry.id == id).unwrap();
        match &entry.verdict {
            Verdict::Skipped(reason) => reason.clone(),
            other => panic!("{id}: {other:?}"),
        }
    };
    assert_eq!(plan.menu.entries.len(), 5);
    assert!(reason("arm.efi").contains("another architecture"));
    assert!(reason("text.efi").contains("no EFI program"));
    assert!(reason("nameless.efi").contains(".osrel"));
    assert!(reason("bare.efi").contains("no .linux section"));
}

#[test]
fn profiles_are_entries_of_their_own_and_the_first_boots() {
    let image = efi_program(&[
        (".osrel", OS),
        (".linux", KERNEL),
        (".initrd", &[2; 100]),
        (".cmdline", b"common"),
        (".profile", b"ID=main\nTITLE=Normal\n"),
        (".profile", b"ID=Rescue\nTITLE=\"Rescue system\"\n"),
        (".cmdline", b"single"),
        (".profile", b""),
        (".initrd", &[3; 50]),
    ]);
    let disk = DiskRecipe::default().with("EFI/Linux/a.efi", image).build();
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let plan = boot.plan().unwrap();
    assert_eq!(ids(&plan), ["esp:a.efi", "esp:a.efi@rescue", "esp:a.efi@2"]);
    assert_eq!(
        (plan.entry_id.as_str(), plan.command_line.as_str()),
        ("a.efi", "common")
    );
    let rescue = boot.plan_entry("a.efi@rescue").unwrap();
    assert_eq!(rescue.command_line, "single");
    assert!(rescue.title.ends_with("(Rescue system)"), "{}", rescue.title);
    assert_eq!(read_file(&boot, &rescue.initrds[0]), [2; 100]);
    let last = boot.plan_entry("a.efi@2").unwrap();
    assert_eq!(read_file(&boot, &last.initrds[0]), [3; 50]);
}

#[test]
fn a_loader_entry_that_names_an_image_boots_it_with_its_own_options() {
    let entries = |lines: &str| {
        DiskRecipe::default()
            .with("uki.efi", image(b"own"))
            .with("loader/entries/a.conf", format!("{lines}\nefi /uki.efi\n"))
    };
    assert_eq!(plan(&entries("").build()).unwrap().command_line, "own");
    assert_eq!(
        plan(&entries("options other").build()).unwrap().command_line,
        "other"
    );
    let refused = refusal(entries("initrd /uki.efi"));
    assert!(refused.contains("which has its own"), "{refused}");
}

#[test]
fn what_the_stub_would_add_is_warned_of() {
    let disk = DiskRecipe::default()
        .with("EFI/Linux/a.efi", image(b""))
        .with("EFI/Linux/a.efi.extra.d/x.addon.efi", "MZ")
        .with("loader/credentials/x.cred", "x");
    let warnings = plan(&disk.build()).unwrap().menu.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("esp:\\EFI\\Linux\\a.efi.extra.d") && warnings[0].contains("not applied"));
}

#[test]
fn a_disk_with_only_a_fallback_program_says_what_it_is() {
    let with = |content: Vec<u8>| DiskRecipe::default().with("EFI/BOOT/BOOTX64.EFI", content);
    let magic = b"#### LoaderInfo: systemd-boot 252.39-1 ####\0";
    let text = refusal(with(efi_program(&[(".sdmagic", magic)])));
    assert!(
        text.contains("esp:bootx64.efi, but it is systemd-boot 252.39-1,"),
        "{text}"
    );
    let grub = b"sbat,1,SBAT Version,sbat,1,address\ngrub,3,Free Software Foundation,grub,2.06,address\n";
    assert!(refusal(with(efi_program(&[(".sbat", grub)]))).contains("it is GRUB,"));
    assert!(refusal(with(efi_program(&[]))).contains("does not say its name"));
    assert!(refusal(with(b"text".to_vec())).contains("it is no EFI program"));
    let booted = plan(&with(image(b"own")).build()).unwrap();
    assert_eq!((booted.command_line.as_str(), booted.initrds.len()), ("own", 2));
    assert_eq!(booted.menu.entries[0].source, EntrySource::FallbackProgram);
}

fn parse(bytes: Vec<u8>) -> Result<Option<UnifiedKernel>, String> {
    let size = bytes.len() as u64;
    UnifiedKernel::parse(&mut SourceFile::new("a.efi", size, Cursor::new(bytes)))
        .map_err(|error| error.to_string())
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let sound = image(b"x");
    let with = |at: usize, bytes: &[u8]| {
        let mut image = sound.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        parse(image).unwrap_err()
    };
    let table = 0x80 + 24 + 0xf0;
    assert!(with(0x3c, &[0xff; 4]).contains("headers that end behind the file"));
    assert!(with(0x86, &[97, 0]).contains("section count"));
    assert!(with(table + 20, &[0xff; 4]).contains("ends behind the file"));
    assert!(with(table + 40 + 8, &[0, 2, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0]).contains("more than 64 KiB"));
    assert!(
        parse(sound[..sound.len() - 600].to_vec())
            .unwrap_err()
            .contains("ends behind the file")
    );
    assert!(
        parse(sound[..0x90].to_vec())
            .unwrap_err()
            .contains("headers that end")
    );
    let many: Vec<(&str, &[u8])> = std::iter::once((".linux", KERNEL))
        .chain([(".profile", &b"ID=a"[..]); 40])
        .collect();
    assert!(
        parse(efi_program(&many))
            .unwrap_err()
            .contains("more than 32 profiles")
    );
}

proptest! {
    #[test]
    fn any_damage_is_read_or_refused_and_parts_stay_in_the_file(
        damage in prop::collection::vec((0usize..2048, any::<u8>()), 1..20),
    ) {
        let mut bytes = image(b"quiet");
        damage.into_iter().for_each(|(at, value)| bytes[at] = value);
        let size = bytes.len() as u64;
        if let Ok(Some(image)) = parse(bytes) {
            prop_assert!(!image.profiles.is_empty());
            for part in image.profiles.iter().flat_map(|p| p.kernel.iter().chain(&p.initrds)) {
                prop_assert!(part.offset + part.size <= size);
            }
        }
    }
}
