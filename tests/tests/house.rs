//! Facts about this house that can be checked: who may use whom, where `unsafe` and clocks may stand, what
//! nothing is called. Taste is not tested; it is read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kami_tests::planted::MISTAKES;

const CRATES: [&str; 6] = ["wal", "engine", "net", "server", "bench", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All files of the six crates and the documents that end in one of `endings`, with their text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = CRATES.iter().chain(&["docs"]).map(|dir| root.join(dir)).collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().unwrap() != "target" {
                    open.push(path);
                }
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The names of the crates that `[dependencies]` of a manifest lists.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]"
            && let Some(name) = line.split(['.', ' ', '=']).next()
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn dependencies_run_one_way() {
    let own = |manifest| -> Vec<String> {
        dependencies(manifest).into_iter().filter(|name| name.starts_with("kami-")).collect()
    };
    assert_eq!(own("wal"), Vec::<String>::new(), "the log knows no cards");
    assert_eq!(own("engine"), ["kami-wal"], "the engine knows no sockets");
    assert!(
        own("net").iter().all(|name| name == "kami-engine"),
        "the wire reaches the log through the engine"
    );
    for name in ["tokio", "quinn", "rustls", "rcgen"] {
        assert!(!dependencies("engine").contains(name), "the engine runs without {name}");
        assert!(!dependencies("wal").contains(name), "the log runs without {name}");
    }
}

/// The files where `unsafe` may stand: mappings, direct memory, epoch pointers. Each allows it at its head.
const UNSAFE: [&str; 3] = ["engine/src/index.rs", "engine/src/region.rs", "wal/src/memory.rs"];

#[test]
fn unsafe_stands_in_named_files() {
    let mut used = BTreeSet::new();
    for (name, text) in files(&[".rs"]) {
        if name.ends_with("tests/house.rs") {
            continue;
        }
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let has = code.into_iter().any(|line| {
            line.contains("unsafe {") || line.contains("unsafe impl") || line.contains("unsafe fn")
        });
        if has || text.contains("allow(unsafe_code)") {
            used.insert(name);
        }
    }
    assert_eq!(used, UNSAFE.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn engine_time_comes_from_one_file() {
    for (name, text) in files(&[".rs"]) {
        if name.starts_with("engine/src/") && name != "engine/src/clock.rs" {
            for clock in ["SystemTime", "clock_gettime"] {
                assert!(!text.contains(clock), "{name} reads a clock");
            }
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks =
        [concat!("FIX", "ME"), concat!("XX", "X"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    for (name, text) in files(&[".rs", ".md", ".toml"]) {
        for mark in marks {
            assert!(!text.contains(mark), "{name} says {mark}");
        }
    }
}

#[test]
fn no_file_is_a_drawer() {
    for (name, _) in files(&[".rs"]) {
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        for drawer in ["util", "utils", "helper", "helpers", "common", "manager", "impls", "misc", "v2"] {
            assert_ne!(stem, drawer, "{name}");
        }
    }
}

#[test]
fn documents_link_to_what_is_there() {
    let mut documents = files(&[".md"]);
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        documents.push((name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
    }
    for (name, text) in &documents {
        let here = root().join(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(here.parent().unwrap().join(path).exists(), "{name} links to {path}");
        }
    }
}

/// No build of this workspace tells when a file moves that the fuzz targets share with the tests.
#[test]
fn the_fuzz_targets_take_files_that_are_there() {
    let sources = root().join("fuzz/src");
    let text = fs::read_to_string(sources.join("lib.rs")).unwrap();
    let taken: Vec<&str> =
        text.split("#[path = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!taken.is_empty());
    for path in taken {
        assert!(sources.join(path).exists(), "fuzz/src/lib.rs takes {path}");
    }
}

#[test]
fn the_readme_has_its_two_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["cargo run --release -- demo", "cargo test --workspace"] {
        assert!(readme.contains(command), "the README lacks `{command}`");
    }
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("cargo test --workspace"), "CI runs the README's tests");
}

/// A mistake that no test is named for, or that nobody makes any more, shows nothing.
#[test]
fn every_planted_mistake_is_listed_with_its_test() {
    let mut asked = BTreeSet::new();
    for (name, text) in files(&[".rs"]) {
        if name.contains("/src/") && !name.starts_with("tests/") && name != "wal/src/planted.rs" {
            let calls = text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next());
            asked.extend(calls.map(str::to_owned));
        }
    }
    let listed: BTreeSet<String> = MISTAKES.iter().map(|mistake| mistake.name.to_owned()).collect();
    assert_eq!(asked, listed);
    let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    for mistake in MISTAKES {
        assert!(!mistake.caught_by.is_empty(), "{}", mistake.name);
        let row = format!("| `{}` | {} |", mistake.name, mistake.what);
        assert!(document.contains(&row), "docs/testing.md lacks `{row}`");
    }
}
