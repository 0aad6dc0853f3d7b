//! A wall clock that jumps, under the real binary: before a start, and while it runs.
//!
//! Engine time never goes back, whatever the clock says. A step of more than ten minutes at a start needs an operator;
//! a smaller one is followed if it goes forward; and a running server does not look at the wall clock at all.
//!
//! `libfaketime` sets the clock of one process; where it is not installed this is NOT RUN, and says so. `KAMI_JUMPS` says
//! how many starts, 4 unless told otherwise; the engine's model makes such jumps by the thousand on a clock of its own.

use std::path::{Path, PathBuf};

use kami_tests::random::Random;

use crate::store::{Home, Server};

/// Where distributions put it, and where a variable says.
fn library() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"));
    let told = std::env::var("KAMI_FAKETIME").ok();
    told.into_iter().chain(places).map(PathBuf::from).find(|place| place.exists())
}

/// Seconds by which a clock is off, as libfaketime reads them from its file.
fn set_clock(home: &Home, seconds: i64) {
    home.file("clock", format!("{seconds:+}s\n"));
}

/// Starts a server by that clock; what it says if it does not.
fn serve<'a>(home: &'a Home, library: &Path, more: &[&str]) -> Result<Server<'a>, String> {
    let started = home.try_serve_with(more, |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", home.path("clock"));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    started.map_err(|ended| format!("{ended:?}"))
}

#[test]
fn engine_time_never_goes_back_however_the_clock_jumps() {
    let Some(library) = library() else {
        println!("NOT RUN: libfaketime is not installed");
        return;
    };
    let jumps: u64 = std::env::var("KAMI_JUMPS").map_or(4, |jumps| jumps.parse().unwrap());
    let mut random = Random::new(3);
    let home = Home::new();
    let mut off = 0;
    set_clock(&home, off);
    let mut server = serve(&home, &library, &[]).unwrap();
    server.stock("tea", "5", (0..=jumps * 2).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server.json(&["sell", "tea", "--count", &(jumps * 2 + 1).to_string(), "--order", "1"]);
    // Engine time of a change, as the card's history has it.
    let change = |server: &Server<'_>, card: u64| -> u64 {
        let code = format!("TEA-{card:08}");
        server.json(&["redeem", &code]);
        server.json(&["history", &code])["events"][0]["time_ms"].as_u64().unwrap()
    };
    let mut last_ms = change(&server, 0);
    let mut refused = 0;
    for jump in 0..jumps {
        // While it runs: nothing happens.
        set_clock(&home, off + *random.pick(&[-600, 600, 86_400, 2_592_000]));
        let now_ms = change(&server, 2 * jump + 1);
        assert!(
            now_ms >= last_ms && now_ms < last_ms + 600_000,
            "from {last_ms} to {now_ms} in a running server"
        );
        last_ms = now_ms;
        if random.percent(50) {
            server.kill()
        } else {
            assert_eq!(server.stop().code, Some(0))
        }
        // Between two starts.
        let by = if jump % 2 == 0 {
            *random.pick(if off < 3_600 { &[700, 3_600, 86_400] } else { &[-3_600, -700, 3_600] })
        } else {
            *random.pick(&[-300, -60, 60, 500])
        };
        // Never far before the first start, when nobody's certificate was valid yet.
        off += by;
        set_clock(&home, off);
        server = match serve(&home, &library, &[]) {
            Ok(server) => {
                assert!(by.abs() < 600, "a step of {by} s was taken for granted");
                server
            }
            Err(said) => {
                // A small one too, if engine time is far ahead of the clock since somebody accepted a larger one.
                assert!(said.contains("the wall clock stepped"), "{said}");
                refused += 1;
                serve(&home, &library, &["--accept-clock"]).unwrap()
            }
        };
        let now_ms = change(&server, 2 * jump + 2);
        assert!(now_ms >= last_ms, "engine time went back from {last_ms} to {now_ms} after a step of {by} s");
        last_ms = now_ms;
    }
    assert_eq!(server.json(&["stats"])["states"]["REDEEMED"], 2 * jumps + 1);
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(home.run(&["verify", "--data", "kami-data", "--json"]).json()["whole"], true);
    println!("result: the clock jumped {} times, {refused} of them needed an operator", 2 * jumps);
}
