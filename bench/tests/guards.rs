//! Counting instructions, in the build that tests have: the same twice, more than was recorded is told and fails, and
//! counts of another build are not compared with.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn guards(recorded: &Path, more: &[&str]) -> Output {
    let directory = recorded.parent().expect("the file is in a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kami-bench"));
    command.arg("guards").arg("--recorded").arg(recorded).arg("--dir").arg(directory).args(more);
    let output = command.output().expect("the program starts");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_count_above_what_was_recorded_is_named_and_fails() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("NOT RUN: valgrind is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let recorded = directory.path().join("guards.toml");
    assert_eq!(guards(&recorded, &["--json"]).status.code(), Some(6), "nothing was recorded yet");

    assert_eq!(guards(&recorded, &["--record"]).status.code(), Some(0));
    let again = guards(&recorded, &["--json"]);
    assert_eq!(again.status.code(), Some(0));
    let result: Value = serde_json::from_slice(&again.stdout).expect("one line of JSON");
    let counts = result["instructions"].as_object().expect("an object");
    assert_eq!(counts.len(), 7, "{result}");
    for (name, count) in counts {
        let change = count["change_percent"].as_f64().expect("a number");
        assert!(change.abs() < 0.5, "{name} is not the same twice: {count}");
    }

    // As if the digest had taken a tenth less when it was recorded.
    let text = std::fs::read_to_string(&recorded).expect("the file");
    let digest = counts["digest"]["recorded"].as_f64().expect("a number");
    let less = text.replace(&format!("digest = {digest:.1}"), &format!("digest = {:.1}", digest / 1.1));
    assert_ne!(less, text);
    std::fs::write(&recorded, less).expect("the file");
    let more = guards(&recorded, &[]);
    assert_eq!(more.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&more.stderr).contains("`digest` is more than 5 % above"));

    std::fs::write(&recorded, text.replace("build = \"debug\"", "build = \"other\"")).expect("the file");
    assert_eq!(guards(&recorded, &[]).status.code(), Some(6));
}
