//! Claims where state directories are not shared: private mounts, other pid namespaces, other users. Needs root, and `unshare`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod crash;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crash::{Mortal, SCENE, scratch};
use pellucid_partition::{ClaimError, Resource, Standing, StateDir};

const DIRECTORY: &str = "PELLUCID_TEST_DIRECTORY";
const CPU: &str = "PELLUCID_TEST_CPU";
const NOBODY: u32 = 65_534;

/// A CPU that no host has, another in each test: marks are the same for all who run these tests at once.
fn cpu(number: u32) -> Resource {
    let own = std::process::id() * 10 + number;
    Resource::new(Resource::CPU, &own.to_string())
}

/// Claims a CPU in a host-wide directory, tells how that went, and holds it until it is killed.
#[test]
#[ignore = "not a test: who claims in another namespace, or as somebody else"]
fn claimant() {
    let state = match std::env::var_os(DIRECTORY) {
        Some(path) => StateDir::at(Path::new(&path)).unwrap().host_wide(),
        None => StateDir::standard().unwrap(),
    };
    let resource = Resource::new(Resource::CPU, &std::env::var(CPU).unwrap());
    match state.claim(resource, "elsewhere") {
        Ok(_claim) => {
            println!("\nsays: held");
            loop {
                std::thread::park();
            }
        }
        Err(refusal) => println!("\nsays: {refusal}"),
    }
}

/// A claimant behind `wrapper` (a program that executes the rest of its words), and what it says.
fn claims(wrapper: &[&str], directory: Option<&Path>, resource: &Resource) -> (Mortal, String) {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(own)
        .args(["--ignored", "--exact", "--nocapture", "claimant"])
        .env(CPU, &resource.name)
        .env_remove(DIRECTORY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.envs(directory.map(|path| (DIRECTORY, path)));
    let mut claimant = Mortal(command.spawn().unwrap());
    let lines = BufReader::new(claimant.0.stdout.take().unwrap()).lines();
    let said = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("says: ").map(str::to_owned));
    (
        claimant,
        said.unwrap_or_else(|| panic!("{wrapper:?}: it said nothing")),
    )
}

const PRIVATE_RUN: &str = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
const ELSEWHERE: &str = "in use by a logical server of another user or mount namespace";

#[test]
fn a_private_run_hides_no_claim() {
    let private = ["unshare", "--mount", "sh", "-c", PRIVATE_RUN];
    // All namespaces but that of users; its own /dev too, so that nothing is shared by path.
    let apart = [
        "unshare",
        "--mount",
        "--net",
        "--ipc",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        "mount -t tmpfs none /run && mount -t tmpfs none /dev && exec \"$0\" \"$@\"",
    ];
    let resource = cpu(1);
    let (mut holder, said) = claims(&private, None, &resource);
    assert_eq!(said, "held");
    for wrapper in [&private[..], &apart[..]] {
        let (_, said) = claims(wrapper, None, &resource);
        assert!(
            said.contains(&resource.to_string()) && said.contains(ELSEWHERE),
            "{said}"
        );
    }
    holder.kill();
    let (_holder, said) = claims(&apart, None, &resource);
    assert_eq!(said, "held", "the mark died with its holder");
    let (_, said) = claims(&private, None, &resource);
    assert!(said.contains(ELSEWHERE), "{said}");
}

#[test]
fn a_process_of_another_pid_namespace_is_not_taken_for_one_of_ours() {
    let directory = scratch();
    let path = directory.path().join("state");
    let state = StateDir::at(&path).unwrap();
    let inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let resource = cpu(2);
    let (mut holder, said) = claims(&inside, Some(&path), &resource);
    assert_eq!(said, "held");
    let (record, held) = state.records().unwrap().pop().unwrap();
    assert!(held, "the lock is the kernel's, whatever the number means");
    // Its number is 1 there; here that is init, which nobody may signal for it.
    assert_eq!(record.owner.pid, 1);
    assert!(matches!(record.owner.standing(), Standing::Unknown), "{record:?}");
    let refusal = state.claim(resource.clone(), "db2").unwrap_err();
    assert!(
        matches!(&refusal, ClaimError::Held { holder, .. } if holder == "elsewhere"),
        "{refusal}"
    );
    holder.kill();
    let waited = std::time::Instant::now();
    while state.records().unwrap()[0].1 {
        assert!(waited.elapsed().as_secs() < 30, "the lock outlives its holder");
        std::thread::yield_now();
    }
    state.claim(resource, "db2").unwrap().release().unwrap();
}

#[test]
fn ordinary_users_exclude_each_other_and_root_goes_first() {
    // Root without the right to mount is whom the host takes for an ordinary user with access to /dev/kvm.
    let ordinary = ["setpriv", "--bounding-set=-sys_admin"];
    let directory = scratch();
    let [one, two, three] = ["one", "two", "three"].map(|name| directory.path().join(name));
    let resource = cpu(3);
    let (mut holder, said) = claims(&ordinary, Some(&one), &resource);
    assert_eq!(said, "held");
    let (_, said) = claims(&ordinary, Some(&two), &resource);
    assert!(said.contains(ELSEWHERE), "{said}");
    let root = StateDir::at(&three).unwrap().host_wide();
    let claim = root.claim(resource.clone(), "db1").unwrap();
    claim.release().unwrap();
    holder.kill();
    let claim = root.claim(resource.clone(), "db1").unwrap();
    let (_, said) = claims(&ordinary, Some(&two), &resource);
    assert!(said.contains(ELSEWHERE), "{said}");
    let other = StateDir::at(&one).unwrap().host_wide();
    assert!(matches!(
        other.refusal(&resource),
        Ok(Some(ClaimError::Elsewhere { .. }))
    ));
    claim.release().unwrap();
    assert!(other.refusal(&resource).unwrap().is_none());
}

/// What a user tries who wants to read, forge or block root's claims.
#[test]
#[ignore = "not a test: the stranger"]
fn stranger() {
    let scene = std::path::PathBuf::from(std::env::var_os(SCENE).unwrap());
    let state = scene.join("state");
    let denied = |what: &str, outcome: std::io::Result<()>| {
        let kind = outcome.map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::PermissionDenied), "{what}");
    };
    denied("list", fs::read_dir(&state).map(drop));
    for name in ["cpu-7.json", "cpu-7.lock"] {
        let path = state.join(name);
        denied("read", fs::File::open(&path).map(drop));
        denied("write", fs::OpenOptions::new().write(true).open(&path).map(drop));
        denied("remove", fs::remove_file(&path));
        denied("name twice", fs::hard_link(&path, scene.join("mine").join(name)));
    }
    denied("forge", fs::write(state.join("cpu-8.json"), "{}"));
    denied("link", symlink("/etc/passwd", state.join("cpu-8.draft")));
    denied("replace", fs::rename(&state, scene.join("mine/state")));
    denied("block", fs::File::open("/dev/pellucid-claims").map(drop));
    let refusal = StateDir::at(&state).unwrap_err();
    assert!(matches!(refusal, ClaimError::State { .. }), "{refusal}");
}

#[test]
fn another_user_can_neither_read_nor_forge_nor_block() {
    let directory = scratch();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let claim = state.claim(Resource::new(Resource::CPU, "7"), "db1").unwrap();
    // Makes the file of marks, if nobody has yet.
    let _marks = state.clone().host_wide();
    let own = directory.path().join("mine");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let status = Command::new("/proc/self/exe")
        .args(["--ignored", "--exact", "--nocapture", "stranger"])
        .env(SCENE, directory.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .unwrap();
    assert!(status.success());
    claim.release().unwrap();
    // What a stranger made first is not used, whatever it looks like.
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(StateDir::at(&own), Err(ClaimError::State { .. })));
}
