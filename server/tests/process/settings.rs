//! Flags, variables, the configuration file and defaults, as a server and its operator see them.

use std::time::Duration;

use kami_net::{Client, ClientOptions};
use rustix::process::Signal;
use serde_json::Value;

use crate::store::{ADMIN, Ended, Home};

fn shown(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    let mut command = home.kami(&["serve", "--print-config", "--json"]);
    command.args(arguments).envs(variables.iter().copied());
    Ended::of(command.output().unwrap()).json()
}

#[test]
fn flag_before_variable_before_file_before_default() {
    let home = Home::new();
    home.file(
        "kami.toml",
        "data = 'from-file'\nlisten = '127.0.0.1:1'\nname = ['a.example', 'b.example']\n\
         checkpoint-mib = 7\nunsafe-filesystem = true\nlog = 'warn'\n",
    );
    let config = ["--config", "kami.toml"];
    let none = shown(&home, &["--data", "d"], &[]);
    assert_eq!(none["listen"], serde_json::json!({ "value": "127.0.0.1:7400", "from": "default" }));
    assert_eq!(none["keys"]["value"], "d.keys", "what follows from others is shown as it is");
    assert_eq!(none["metrics"]["value"], Value::Null);

    let file = shown(&home, &config, &[]);
    for (name, value) in [("data", "from-file"), ("listen", "127.0.0.1:1"), ("checkpoint-mib", "7")] {
        assert_eq!((&file[name]["value"], &file[name]["from"]), (&value.into(), &"file kami.toml".into()));
    }
    assert_eq!(file["name"]["value"], serde_json::json!(["a.example", "b.example"]));
    assert_eq!(file["unsafe-filesystem"]["value"], "true");

    let variables =
        [("KAMI_LISTEN", "127.0.0.1:2"), ("KAMI_NAME", "c.example,d.example"), ("KAMI_LOG", "info")];
    let variable = shown(&home, &config, &variables);
    assert_eq!(
        variable["listen"],
        serde_json::json!({ "value": "127.0.0.1:2", "from": "variable KAMI_LISTEN" })
    );
    assert_eq!(variable["name"]["value"], serde_json::json!(["c.example", "d.example"]));
    assert_eq!(variable["log"]["from"], "variable KAMI_LOG");
    assert_eq!(variable["checkpoint-mib"]["from"], "file kami.toml");
    let by_variable = shown(&home, &[], &[("KAMI_CONFIG", "kami.toml")]);
    assert_eq!(by_variable["listen"]["value"], "127.0.0.1:1");

    let flags = ["--config", "kami.toml", "--listen", "127.0.0.1:3", "--unsafe-filesystem=false"];
    let flag = shown(&home, &flags, &variables);
    assert_eq!(flag["listen"], serde_json::json!({ "value": "127.0.0.1:3", "from": "flag" }));
    assert_eq!(flag["unsafe-filesystem"], serde_json::json!({ "value": "false", "from": "flag" }));
    let text = home.run(&["serve", "--print-config", "--config", "kami.toml"]);
    assert!(
        text.out.contains("listen = \"127.0.0.1:1\"") && text.out.contains("# file kami.toml"),
        "{text:?}"
    );
    assert!(!home.path("from-file").exists(), "nothing is started");
}

#[test]
fn a_wrong_file_starts_nothing_and_says_why() {
    let home = Home::new();
    let serve = |text: &str| {
        home.file("kami.toml", text);
        home.run(&["serve", "--config", "kami.toml"])
    };
    serve("data = 'd'\nlisten-at = '127.0.0.1:0'\n").fails(2, "there is no setting `listen-at`");
    serve("data = 'd'\nlisten = 'here'\n").fails(2, "invalid value 'here' for '--listen <ADDR>'");
    serve("data = 'd'\n\nlisten = \n").fails(2, "line 3");
    home.run(&["serve", "--config", "nowhere.toml"]).fails(6, "check --config");
    assert!(!home.path("d").exists());
    home.run(&["serve", "--data", "d", "--metrics", "no"]).refuses_usage("--metrics");
    home.run(&["serve", "--data", "d", "--log", "loud"]).refuses_usage("it is no level");
}

#[test]
fn a_server_from_a_file_reloads_it() {
    let home = Home::new();
    let write = |log: &str, mib: u32| {
        let text =
            format!("data = 'kami-data'\nlisten = '127.0.0.1:0'\nlog = '{log}'\ncheckpoint-mib = {mib}\n");
        home.file("kami.toml", text + "log-format = 'json'\n")
    };
    write("info", 5);
    let server = home.serve_logged(&["--config", "kami.toml"]);
    server.json(&["stats"]);
    write("debug", 6);
    assert!(!home.text("log").contains("DEBUG"));
    server.signal(Signal::HUP);
    home.wait_for_log("\"message\":\"reloaded\"", 1);
    server.json(&["stats"]);
    home.wait_for_log("\"level\":\"DEBUG\"", 1);
    let log = home.text("log");
    assert!(
        log.contains("takes effect at the next start") && log.contains("\"setting\":\"checkpoint-mib\""),
        "{log}"
    );
    home.file("kami.toml", "nonsense = 1\n");
    server.signal(Signal::HUP);
    home.wait_for_log("nothing is reloaded: the configuration file cannot be used", 1);
    server.json(&["stats"]);
    assert_eq!(server.stop().code, Some(0));
    for line in home.text("log").lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(event[field].is_string(), "{line}");
        }
    }
}

/// A hall's tills come from one address and may share an identity; who runs it says how many that are.
#[test]
fn so_many_connections_as_the_settings_allow() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for limit in ["--connections", "--connections-per-address", "--connections-per-principal"] {
        let home = Home::new();
        let server = home.serve_logged(&[limit, "2"]);
        runtime.block_on(async {
            let patience = Duration::from_secs(2);
            let (first, second) = (server.client(patience).await, server.client(patience).await);
            first.stats().await.unwrap();
            second.stats().await.unwrap();
            let options = ClientOptions { timeout: patience, ..server.options(ADMIN) };
            let third = async { Client::connect(options).await?.stats().await };
            assert!(third.await.is_err(), "{limit} 2 let a third in");
            first.stats().await.unwrap();
            first.close().await;
            second.close().await;
        });
        server.json(&["stats"]);
    }
}
