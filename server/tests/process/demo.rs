//! The demo is what people run first: its figures, its exit code, and that it leaves nothing behind.

use std::collections::BTreeSet;

use crate::store::Home;

#[test]
fn the_demo_proves_what_it_says_and_cleans_up() {
    let home = Home::new();
    let ended = home.run(&["demo", "--cards", "6000", "--json"]);
    let report = ended.json();
    let fields: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = [
        "cards",
        "sold",
        "redeemed",
        "acknowledged",
        "lost",
        "done_twice",
        "unknown_resolved",
        "recover_seconds",
        "sell_per_s",
        "redeem_per_s",
        "durable",
        "commit_path",
    ];
    assert_eq!(fields, BTreeSet::from(promised));
    assert_eq!((&report["lost"], &report["done_twice"]), (&0.into(), &0.into()));
    assert_eq!((&report["sold"], &report["redeemed"]), (&6000.into(), &6000.into()));
    assert!(report["unknown_resolved"].as_u64().unwrap() >= 1000, "{report}");
    assert!(ended.err.contains("SIGKILL"), "{ended:?}");
    let left: Vec<_> = std::fs::read_dir(home.path(".")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
