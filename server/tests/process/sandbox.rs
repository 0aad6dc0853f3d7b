//! The sandbox: every card it shows answers as it says, and nothing of it stays.

use crate::store::Home;

#[test]
fn every_sample_answers_as_it_says_and_nothing_stays() {
    let home = Home::new();
    let server = home.try_serve(&["--sandbox"]).unwrap();
    let shown = std::fs::read(home.path("kami-sandbox.keys/sandbox.json")).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    let samples = shown["cards"].as_array().unwrap();
    assert!(samples.len() > 10, "{samples:?}");
    let till = home.path("kami-sandbox.keys/redeemer");
    for sample in samples {
        let code = sample["code"].as_str().unwrap();
        let mut redeem = vec!["redeem", code, "--json", "--identity", till.to_str().unwrap()];
        if let Some(pin) = sample["pin"].as_str() {
            redeem.extend(["--pin", pin]);
        }
        let reply: serde_json::Value = serde_json::from_str(&server.run(&redeem).out).unwrap();
        let answer = reply["status"].as_str().unwrap_or("OK");
        assert_eq!(answer, sample["redeem"], "{code}: {reply}");
    }
    let shop = home.path("kami-sandbox.keys/seller");
    let sold = server.json(&[
        "sell",
        "coffee",
        "--count",
        "3",
        "--order",
        "a",
        "--identity",
        shop.to_str().unwrap(),
    ]);
    assert_eq!(sold["count"], 3);
    // A second one has no place here.
    home.run(&["serve", "--sandbox", "--listen", "127.0.0.1:0"]).fails(6, "needs this directory");
    home.run(&["serve", "--sandbox", "--data", "x"]).fails(2, "brings its own data");
    home.run(&["serve"]).fails(2, "--data");

    assert_eq!(server.stop().code, Some(0));
    assert!(!home.path("kami-sandbox").exists() && !home.path("kami-sandbox.keys").exists());
}
