//! What takes two people, from the command line, through kills: two operators, an admin and a deputy.

use std::os::unix::fs::PermissionsExt;

use crate::store::{Home, Server};

/// Runs a command as somebody.
fn by(server: &Server, who: &str, arguments: &[&str]) -> crate::store::Ended {
    server.run(&[arguments, &["--identity", who, "--json"]].concat())
}

#[test]
fn what_takes_two_people_is_done_by_two_once() {
    let home = Home::new();
    let server = home.serve();
    for (name, role) in [("anna", "operator"), ("bo", "operator"), ("shop", "seller"), ("till", "redeemer")] {
        server.json(&["principal", "add", name, "--role", role, "--out", name]);
    }
    let codes: Vec<String> = (1..=9).map(|number| format!("TEA-000{number}")).collect();
    server.stock("tea", "5", codes.join("\n") + "\n");
    by(&server, "shop", &["sell", "tea", "--count", "3", "--order", "7"]).json();

    // VOID of a sold card.
    by(&server, "anna", &["void", "TEA-0001", "--why", "stolen"]).fails(3, "PROPOSE");
    server.run(&["void", "TEA-0001", "--propose", "--identity", "anna"]).refuses_usage("--why");
    let why = ["--propose", "--why", "reported stolen"];
    by(&server, "till", &[&["void", "TEA-0001"], &why[..]].concat()).fails(3, "FORBIDDEN");
    let proposed = by(&server, "anna", &[&["void", "TEA-0001"], &why[..]].concat()).json();
    assert_eq!((&proposed["kind"], &proposed["state"]), (&"VOID".into(), &"OPEN".into()));
    let id = proposed["id"].as_str().unwrap();
    by(&server, "anna", &["approve", id]).fails(3, "SECOND_PERSON_REQUIRED");
    server.kill();
    let server = home.serve();
    let listed = by(&server, "bo", &["proposals"]).json();
    assert_eq!(listed["proposals"][0]["id"], id);
    assert_eq!(listed["control"]["dual_control"], false);
    assert!(server.run(&["proposals", "--identity", "bo"]).out.contains("reported stolen"));
    let approval = ["approve", id, "--id", "0123456789abcdef0123456789abcdef", "--why", "police report 4711"];
    assert_eq!(by(&server, "bo", &approval).json()["state"], "APPROVED");
    server.kill();
    let server = home.serve();
    assert_eq!(by(&server, "bo", &approval).json()["state"], "APPROVED", "the same again");
    by(&server, "bo", &["approve", id]).fails(3, "PROPOSAL_DONE");
    assert_eq!(server.json(&["query", "TEA-0001"])["state"], "VOIDED");
    let history = server.json(&["history", "TEA-0001"]);
    assert_eq!(history["events"][0]["why"], "reported stolen");
    assert_eq!(history["events"][0]["approval"], id);
    let (anna, bo) = (&history["events"][0]["principal"], &history["events"][0]["approver"]);
    assert_eq!((anna, bo), (&2.into(), &3.into()));
    let changes = server.json(&["changes", "--last", "3"]);
    let told: Vec<_> =
        changes["changes"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(told, ["PROPOSE", "APPROVE", "VOID"]);
    assert_eq!(changes["changes"][2]["approved_by"], "bo");

    // Codes of another's order.
    by(&server, "anna", &["order", "7"]).fails(3, "APPROVAL_REQUIRED");
    let lost = by(&server, "anna", &["order", "7", "--propose", "--why", "the shop lost its copy"]).json();
    let id = lost["id"].as_str().unwrap();
    by(&server, "anna", &["order", "7", "--approval", id]).fails(3, "APPROVAL_REQUIRED");
    by(&server, "bo", &["approve", id]).json();
    by(&server, "bo", &["order", "7", "--approval", id]).fails(3, "NOT_FOUND");
    let out = ["order", "7", "--approval", id, "--out", "order.txt"];
    assert_eq!(by(&server, "anna", &out).json()["count"], 2);
    assert_eq!(home.text("order.txt"), "TEA-0002\nTEA-0003\n");
    let mode = std::fs::metadata(home.path("order.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    by(&server, "anna", &out).fails(2, "order.txt");

    // Unsold codes leave through an approved export alone, and are sold with it.
    let export = by(&server, "anna", &["batch", "export", "1", "--count", "4", "--why", "printer"]).json();
    let id = export["id"].as_str().unwrap();
    let fetch = ["batch", "export", "1", "--proposal", id, "--out", "printer.txt"];
    by(&server, "anna", &fetch).fails(3, "approve it first");
    by(&server, "bo", &["approve", id]).json();
    server.kill();
    let server = home.serve();
    assert_eq!(by(&server, "anna", &fetch).json()["count"], 4);
    assert_eq!(home.text("printer.txt"), "TEA-0004\nTEA-0005\nTEA-0006\nTEA-0007\n");
    assert_eq!(server.json(&["query", "TEA-0004"])["state"], "SOLD");
    by(&server, "anna", &["return", id]).json();
    assert_eq!(server.json(&["query", "TEA-0004"])["state"], "RETURNED", "its code was seen");
    by(&server, "shop", &["sell", "tea", "--count", "3", "--order", "8"]).fails(3, "OUT_OF_STOCK");

    // Refunds, once the tenant wants it; and nobody alone decides that it does not any more.
    server.run(&["tenant", "set", "--dual-control", "on"]).fails(3, "SECOND_PERSON_REQUIRED");
    server.json(&["principal", "add", "deputy", "--role", "admin", "--out", "deputy"]);
    assert_eq!(server.json(&["tenant", "set", "--dual-control", "on"])["dual_control"], true);
    let redeem = by(&server, "till", &["redeem", "TEA-0002"]).json();
    let original = redeem["request"].as_str().unwrap();
    server.json(&["settle", "TEA-0002"]);
    let refund = ["refund", "TEA-0002", "--original", original];
    by(&server, "anna", &refund).fails(3, "APPROVAL_REQUIRED");
    let proposed = by(&server, "anna", &[&refund[..], &["--propose", "--why", "goodwill"]].concat()).json();
    by(&server, "bo", &["approve", proposed["id"].as_str().unwrap()]).json();
    assert_eq!(server.json(&["query", "TEA-0002"])["state"], "SOLD");
    let off = ["tenant", "set", "--dual-control", "off"];
    server.run(&off).fails(3, "APPROVAL_REQUIRED");
    let proposed = server.json(&[&off[..], &["--propose", "--why", "one admin left"]].concat());
    let id = proposed["id"].as_str().unwrap();
    server.run(&["approve", id]).fails(3, "SECOND_PERSON_REQUIRED");
    by(&server, "deputy", &["proposals", "withdraw", id]).fails(3, "FORBIDDEN");
    server.json(&["proposals", "withdraw", id]);
    by(&server, "deputy", &["approve", id]).fails(3, "PROPOSAL_WITHDRAWN");
    let all = server.json(&["proposals", "--all"]);
    let states: Vec<_> =
        all["proposals"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["APPROVED", "APPROVED", "APPROVED", "APPROVED", "WITHDRAWN"]);
    server.stop();
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!(verified["problems"].as_array().unwrap().len(), 0);
}
