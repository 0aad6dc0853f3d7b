//! Who changed what, and why, from the command line.

use crate::store::Home;

#[test]
fn changes_are_listed_with_their_reasons() {
    let home = Home::new();
    let server = home.serve();
    let terms = ["--face", "5", "--currency", "CNY", "--valid-days", "365", "--why", "autumn range"];
    server.json(&[&["product", "add", "tea"], &terms[..]].concat());
    home.file("cards.txt", "TEA-0001\nTEA-0002\n");
    server.json(&["import", "cards.txt", "--product", "tea"]);
    server.json(&["freeze", "TEA-0001", "--why", "客户报失"]);
    server.json(&["batch", "freeze", "1"]);
    server.run(&["freeze", "TEA-0002", "--why", ""]).refuses_usage("1 to 255 bytes");
    server.run(&["freeze", "TEA-0002", "--why", &"x".repeat(256)]).refuses_usage("1 to 255 bytes");

    let history = server.json(&["history", "TEA-0001"]);
    assert_eq!(history["events"][0]["why"], "客户报失");
    assert!(server.run(&["history", "TEA-0001"]).out.contains("客户报失"));
    let changes = server.json(&["changes"]);
    let changes = changes["changes"].as_array().unwrap();
    let told: Vec<_> =
        changes.iter().map(|change| (change["kind"].as_str().unwrap(), change["why"].as_str())).collect();
    let expected = [
        ("PRODUCT_PUT", Some("autumn range")),
        ("IMPORT", None),
        ("FREEZE", Some("客户报失")),
        ("BATCH_FREEZE", None),
    ];
    assert_eq!(told[told.len() - 4..], expected);
    assert_eq!(changes.last().unwrap()["by"], "admin");
    assert_eq!(server.json(&["changes", "--last", "1"])["changes"].as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["changes", "--since", "2099-01-01"])["changes"].as_array().unwrap().len(), 0);
    let bare = server.json(&["changes", "--without-why", "--by", "admin"]);
    let bare = bare["changes"].as_array().unwrap();
    assert!(bare.iter().all(|change| change["why"].is_null()) && !bare.is_empty());
    server.run(&["changes", "--by", "nobody"]).fails(3, "there is no principal");

    // A reason that was given is kept, whatever the command.
    for (kind, arguments) in [
        ("BATCH_UNFREEZE", &["batch", "unfreeze", "1"][..]),
        ("UNFREEZE", &["unfreeze", "TEA-0001"]),
        ("DEACTIVATE", &["deactivate", "TEA-0001"]),
        ("ACTIVATE", &["activate", "TEA-0001"]),
        ("BATCH_DEACTIVATE", &["batch", "deactivate", "1", "--rows", "0..1"]),
        ("BATCH_ACTIVATE", &["batch", "activate", "1", "--rows", "0..1"]),
        ("BATCH_EXTEND", &["batch", "extend", "1", "2090-01-01"]),
        ("EXTEND", &["extend", "TEA-0001", "2098-12-31"]),
        ("EXPIRE", &["expire", "TEA-0001"]),
        ("BATCH_VOID", &["batch", "void", "1"]),
        ("PRODUCT_FREEZE", &["product", "freeze", "tea"]),
        ("PRODUCT_UNFREEZE", &["product", "unfreeze", "tea"]),
    ] {
        server.json(&[arguments, &["--why", kind]].concat());
        let last = &server.json(&["changes", "--last", "1"])["changes"][0];
        assert_eq!((last["kind"].as_str(), last["why"].as_str()), (Some(kind), Some(kind)));
    }
    server.stop();
}
