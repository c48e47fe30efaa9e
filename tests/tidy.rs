//! The style guide as a test: what the compiler and clippy cannot check about this source tree.
//!
//! Each rule reads text and returns findings. A rule is first shown something bad that it must find.

#[path = "tidy/project.rs"]
mod project;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;

use std::path::Path;

use tree::File;

type Rule = fn(&[File]) -> Vec<String>;

/// Applies a rule to the whole project.
#[track_caller]
fn assert_holds(rule: Rule) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = tree::read(root).unwrap_or_default();
    assert!(
        files.iter().any(|file| file.path == "tests/tidy.rs"),
        "the source tree cannot be read"
    );
    let findings = rule(&files);
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Whether the rule finds something in a tree of this one file.
fn finds(rule: Rule, path: &str, text: &str) -> bool {
    !rule(&[File::new(path, text)]).is_empty()
}

#[test]
fn siblings_do_not_know_each_other() {
    let depends_on = |table: &str, name: &str| format!("[package]\nname = \"x\"\n\n[{table}]\n{name}\n");
    let bad = depends_on("dependencies", "pellucid-vcpu.workspace = true");
    assert!(finds(project::wrong_arrows, "image/Cargo.toml", &bad));
    let bad = depends_on(
        "target.'cfg(loom)'.dev-dependencies",
        "pellucid-image = { path = \"../image\" }",
    );
    assert!(finds(project::wrong_arrows, "vcpu/Cargo.toml", &bad));
    let bad = depends_on(
        "dependencies",
        "own = { package = \"pellucid-vcpu\", path = \"../vcpu\" }",
    );
    assert!(finds(project::wrong_arrows, "partition/Cargo.toml", &bad));
    let bad = depends_on("dependencies.pellucid", "path = \"..\"");
    assert!(finds(project::wrong_arrows, "testbed/Cargo.toml", &bad));
    assert!(finds(project::wrong_arrows, "newcomer/Cargo.toml", ""));
    let good = depends_on("dependencies", "pellucid-partition.workspace = true");
    assert!(!finds(project::wrong_arrows, "image/Cargo.toml", &good));

    assert_holds(project::wrong_arrows);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = "[dependencies]\ngpt.workspace = true\n\n[workspace.dependencies]\nzip = \"1\"\n";
    let tree = |record| {
        let record = File::new("docs/decisions/0001-dependencies.md", record);
        [File::new("image/Cargo.toml", manifest), record]
    };
    assert_eq!(project::unreasoned_dependencies(&tree("no words")).len(), 1);
    assert_eq!(
        project::unreasoned_dependencies(&tree("| `gpt` | image |\n| `rand` | image |")).len(),
        1
    );
    assert!(project::unreasoned_dependencies(&tree("| `gpt` | reads tables |")).is_empty());

    assert_holds(project::unreasoned_dependencies);
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    let bad = "fn f() { unsafe { g() } }";
    assert!(finds(source::unsafe_outside_sys, "vcpu/src/run.rs", bad));
    assert!(finds(source::unsafe_outside_sys, "vcpu/tests/run.rs", bad));
    assert!(!finds(source::unsafe_outside_sys, "vcpu/src/sys/run.rs", bad));
    assert!(!finds(
        source::unsafe_outside_sys,
        "vcpu/src/run.rs",
        "// unsafe\nfn f() { g(r#\"unsafe\"#) }"
    ));
    let admitted = "#![allow(unsafe_code, reason = \"x\")]";
    assert!(finds(source::unsafe_outside_sys, "vcpu/src/run.rs", admitted));

    assert_holds(source::unsafe_outside_sys);
}

#[test]
fn the_parsers_and_the_facade_forbid_unsafe_code() {
    let roots = |text| {
        ["image", "chipset", "twin", "."]
            .map(|folder| File::new(&format!("{folder}/src/lib.rs").replace("./", ""), text))
    };
    assert_eq!(
        source::forbids_missing(&roots("//! #![forbid(unsafe_code)]")).len(),
        4
    );
    assert!(source::forbids_missing(&roots("#![forbid(unsafe_code)]")).is_empty());

    assert_holds(source::forbids_missing);
}

#[test]
fn files_can_be_read_in_one_go() {
    let long = "fn f() {}\n".repeat(301);
    assert!(finds(shape::long_files, "image/src/disk.rs", &long));
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{long}}}\n",
        "fn f() {}\n".repeat(300)
    );
    assert!(!finds(shape::long_files, "image/src/disk.rs", &tested));
    assert!(!finds(shape::long_files, "image/tests/disk.rs", &long));
    assert!(finds(shape::long_files, "image/tests/disk.rs", &long.repeat(2)));

    assert_holds(shape::long_files);
}

#[test]
fn every_file_says_what_it_is() {
    assert!(finds(
        shape::headers_missing,
        "image/src/disk.rs",
        "use std::io;\n"
    ));
    assert!(finds(
        shape::headers_missing,
        "image/src/disk.rs",
        &"//! More.\n".repeat(7)
    ));
    assert!(finds(
        shape::headers_missing,
        "image/src/lib.rs",
        "//! A library.\n"
    ));
    assert!(!finds(
        shape::headers_missing,
        "image/src/disk.rs",
        "//! A disk.\n\nuse std::io;\n"
    ));
    let shown = "#![doc = include_str!(\"../README.md\")]\n";
    assert!(!finds(shape::headers_missing, "image/src/lib.rs", shown));

    assert_holds(shape::headers_missing);
}

#[test]
fn no_type_holds_more_than_a_reader_can() {
    let fields: String = (0..13)
        .map(|n| format!("    /// N.\n    pub f{n}: Map<u8, [u8; 2]>,\n"))
        .collect();
    assert!(finds(
        shape::crowded_types,
        "vcpu/src/run.rs",
        &format!("pub struct Run<'a> {{\n{fields}}}")
    ));
    let variants: String = (0..13)
        .map(|n| format!("    #[error(\"a, b\")]\n    V{n} {{ a: u8, b: u8 }},\n"))
        .collect();
    assert!(finds(
        shape::crowded_types,
        "vcpu/src/error.rs",
        &format!("enum RunError {{\n{variants}}}")
    ));
    assert!(!finds(
        shape::crowded_types,
        "vcpu/src/run.rs",
        &format!("enum Register {{\n{variants}}}")
    ));
    let twelve = fields.lines().skip(2).collect::<String>();
    assert!(!finds(
        shape::crowded_types,
        "vcpu/src/run.rs",
        &format!("struct Run {{ {twelve} }}")
    ));
    assert!(!finds(
        shape::crowded_types,
        "vcpu/src/run.rs",
        &format!("struct Unit;\nfn f() {{ {fields} }}")
    ));

    assert_holds(shape::crowded_types);
}

#[test]
fn names_say_what_things_are() {
    for bad in [
        "fn get_size() {}",
        "fn process_exit() {}",
        "struct DeviceManager;",
        "mod utils;",
        "enum RunContext {}",
    ] {
        assert!(finds(source::empty_names, "vcpu/src/run.rs", bad), "{bad}");
    }
    assert!(finds(source::empty_names, "vcpu/src/common.rs", ""));
    let own = "impl Foreign for Run {}\nimpl Run {\n    fn get_size() {}\n}";
    assert!(finds(source::empty_names, "vcpu/src/run.rs", own));
    assert!(finds(source::empty_names, "vcpu/src/test_helpers/run.rs", ""));
    let good = "fn getter() {}\nstruct Commonplace;\n// fn get_size()\nfn settle() {}\nimpl Foreign for Run {\n    fn get_size() {}\n}";
    assert!(!finds(source::empty_names, "vcpu/src/run.rs", good));

    assert_holds(source::empty_names);
}

#[test]
fn nothing_unfinished_is_left_in() {
    for bad in [
        "todo!()",
        "unimplemented!(\"later\")",
        "dbg!(x)",
        "#[ignore = \"slow\"]\nfn f() {}",
    ] {
        assert!(finds(source::unfinished, "vcpu/tests/run.rs", bad), "{bad}");
    }
    assert!(!finds(
        source::unfinished,
        "vcpu/src/run.rs",
        "// todo!()\nlet x = \"dbg!(x)\";"
    ));
    let child = "#[ignore = \"not a test: the others start and kill it\"]\nfn owner() {}";
    assert!(!finds(source::unfinished, "vcpu/tests/run.rs", child));

    assert_holds(source::unfinished);
}

#[test]
fn every_silenced_lint_says_why() {
    for bad in [
        "#[allow(dead_code)]",
        "#![expect(clippy::panic)]",
        "#[cfg_attr(test, allow(unused))]",
    ] {
        assert!(
            finds(source::unreasoned_exceptions, "vcpu/src/run.rs", bad),
            "{bad}"
        );
    }
    let good =
        "#[allow(\n    dead_code,\n    reason = \"(why)\"\n)]\nlet a = b.expect(\"c\");\nfn allow(d: u8) {}";
    assert!(!finds(source::unreasoned_exceptions, "vcpu/src/run.rs", good));

    assert_holds(source::unreasoned_exceptions);
}

#[test]
fn safety_is_argued_each_time_anew() {
    let cloned = "// SAFETY: trivially\n// safe.\nf();\n".repeat(3);
    assert!(finds(source::cloned_arguments, "vcpu/src/sys/run.rs", &cloned));
    let distinct = "// SAFETY: a.\nf();\n// SAFETY: b.\nf();\n".repeat(2);
    assert!(!finds(source::cloned_arguments, "vcpu/src/sys/run.rs", &distinct));

    assert_holds(source::cloned_arguments);
}

#[test]
fn product_code_is_not_swapped_when_tested() {
    assert!(finds(
        source::test_substitutes,
        "vcpu/src/run.rs",
        "#[cfg(test)]\nfn open() {}"
    ));
    assert!(finds(
        source::test_substitutes,
        "vcpu/src/run.rs",
        "#[cfg(not(test))]\nfn open() {}"
    ));
    assert!(!finds(
        source::test_substitutes,
        "vcpu/src/run.rs",
        "#[cfg(test)]\nmod tests {}"
    ));

    assert_holds(source::test_substitutes);
}

#[test]
fn tests_that_need_a_machine_are_left_to_the_testbed() {
    let test = || File::new("vcpu/tests/tier1_run.rs", "");
    let target = |switch: &str| format!("[package]\n\n[[test]]\nname = \"tier1_run\"\n{switch}\n\n[lints]\n");
    let manifest = |switch| File::new("vcpu/Cargo.toml", &target(switch));
    assert!(!project::undeclared_tiers(&[test()]).is_empty());
    assert!(!project::undeclared_tiers(&[test(), manifest("harness = true")]).is_empty());
    assert!(project::undeclared_tiers(&[test(), manifest("test = false")]).is_empty());

    assert_holds(project::undeclared_tiers);
}

#[test]
fn examples_can_be_read_at_a_glance() {
    assert!(finds(
        project::misshapen_examples,
        "examples/plan.rs",
        &"\n".repeat(19)
    ));
    assert!(finds(
        project::misshapen_examples,
        "examples/plan/main.rs",
        &"\n".repeat(81)
    ));
    assert!(!finds(
        project::misshapen_examples,
        "examples/plan.rs",
        &"\n".repeat(80)
    ));
    assert!(!finds(
        project::misshapen_examples,
        "examples/vmm/main.rs",
        &"\n".repeat(200)
    ));

    assert_holds(project::misshapen_examples);
}

#[test]
fn no_text_names_somebodys_directories_or_hosts() {
    let path = |root: &str| format!("see `/{root}/someone/x`");
    let url = |rest: &str| format!("curl http:/{}", format_args!("/{rest}"));
    assert!(finds(project::private_places, "docs/x.md", &path("home")));
    assert!(finds(project::private_places, "docs/x.md", &path("work")));
    assert!(finds(
        project::private_places,
        ".ci/run",
        &url("mirror.corp.internal/debian")
    ));
    assert!(finds(
        project::private_places,
        "Cargo.toml",
        &url("10.0.0.1:8080/index")
    ));
    let good = "see https://docs.rs/x, http://a.example/debian, /run/pellucid and network/work/x";
    assert!(!finds(project::private_places, "docs/x.md", good));

    assert_holds(project::private_places);
}
