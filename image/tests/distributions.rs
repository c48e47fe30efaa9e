//! Disks as distributions install them, their configurations in the shape that grub-mkconfig gives them: Debian, Ubuntu, Fedora.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Cursor;

use pellucid_image::{BootDisk, BootMenu, BootPlan, EntrySource, Volume};
use pellucid_partition::Layout;
use support::machine::Machine;
use support::tools::run;
use support::{DiskRecipe, small_kernel, with_second};

const UUID: &str = "3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10";

/// A file system with these files, made by mkfs.ext4; `None` without the tool.
fn system(files: &[(&str, Vec<u8>)]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let (root, image) = (directory.path().join("root"), directory.path().join("image"));
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let arguments = [
        "-q",
        "-F",
        "-U",
        UUID,
        "-d",
        root.to_str().unwrap(),
        image.to_str().unwrap(),
    ];
    run("mkfs.ext4", &arguments).then(|| std::fs::read(&image).unwrap())
}

fn environment(lines: &str) -> Vec<u8> {
    format!("{:#<1024}", format!("# GRUB Environment Block\n{lines}")).into_bytes()
}

/// The disk of a stub and a file system: its menu, what it starts, and that this can be loaded.
fn boots(directory: &str, stub: &str, files: &[(&str, Vec<u8>)]) -> Option<(BootMenu, BootPlan)> {
    let esp = DiskRecipe::default().with(&format!("EFI/{directory}/grub.cfg"), stub);
    let disk = with_second(&esp, &system(files)?);
    let boot = BootDisk::new("disk.img", Cursor::new(&disk[..])).unwrap();
    let plan = boot.plan().unwrap();
    let machine = Machine::of(64);
    boot.linux(&plan)
        .unwrap()
        .load(&machine.memory, &machine.layout)
        .unwrap();
    let start = plan.command_line.as_bytes();
    assert_eq!(machine.bytes(Layout::COMMAND_LINE.0, start.len()), start);
    Some((boot.menu().unwrap(), plan))
}

const DEBIAN_STUB: &str = "search.fs_uuid 3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10 root hd0,gpt2 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";

/// What 00_header makes, shortened where nothing is decided.
const DEBIAN_HEADER: &str = r#"# made by a test
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option

if [ "${prev_saved_entry}" ]; then
  set saved_entry="${prev_saved_entry}"
  save_env saved_entry
  set boot_once=true
fi

function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
insmod part_gpt
search --no-floppy --fs-uuid --set=root UUID
    font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
  load_video
  insmod gfxterm
  set locale_dir=$prefix/locale
  set lang=en_US
fi
terminal_output gfxterm
if [ "${recordfail}" = 1 ] ; then
  set timeout=30
else
  if [ x$feature_timeout_style = xy ] ; then
    set timeout_style=menu
    set timeout=5
  # Where the style is not known.
  else
    set timeout=5
  fi
fi
if background_image /usr/share/images/grub.png; then
  set color_normal=white/black
else
  set menu_color_normal=cyan/blue
fi
function gfxmode {
	set gfxpayload="${1}"
}
set linux_gfx_mode=
export linux_gfx_mode
"#;

/// With what 10_linux and 30_uefi-firmware make for one installation of two kernels.
fn debian_configuration() -> String {
    let body = |version: &str, mode: &str| {
        format!(
            "\tsavedefault\n\tload_video\n\tgfxmode $linux_gfx_mode\n\tinsmod gzio\n\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi\n\
             \tset root='hd0,gpt2'\n\tif [ x$feature_platform_search_hint = xy ]; then\n\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 --hint-efi=hd0,gpt2  UUID\n\
             \telse\n\t  search --no-floppy --fs-uuid --set=root UUID\n\tfi\n\techo\t'Loading Linux {version} ...'\n\
             \tlinux\t/boot/vmlinuz-{version} root=UUID=UUID ro {mode}\n\techo\t'Loading initial ramdisk ...'\n\tinitrd\t/boot/initrd.img-{version}\n"
        )
    };
    let classes = "--class debian --class gnu-linux --class os";
    let mut text = DEBIAN_HEADER.to_owned();
    text += &format!(
        "menuentry 'Debian GNU/Linux' {classes} $menuentry_id_option 'gnulinux-simple-UUID' {{\n{}}}\n",
        body("6.1.0-2", "quiet")
    );
    text +=
        "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-UUID' {\n";
    for version in ["6.1.0-2", "6.1.0-1"] {
        for (name, kind, mode) in [
            ("", "advanced", "quiet"),
            (" (recovery mode)", "recovery", "single"),
        ] {
            text += &format!(
                "\tmenuentry 'Debian GNU/Linux, with Linux {version}{name}' {classes} $menuentry_id_option 'gnulinux-{version}-{kind}-UUID' {{\n{}\t}}\n",
                body(version, mode)
            );
        }
    }
    text += "}\nif [ \"$grub_platform\" = \"efi\" ]; then\n\tfwsetup --is-supported\n\tif [ \"$?\" = 0 ]; then\n\
             \t\tmenuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {\n\t\t\tfwsetup\n\t\t}\n\tfi\nfi\n\
             if [ -f  ${config_directory}/custom.cfg ]; then\n  source ${config_directory}/custom.cfg\nelif [ -z \"${config_directory}\" -a -f  $prefix/custom.cfg ]; then\n  source $prefix/custom.cfg\nfi\n";
    text.replace("UUID=UUID", &format!("UUID={UUID}"))
        .replace("-UUID", &format!("-{UUID}"))
        .replace(" UUID\n", &format!(" {UUID}\n"))
}

fn debian_files(block: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = vec![
        ("boot/grub/grub.cfg", debian_configuration().into_bytes()),
        ("boot/vmlinuz-6.1.0-2", small_kernel()),
        ("boot/vmlinuz-6.1.0-1", small_kernel()),
        ("boot/initrd.img-6.1.0-2", vec![2; 200_000]),
        ("boot/initrd.img-6.1.0-1", vec![1; 100_000]),
    ];
    files.extend(block.map(|lines| ("boot/grub/grubenv", environment(lines))));
    files
}

#[test]
fn a_debian_disk_boots_what_its_grub_would() {
    let Some((menu, plan)) = boots("debian", DEBIAN_STUB, &debian_files(None)) else {
        return;
    };
    assert_eq!(
        plan.command_line,
        format!("BOOT_IMAGE=/boot/vmlinuz-6.1.0-2 root=UUID={UUID} ro quiet")
    );
    assert_eq!(
        (plan.kernel.volume, plan.kernel.path.as_str()),
        (Volume::Partition(2), "/boot/vmlinuz-6.1.0-2")
    );
    assert_eq!(plan.initrds[0].path, "/boot/initrd.img-6.1.0-2");
    assert_eq!(menu.warnings, Vec::<String>::new());
    assert!(menu.entries.iter().all(|entry| entry.source == EntrySource::Grub));
    let ids: Vec<String> = menu
        .entries
        .iter()
        .map(|entry| entry.id.replace(UUID, "U"))
        .collect();
    assert_eq!(
        ids,
        [
            "gnulinux-simple-U",
            "gnulinux-advanced-U>gnulinux-6.1.0-2-advanced-U",
            "gnulinux-advanced-U>gnulinux-6.1.0-2-recovery-U",
            "gnulinux-advanced-U>gnulinux-6.1.0-1-advanced-U",
            "gnulinux-advanced-U>gnulinux-6.1.0-1-recovery-U",
            "uefi-firmware",
        ]
    );
    assert!(menu.entries[5].obstacle().unwrap().contains("fwsetup"));
}

#[test]
fn a_debian_disk_boots_the_entry_that_grub_reboot_and_grub_set_default_keep() {
    let older = format!("gnulinux-advanced-{UUID}>gnulinux-6.1.0-1-advanced-{UUID}");
    for (block, expected) in [
        (format!("saved_entry={older}\n"), "/boot/vmlinuz-6.1.0-1 "),
        (
            format!("saved_entry={older}\nnext_entry=0\n"),
            "/boot/vmlinuz-6.1.0-2 ",
        ),
        ("next_entry=1>3\n".to_owned(), "single"),
        ("saved_entry=gone\n".to_owned(), "/boot/vmlinuz-6.1.0-2 "),
    ] {
        let Some((_, plan)) = boots("debian", DEBIAN_STUB, &debian_files(Some(&block))) else {
            return;
        };
        assert!(
            plan.command_line.contains(expected),
            "{block}: {}",
            plan.command_line
        );
    }
}

#[test]
fn a_debian_disk_without_a_stub_is_read_where_its_grub_would_look() {
    let Some(root) = system(&debian_files(None)) else {
        return;
    };
    let esp = DiskRecipe::default().with("EFI/debian/grubx64.efi", "MZ");
    let disk = with_second(&esp, &root);
    let plan = support::plan(&disk).unwrap();
    assert!(
        plan.command_line.starts_with("BOOT_IMAGE=/boot/vmlinuz-6.1.0-2 "),
        "{}",
        plan.command_line
    );
}

#[test]
fn a_debian_disk_that_was_installed_for_a_bios_boots_too() {
    let Some(root) = system(&debian_files(None)) else {
        return;
    };
    let mut disk = vec![0; (1 << 20) + root.len()];
    disk[1 << 20..].copy_from_slice(&root);
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&(root.len() as u32 / 512).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let plan = support::plan(&disk).unwrap();
    assert!(
        plan.command_line.starts_with("BOOT_IMAGE=/boot/vmlinuz-6.1.0-2 "),
        "{}",
        plan.command_line
    );
    assert!(
        plan.menu.entries.iter().all(|entry| entry.id != "uefi-firmware"),
        "a BIOS has no such entry"
    );
}

const FEDORA_STUB: &str = "search --no-floppy --root-dev-only --fs-uuid --set=dev 3A8C1F52-9B3E-4D0A-8C7E-5F2B6A9D4E10\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n";

const FEDORA: &str = r#"set pager=1
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
insmod part_gpt
insmod ext2
search --no-floppy --fs-uuid --set=root 3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10
search --no-floppy --fs-uuid --set=boot 3a8c1f52-9b3e-4d0a-8c7e-5f2b6a9d4e10
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=/dev/mapper/fedora-root ro "
fi
insmod increment
if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then
  if  [ "${boot_counter}" = "0" -o "${boot_counter}" = "-1" ]; then
    set default=1
    set boot_counter=-1
  else
    decrement boot_counter
  fi
  save_env boot_counter
fi
insmod blscfg
blscfg
if [ "${boot_success}" = "1" -o "${boot_indeterminate}" = "1" ]; then
  set menu_hide_ok=1
else
  set menu_hide_ok=0 
fi
if [ x$feature_timeout_style = xy ] ; then
  if [ "${menu_show_once}" ]; then
    unset menu_show_once
    set timeout=60
  elif [ "${menu_auto_hide}" -a "${menu_hide_ok}" = "1" ]; then
    set orig_timeout_style=${timeout_style}
    set timeout=1
  fi
fi
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
		fwsetup
	}
fi
"#;

fn fedora_files(block: &str) -> Vec<(&'static str, Vec<u8>)> {
    let entry = |version: &str, options: &str| {
        let text = format!(
            "title Fedora Linux ({version}) 40\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\noptions {options}\ngrub_users $grub_users\ngrub_class fedora\n"
        );
        text.into_bytes()
    };
    vec![
        ("grub2/grub.cfg", FEDORA.as_bytes().to_vec()),
        ("grub2/grubenv", environment(block)),
        (
            "loader/entries/0123abcd-6.8.9-300.fc40.x86_64.conf",
            entry("6.8.9-300.fc40.x86_64", "$kernelopts $tuned_params quiet"),
        ),
        (
            "loader/entries/0123abcd-6.8.10-300.fc40.x86_64.conf",
            entry("6.8.10-300.fc40.x86_64", "root=/dev/mapper/fedora-root ro rhgb"),
        ),
        (
            "loader/entries/0123abcd-0-rescue.conf",
            entry("0-rescue", "$kernelopts"),
        ),
        ("vmlinuz-6.8.9-300.fc40.x86_64", small_kernel()),
        ("vmlinuz-6.8.10-300.fc40.x86_64", small_kernel()),
        ("initramfs-6.8.9-300.fc40.x86_64.img", vec![9; 100_000]),
        ("initramfs-6.8.10-300.fc40.x86_64.img", vec![10; 100_000]),
    ]
}

#[test]
fn a_fedora_disk_boots_its_loader_entries_newest_first() {
    let Some((menu, plan)) = boots(
        "fedora",
        FEDORA_STUB,
        &fedora_files("kernelopts=root=UUID=x ro net.ifnames=1\n"),
    ) else {
        return;
    };
    assert_eq!(
        plan.command_line,
        "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.8.10-300.fc40.x86_64 root=/dev/mapper/fedora-root ro rhgb"
    );
    assert_eq!(plan.title, "Fedora Linux (6.8.10-300.fc40.x86_64) 40");
    let ids: Vec<&str> = menu.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "0123abcd-6.8.10-300.fc40.x86_64",
            "0123abcd-6.8.9-300.fc40.x86_64",
            "0123abcd-0-rescue",
            "UEFI Firmware Settings"
        ]
    );
    assert!(
        menu.entries[2]
            .obstacle()
            .unwrap()
            .contains("/vmlinuz-0-rescue, which is missing")
    );
}

#[test]
fn a_fedora_disk_boots_the_saved_entry_with_the_options_of_the_environment() {
    let block = "saved_entry=0123abcd-6.8.9-300.fc40.x86_64\nkernelopts=root=UUID=x ro net.ifnames=1\nboot_success=1\n";
    let Some((_, plan)) = boots("fedora", FEDORA_STUB, &fedora_files(block)) else {
        return;
    };
    assert_eq!(
        plan.command_line,
        "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.8.9-300.fc40.x86_64 root=UUID=x ro net.ifnames=1 quiet"
    );
    assert_eq!(plan.initrds.len(), 1);
    // After as many failed boots as were allowed, the second entry.
    let Some((_, plan)) = boots(
        "fedora",
        FEDORA_STUB,
        &fedora_files("boot_counter=0\nboot_success=0\n"),
    ) else {
        return;
    };
    assert!(
        plan.command_line
            .ends_with("6.8.9-300.fc40.x86_64 root=/dev/mapper/fedora-root ro quiet"),
        "{}",
        plan.command_line
    );
}
