//! A card is proven by the real server and checked by the real binary in an empty directory, and a log that was tampered
//! with is caught.

use std::os::unix::fs::FileExt;

use crate::store::{Home, Server};

/// What a command that must be done prints.
#[track_caller]
fn ok(server: &Server<'_>, arguments: &[&str]) -> String {
    server.run(arguments).done()
}

/// A stranger's machine: neither store nor keys, and no server to ask.
fn stranger(files: &[(&str, &str)]) -> Home {
    let stranger = Home::new();
    for (name, text) in files {
        stranger.file(name, text);
    }
    stranger
}

#[test]
fn a_card_is_proven_to_a_stranger_and_a_tampered_log_is_caught() {
    let home = Home::new();
    let server = home.serve();
    let codes: Vec<String> = (0..300).map(|n| format!("COFFEE-{n:08}")).collect();
    server.stock("coffee", "28", codes.join("\n"));
    ok(&server, &["sell", "coffee", "--count", "10", "--order", "2026-0001"]);
    ok(&server, &["redeem", &codes[3], "--terminal", "17"]);
    let key = ok(&server, &["proof", "key"]).trim().to_owned();
    ok(&server, &["proof", "checkpoint", "--out", "old.checkpoint"]);
    let said = ok(&server, &["proof", &codes[3], "--out", "card.proof"]);
    assert!(said.contains("REDEEMED") && !said.contains(&codes[3]), "{said}");
    ok(&server, &["redeem", &codes[4]]);
    ok(&server, &["proof", "checkpoint", "--out", "new.checkpoint"]);
    ok(&server, &["proof", "consistency", "old.checkpoint", "new.checkpoint", "--out", "both.proof"]);
    // No code is in what is handed on.
    let texts = ["card.proof", "old.checkpoint", "new.checkpoint", "both.proof"].map(|name| home.text(name));
    assert!(texts.iter().all(|text| codes.iter().all(|code| !text.contains(code.as_str()))));

    let [card, old, new, both] = &texts;
    let far = stranger(&[("card", card), ("old", old), ("new", new), ("both", both)]);
    let verify = |file: &str, key: &str| far.run(&["proof", "verify", file, "--key", key, "--json"]);
    let proven: serde_json::Value = serde_json::from_str(&verify("card", &key).out).unwrap();
    assert_eq!((&proven["proven"], &proven["state"]), (&true.into(), &"REDEEMED".into()));
    assert_eq!(proven["events"][0]["terminal"], 17);
    assert_eq!(proven["events"].as_array().unwrap().len(), 3);
    for file in ["old", "new", "both"] {
        assert_eq!(verify(file, &key).code, Some(0), "{file}");
    }
    assert_eq!(std::fs::read_dir(far.path("")).unwrap().count(), 4, "verifying leaves nothing behind");
    // What was changed, and what another log signed, is not proven.
    let changed = card.replacen("event ", "event 1", 1);
    far.file("changed", changed);
    far.run(&["proof", "verify", "changed", "--key", &key]).fails(1, "not proven");
    far.file("nothing", [0xff, 0xfe]);
    far.run(&["proof", "verify", "nothing", "--key", &key]).fails(1, "no proof as it was written");
    far.run(&["proof", "verify", "missing", "--key", &key]).fails(6, "cannot be read");
    far.run(&["proof", "verify", "card"]).refuses_usage("--key");
    far.run(&["proof", "verify", "card", "--key", "kami/x"]).refuses_usage("verifier key");
    let other_home = Home::new();
    let other = other_home.serve();
    let other_key = ok(&other, &["proof", "key"]).trim().to_owned();
    far.run(&["proof", "verify", "card", "--key", &other_key]).fails(1, "another log");
    other.stop();
    // Whoever holds the look-up key can tell which code it is of, and nobody else.
    let keys = home.path("kami-data.keys");
    let of = |code: &str| {
        let keys = keys.to_str().unwrap();
        far.run(&["proof", "verify", "card", "--key", &key, "--code", code, "--keys", keys])
    };
    assert_eq!(of(&codes[3]).code, Some(0));
    of(&codes[4]).fails(1, "of another card");

    // The order of the checkpoints matters, and a card that nobody has is not found.
    let asked = server.run(&["proof", "consistency", "new.checkpoint", "old.checkpoint"]);
    asked.fails(2, "give the older first");
    server.run(&["proof", "COFFEE-99999999"]).fails(3, "NOT_FOUND");

    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.out.contains("checkpoints of this log by its key"), "{verified:?}");

    // A start puts in place what only a tail slot held.
    home.serve().stop().done();
    // Somebody changes the till of the redemption. (That checksums and chain made anew do not help him is a test of
    // the engine.)
    let lsn = proven["events"][0]["lsn"].as_u64().unwrap();
    let (segment, offset) = (lsn / (64 << 20), lsn % (64 << 20) + 28);
    let path = home.path(&format!("kami-data/log/{segment:010}.segment"));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut till = [0];
    file.read_exact_at(&mut till, offset).unwrap();
    assert_eq!(till, [17]);
    file.write_all_at(&[18], offset).unwrap();
    assert_eq!(home.run(&["verify", "--data", "kami-data"]).code, Some(5));
}

/// A store restored to before what was signed does not sign the other history, says why, and goes on under another name
/// when it is told to.
#[test]
fn a_restored_store_does_not_sign_against_itself() {
    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-00000001\nCOFFEE-00000002\nCOFFEE-00000003\n");
    home.run(&["backup", "--data", "kami-data", "--out", "kept"]).done();
    ok(&server, &["sell", "coffee", "--count", "2", "--order", "2026-0001"]);
    ok(&server, &["proof", "checkpoint", "--out", "old.checkpoint"]);
    let key = ok(&server, &["proof", "key"]).trim().to_owned();
    assert_eq!(server.stop().code, Some(0));

    std::fs::remove_dir_all(home.path("kami-data")).unwrap();
    home.run(&["restore", "--from", "kept", "--data", "kami-data"]).done();
    let server = home.serve_logged(&[]);
    server.run(&["proof", "checkpoint"]).fails(3, "NOT_PROVABLE");
    home.wait_for_log("does not begin with what was signed before", 1);
    // Cards are sold all the same.
    ok(&server, &["sell", "coffee", "--count", "1", "--order", "2026-0002"]);
    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data"]);
    assert_eq!(verified.code, Some(5));
    assert!(
        verified.out.contains("the log is shorter than what was signed")
            || verified.out.contains("is not what was signed"),
        "{verified:?}"
    );

    for file in ["proof.key", "proof.last"] {
        let keys = home.path("kami-data.keys");
        std::fs::rename(keys.join(file), home.path(file)).unwrap();
    }
    let server = home.serve();
    ok(&server, &["proof", "checkpoint", "--out", "new.checkpoint"]);
    assert_ne!(ok(&server, &["proof", "key"]).trim(), key);
    let asked = server.run(&["proof", "consistency", "old.checkpoint", "new.checkpoint", "--key", &key]);
    asked.fails(1, "another log");
    assert_eq!(server.stop().code, Some(0));
    home.run(&["verify", "--data", "kami-data"]).done();
}

/// A restore that is told of the keys leaves the one behind that signed what is left out, and the log announces another.
/// If nothing of what was signed is left out, it goes on.
#[test]
fn a_restore_with_its_keys_takes_the_proof_key_only_if_it_may_go_on() {
    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-00000001\nCOFFEE-00000002\nCOFFEE-00000003\n");
    ok(&server, &["proof", "checkpoint", "--out", "first.checkpoint"]);
    let key = ok(&server, &["proof", "key"]).trim().to_owned();
    let sold = server.json(&["sell", "coffee", "--count", "1", "--order", "2026-0001"]);
    ok(&server, &["proof", "checkpoint", "--out", "old.checkpoint"]);
    assert_eq!(server.stop().code, Some(0));
    home.run(&["backup", "--data", "kami-data", "--out", "kept"]).done();

    // All of it: the key goes on.
    let restore = ["restore", "--from", "kept", "--keys", "kami-data.keys", "--json"];
    let whole = home.run(&[&restore[..], &["--data", "whole"]].concat()).json();
    assert_eq!(whole["proof_key"], "copied");
    let server = home.try_serve(&["--data", "whole"]).unwrap();
    let admin = ["--identity", "whole.keys/admin"];
    assert_eq!(ok(&server, &[&["proof", "key"], &admin[..]].concat()).trim(), key);
    ok(&server, &[&["proof", "checkpoint", "--out", "later.checkpoint"], &admin[..]].concat());
    let same = ["proof", "consistency", "old.checkpoint", "later.checkpoint", "--key", &key];
    ok(&server, &[&same[..], &admin[..]].concat());
    assert_eq!(server.stop().code, Some(0));

    // Without the sale that was signed.
    let lsn = sold["lsn"].to_string();
    let before = home.run(&[&restore[..], &["--data", "before", "--until-lsn", &lsn]].concat()).json();
    assert_eq!(
        (&before["proof_key"], &before["keys_copied"][0]),
        (&"left_behind".into(), &"lookup.key".into())
    );
    assert!(!home.path("before.keys/proof.key").exists() && home.path("kami-data.keys/proof.key").exists());
    let server = home.serve_logged(&["--data", "before"]);
    let admin = ["--identity", "before.keys/admin"];
    let new = ok(&server, &[&["proof", "key"], &admin[..]].concat()).trim().to_owned();
    assert_ne!(new, key);
    home.wait_for_log("signed with a new key", 1);
    home.wait_for_log(&new, 1);
    ok(&server, &[&["proof", "checkpoint", "--out", "new.checkpoint"], &admin[..]].concat());
    let fork = ["proof", "consistency", "first.checkpoint", "new.checkpoint", "--key", &key];
    server.run(&[&fork[..], &admin[..]].concat()).fails(1, "another log");
    assert_eq!(server.stop().code, Some(0));
    home.run(&["verify", "--data", "before"]).done();
    // Where the keys cannot go, the store is there all the same.
    std::fs::create_dir(home.path("third.keys")).unwrap();
    home.file("third.keys/mine", "");
    let third = ["restore", "--from", "kept", "--keys", "kami-data.keys", "--data", "third"];
    home.run(&third)
        .fails(6, "the store is restored, but not its keys: the directory for the copy is not empty");
    home.run(&["verify", "--data", "third", "--keys", "kami-data.keys"]).done();
}

/// Tuesday's checkpoint went over Monday's, which nobody else had kept; a full disk left half of one under the name.
#[test]
fn what_an_auditor_kept_was_written_over() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-00000001\n");
    ok(&server, &["proof", "checkpoint", "--out", "monday.checkpoint"]);
    let monday = home.text("monday.checkpoint");
    ok(&server, &["sell", "coffee", "--count", "1", "--order", "1"]);
    ok(&server, &["proof", "checkpoint", "--out", "tuesday.checkpoint"]);
    let there = "is there already";
    server.run(&["proof", "checkpoint", "--out", "monday.checkpoint"]).fails(2, there);
    server.run(&["proof", "COFFEE-00000001", "--out", "monday.checkpoint"]).fails(2, there);
    let both =
        ["proof", "consistency", "monday.checkpoint", "tuesday.checkpoint", "--out", "monday.checkpoint"];
    server.run(&both).fails(2, there);
    assert_eq!(home.text("monday.checkpoint"), monday);
    // A link that leads nowhere is not followed.
    std::os::unix::fs::symlink(home.path("elsewhere"), home.path("link.proof")).unwrap();
    server.run(&["proof", "COFFEE-00000001", "--out", "link.proof"]).fails(2, there);
    assert!(!home.path("elsewhere").exists());
    // What somebody bought is for whoever asked for it.
    ok(&server, &["proof", "COFFEE-00000001", "--out", "card.proof"]);
    let mode = std::fs::metadata(home.path("card.proof")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let left: Vec<_> =
        std::fs::read_dir(home.path("")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".partial")), "{left:?}");
    server.stop();
}
