//! A till: redeems one card as a till must, so that neither a power cut nor a lost reply costs anybody
//! anything.
//!
//! ```text
//! kami serve --sandbox
//! cargo run -p kami-net --example till -- 127.0.0.1:7400 kami-sandbox.keys/redeemer SOLD-0001
//! ```

use std::error::Error;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kami_engine::{RequestId, TerminalId};
use kami_net::client::{RedeemOptions, ReverseOptions};
use kami_net::{Client, ClientError, ClientOptions, Identity};

/// The redemption whose outcome the till does not know yet: its id, the id that its reversal would have, and the
/// code. Nobody else on the machine may read it.
const JOURNAL: &str = "till-journal.txt";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(identity), Some(code)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: till ADDR IDENTITY CODE".into());
    };
    // One client for the life of the till: it reconnects by itself.
    let identity = Identity::load(Path::new(&identity))?;
    let options = ClientOptions { terminal: TerminalId(17), ..ClientOptions::new(server.parse()?, identity) };
    let till = Client::connect(options).await?;
    let welcome = till.welcome().await?;
    println!("connected as principal {} for merchant {}", welcome.principal, welcome.merchant);

    // What the till was about to do when it was switched off. The customer of then has gone, so it is taken
    // back; if it never happened, its id is refused for good.
    let before = std::fs::read_to_string(JOURNAL).unwrap_or_default();
    if let [redemption, reversal, code] = before.trim().splitn(3, ' ').collect::<Vec<_>>()[..] {
        let id = |text| u128::from_str_radix(text, 16).map(RequestId);
        let original = id(redemption)?;
        let options = ReverseOptions { request: Some(id(reversal)?) };
        till.reverse(code.as_bytes(), original, options).await?;
        println!("taken back: {original}");
    }

    // The ids are made, and on the disk, before the first attempt.
    let (id, reversal) = (RequestId::random(), RequestId::random());
    let mut journal =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(JOURNAL)?;
    writeln!(journal, "{id} {reversal} {code}")?;
    journal.sync_all()?;

    let options = RedeemOptions { request: Some(id), ..RedeemOptions::default() };
    match till.redeem(code.as_bytes(), options).await {
        Ok(receipt) => {
            let number = receipt.lsn.map_or(0, kami_engine::Lsn::bytes);
            println!("redeemed {} minor units; receipt {number}", receipt.value.amount);
        }
        Err(ClientError::Refused { status, .. }) => {
            println!("not redeemed: {} {}", status.meaning(), status.advice());
        }
        // The client has asked again, over new connections, until its time was up. Keep the journal: the
        // next start, or a reversal when the customer leaves, settles it.
        Err(error @ ClientError::Unknown { .. }) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    }
    std::fs::remove_file(JOURNAL)?;
    till.close().await;
    Ok(())
}
