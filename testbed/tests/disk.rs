//! Small disks made and read back by the distribution's own tools. Needs those tools and nothing else.
#![allow(clippy::expect_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use pellucid_testbed::Progress;
use pellucid_testbed::disk::{Fingerprint, Identity, Layout, Recipe, image};
use pellucid_testbed::setup::{Needs, survey};

/// Whether the tools that build disks are here; says so if not.
fn tools_are_missing() -> bool {
    let missing = survey(Needs::Disk);
    if !missing.is_empty() {
        Progress::Lines.say(format!("not run, because tools are missing: {missing:?}"));
    }
    !missing.is_empty()
}

fn identity() -> Identity {
    Recipe::debian12().identity
}

/// A disk of 33 MiB EFI system partition and 8 MiB root, with one file on each.
fn small_disk(folder: &Path) -> (std::path::PathBuf, Layout) {
    let layout = Layout::fit(33, 8);
    let disk = folder.join("disk.img");
    let (esp, root) = (folder.join("esp"), folder.join("root"));
    std::fs::create_dir_all(esp.join("loader/entries")).expect("esp");
    std::fs::write(esp.join("loader/loader.conf"), "timeout 3\n").expect("loader.conf");
    std::fs::create_dir_all(root.join("etc")).expect("root");
    std::fs::write(root.join("etc/hostname"), "small\n").expect("hostname");
    image::blank(&disk, layout.total).expect("blank");
    image::write_table(&disk, &layout, &identity()).expect("table");
    image::write_esp(&disk, &layout, &identity().esp_id, &esp).expect("esp");
    image::write_root(&disk, &layout, &identity(), &root).expect("root");
    (disk, layout)
}

fn output(program: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").expect("PATH"));
    let output = Command::new(program)
        .env("PATH", path)
        .args(args)
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_small_disk_reads_back_as_it_was_written() {
    if tools_are_missing() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (disk, layout) = small_disk(folder.path());
    let disk = disk.to_str().expect("path");
    let table = output("sgdisk", &["--verify", "--print", disk]);
    assert!(table.contains("No problems found"), "{table}");
    assert!(
        table.contains("EF00  EFI System") && table.contains("8304  root"),
        "{table}"
    );
    let loader = output(
        "mtype",
        &[
            "-i",
            &format!("{disk}@@{}", layout.esp.start),
            "::/loader/loader.conf",
        ],
    );
    assert_eq!(loader, "timeout 3\n");
    let root = format!("{disk}?offset={}", layout.root.start);
    assert_eq!(output("debugfs", &["-R", "cat /etc/hostname", &root]), "small\n");
    let superblock = output("debugfs", &["-R", "show_super_stats -h", &root]);
    assert!(superblock.contains(&identity().root_uuid), "{superblock}");
}

#[test]
fn the_table_carries_the_fixed_identity() {
    if tools_are_missing() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (disk, _) = small_disk(folder.path());
    let disk = disk.to_str().expect("path");
    assert!(output("sgdisk", &["--print", disk]).contains(&identity().disk_guid));
    assert!(output("sgdisk", &["--info=1", disk]).contains(&identity().esp_guid));
    assert!(output("sgdisk", &["--info=2", disk]).contains(&identity().root_guid));
}

#[test]
fn building_the_same_tables_and_system_partition_twice_gives_the_same_bytes() {
    if tools_are_missing() {
        return;
    }
    let prints = [1, 2].map(|_| {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout::fit(33, 8);
        let (disk, esp) = (folder.path().join("disk.img"), folder.path().join("esp"));
        std::fs::create_dir(&esp).expect("esp");
        image::blank(&disk, layout.total).expect("blank");
        image::write_table(&disk, &layout, &identity()).expect("table");
        image::write_esp(&disk, &layout, &identity().esp_id, &esp).expect("esp");
        Fingerprint::survey(&disk, &layout).expect("print")
    });
    assert_eq!(prints[0], prints[1]);
}

#[test]
fn a_file_put_on_the_system_partition_leaves_the_root_alone() {
    if tools_are_missing() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (disk, layout) = small_disk(folder.path());
    let before = Fingerprint::survey(&disk, &layout).expect("before");
    let esp = folder.path().join("esp");
    std::fs::write(esp.join("seed"), "written by a loader").expect("seed");
    image::write_esp(&disk, &layout, &identity().esp_id, &esp).expect("esp");
    let after = Fingerprint::survey(&disk, &layout).expect("after");
    assert_eq!(before.root, after.root);
    assert_ne!(before.outside_root, after.outside_root);
}
