//! The comparison with the peers, small: every contender that is installed has its figure and its spread,
//! the others are named.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_contender_has_a_figure_or_is_named_as_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_kami-bench"))
        .args([
            "peers",
            "--json",
            "--rounds",
            "1",
            "--cards",
            "2000",
            "--seconds",
            "0.3",
            "--no-pin",
            "--dir",
        ])
        .arg(directory.path())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(result["errors"], 0);
    let missing = result["missing"].as_array().expect("a list");
    for (peer, figures) in [
        (
            "kami",
            &["kami_engine_redeem", "kami_quic_redeem", "echo", "fsync_p50_us", "kami_recover_seconds"][..],
        ),
        ("redis", &["redis_always_p1", "redis_always_p16", "redis_always_p64", "redis_everysec_p64"]),
        ("postgres", &["postgres_c64"]),
    ] {
        for figure in figures {
            let told = result[*figure].as_f64().is_some_and(|value| 0.0 < value);
            assert_eq!(told, !missing.contains(&peer.into()), "{figure} of {result}");
            assert_eq!(result[format!("spread_{figure}")].is_object(), told);
        }
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
