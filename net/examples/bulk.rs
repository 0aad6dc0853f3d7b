//! Many redemptions under way at once on one stream: how a platform redeems hundreds of thousands a second.
//!
//! ```text
//! kami serve --sandbox
//! cargo run --release -p kami-net --example bulk -- 127.0.0.1:7400 kami-sandbox.keys/redeemer < codes.txt
//! ```
//! One code a line on standard input. At the end the number of each outcome.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io::BufRead;
use std::path::Path;

use kami_engine::RequestId;
use kami_net::client::Received;
use kami_net::frame::request::Redeem;
use kami_net::frame::{Opcode, Request, RequestHead, Secret};
use kami_net::{Client, ClientOptions, Identity};

/// Frames in one write, and without a reply.
const BATCH: usize = 64;
const WINDOW: usize = 4096;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(identity)) = (args.next(), args.next()) else {
        return Err("usage: bulk ADDR IDENTITY < CODES".into());
    };
    let client = Client::connect(ClientOptions::new(server.parse()?, Identity::load(Path::new(&identity))?));
    let client = client.await?;
    let (mut sender, mut receiver) = client.channel().await?;
    let mut codes = std::io::stdin().lock().lines();
    let mut outcomes = BTreeMap::<&str, u64>::new();
    // What has no reply yet. Replies come in the order of the requests.
    let mut waiting = VecDeque::with_capacity(WINDOW);
    let mut more = true;
    while more || !waiting.is_empty() {
        while more && waiting.len() < WINDOW {
            for _ in 0..BATCH {
                let Some(code) = codes.next().transpose()? else {
                    more = false;
                    break;
                };
                let id = RequestId::random();
                let redeem = Redeem { amount: 0, code: Secret(code.as_bytes()), pin: None };
                sender.push(&RequestHead::new(Opcode::Redeem, id), &Request::Redeem(redeem))?;
                waiting.push_back(id);
            }
            sender.flush().await?;
        }
        if waiting.is_empty() {
            break;
        }
        let received = receiver
            .receive(|reply| {
                let Ok(head) = reply.head() else { return };
                assert_eq!(Some(head.request), waiting.pop_front(), "replies come in order");
                *outcomes.entry(head.status.code()).or_default() += 1;
            })
            .await?;
        if matches!(received, Received::End) {
            // The ids in `waiting` have an unknown outcome: each is sent again, with its id, by
            // `Client::send_as` or over a new channel.
            return Err(format!("the stream ended; {} outcomes are unknown", waiting.len()).into());
        }
    }
    for (outcome, count) in outcomes {
        println!("{count:>10}  {outcome}");
    }
    client.close().await;
    Ok(())
}
