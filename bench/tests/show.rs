//! What judges, compares and draws: a soak that fails when memory is more than it may be, sizes beside each other, the
//! picture of the peers.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn bench(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kami-bench"));
    let output = command.args(args).args(["--json", "--no-pin", "--dir"]).arg(directory).output();
    let output = output.expect("the program starts");
    eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_soak_tells_both_thirds_and_fails_for_memory_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    // Half as long again as a soak must be: beside other work its first and its last second may not be whole.
    let soak =
        ["soak", "--minutes", "0.15", "--rate", "1000", "--connections", "4", "--checkpoint-every", "2"];
    // A machine that builds something beside this has any p99; no memory is half of itself.
    let strict = ["--p99-factor", "1000000", "--memory-factor", "0.5"];
    let output = bench(directory.path(), &[&soak[..], &strict].concat());
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(result["errors"], 1, "{result}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("in the last: MORE than 0.5 times"), "{told}");
    let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("no {name} in {result}"));
    let (first, last) = (number("resident_bytes_first_third"), number("resident_bytes_last_third"));
    assert!(1e6 < first && first < 2.0 * last, "{first} {last}");
    assert!(0.0 < number("p99_us_first_third") && 0.0 < number("p99_us_last_third"));
    assert!(1.0 <= number("checkpoints"));
    // Every redemption leaves an entry, every query may.
    assert!(20.0 < number("log_bytes_a_command"));
    assert!((8_900..=9_100).contains(&result["ops"].as_u64().expect("a number")));
}

#[test]
fn every_size_has_all_figures() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = bench(directory.path(), &["scale", "--sizes", "2000"]);
    assert_eq!(output.status.code(), Some(0));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    let size = &result["sizes"][0];
    assert_eq!((&size["cards"], &size["redeem_cost_ratio"]), (&2000.into(), &1.0.into()));
    for name in [
        "bytes_per_card",
        "import_peak_bytes_per_card",
        "import_cards_per_s",
        "redeem_us",
        "redeem_p99_us",
        "checkpoint_seconds",
        "checkpoint_bytes",
        "p99_us_with_checkpoint",
        "p99_us_without_checkpoint",
        "recover_seconds",
    ] {
        assert!(size[name].as_f64().is_some_and(|value| 0.0 < value), "{name} in {size}");
    }
    let refused = bench(directory.path(), &["scale", "--sizes", "2000,100000000000000"]);
    assert_eq!(refused.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("100000000000000 cards need"));
}

#[test]
fn the_picture_has_a_bar_for_each_figure_and_a_whisker_for_its_spread() {
    let directory = tempfile::tempdir().expect("a directory");
    let (from, to) = (directory.path().join("peers.json"), directory.path().join("peers.svg"));
    let figure = |median: f64, least: f64, most: f64| (median, json!({"min": least, "max": most}));
    let ((kami, kami_spread), (redis, redis_spread)) =
        (figure(3e6, 2.5e6, 3.2e6), figure(174_000.0, 174_000.0, 174_000.0));
    let mut result = json!({
        "workload": "peers", "errors": 0, "rounds": 5, "cards": 2_000_000, "machine": "a <machine>",
        "filesystem": "ext4", "commit": "abc", "missing": ["postgres"], "kami_quic_redeem": kami,
        "spread_kami_quic_redeem": kami_spread, "redis_always_p64": redis, "spread_redis_always_p64": redis_spread,
    });
    let draw = |result: &Value| {
        std::fs::write(&from, result.to_string()).expect("the result");
        let paths = [&from, &to].map(|path| path.to_str().expect("a path"));
        bench(directory.path(), &["picture", "--from", paths[0], "--out", paths[1]]).status.code()
    };
    assert_eq!(draw(&result), Some(0));
    let picture = std::fs::read_to_string(&to).expect("the picture");
    for shown in ["3 M", "174 k", "medians of 5 rounds", "a &lt;machine&gt;", "not measured: postgres"] {
        assert!(picture.contains(shown), "{shown} in {picture}");
    }
    assert_eq!(picture.matches("<rect class=\"bar\"").count(), 1);
    assert_eq!(picture.matches("<rect class=\"other\"").count(), 1);
    assert_eq!(picture.matches("class=\"whisker\"").count(), 3, "only one has a spread");
    assert!(picture.contains("prefers-color-scheme: dark"));

    result["errors"] = 1.into();
    assert_eq!(draw(&result), Some(6), "a run with errors is not drawn");
}
