//! `kami top-up`: direct top-up (直充) by a program that does it.
//!
//! The program is the adapter to whoever tops up, in any language. It is run as `PROGRAM fulfil` or `PROGRAM outcome`
//! with one line of JSON on standard input, never with the code, and prints one line of JSON:
//! ```text
//! in   {"id":"…32 hex digits","to":"13800000000","product_id":1,"product":"airtime","currency":"CNY",
//!       "amount_minor":5000,"seconds":60}
//! out  {"result":"done","reference":"…"}       it was done, now or at an earlier run with this id
//!      {"result":"refused","reason":"…"}       it was not done and never will be
//!      {"result":"unknown","reason":"…"}       ask again later
//! ```
//! Anything else (another exit code than 0, no answer in time, no JSON) counts as unknown, because a program that
//! failed may have done its work first. What it must promise stands at [`Fulfiller`].

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use kami_engine::{ReplyFlags, RequestId, TerminalId};
use kami_net::client::{Fulfiller, Fulfilment, Job, ToppedUp};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::code::{mask, read_secret, top_up_id};
use crate::exit::{Exit, Failure, refusal};
use crate::output::Output;
use crate::remote::{Catalogue, Remote};
use crate::time;
use crate::trade::moved;
use crate::value::Amount;

/// Top up an account elsewhere with what a card is worth (直充): hold it, have a program do it, capture.
///
/// The same command run again goes on where it ended, whatever stopped it, and does nothing twice. The program is run
/// with `fulfil` or `outcome` and one line of JSON on its standard input.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami top-up GIFT-00000001 --id order-4711 --to 13800000000 --amount 20 --with ./airtime.sh"
)]
pub struct TopUp {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    /// The top-up's own name: 32 hex digits are taken as they are, any other text is hashed to 128 bits.
    #[arg(long, value_name = "ID", value_parser = top_up_id)]
    id: RequestId,
    /// Whose account, as the program knows it.
    #[arg(long, value_name = "ACCOUNT")]
    to: String,
    /// The program that tops up.
    #[arg(long = "with", value_name = "PROGRAM")]
    program: PathBuf,
    /// The longest that one answer of the program is waited for. It is asked to top up only while the card is held for
    /// twice as long: `kami product set --hold`.
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds, default_value = "60s")]
    patience: u32,
    /// The card's PIN; `-` reads it from standard input, after the code.
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pin: Option<String>,
    #[command(flatten)]
    amount: Amount,
    /// The till's number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    terminal: u32,
    #[command(flatten)]
    remote: Remote,
}

/// A program as a fulfiller.
struct Program {
    path: PathBuf,
    catalogue: Catalogue,
}

/// What it prints.
#[derive(Deserialize)]
#[serde(tag = "result", rename_all = "lowercase", deny_unknown_fields)]
enum Answer {
    Done { reference: String },
    Refused { reason: String },
    Unknown { reason: String },
}

impl Fulfiller for Program {
    async fn fulfil(&self, job: &Job<'_>) -> Fulfilment {
        self.ask("fulfil", job).await
    }

    async fn outcome(&self, job: &Job<'_>) -> Fulfilment {
        self.ask("outcome", job).await
    }
}

impl Program {
    async fn ask(&self, what: &str, job: &Job<'_>) -> Fulfilment {
        match self.run(what, job).await {
            Ok(Answer::Done { reference }) => Fulfilment::Done { reference },
            Ok(Answer::Refused { reason }) => Fulfilment::Refused { reason },
            Ok(Answer::Unknown { reason }) | Err(reason) => Fulfilment::Unknown { reason },
        }
    }

    async fn run(&self, what: &str, job: &Job<'_>) -> Result<Answer, String> {
        /// More is no answer.
        const ANSWER_BYTES_MAX: u64 = 64 << 10;
        let name = self.path.display();
        let product = self.catalogue.get(job.product).map(|product| &product.spec);
        let job = json!({
            "id": job.id.to_string(),
            "to": job.to,
            "product_id": job.product.0,
            "product": product.map(|spec| spec.name.clone()),
            "currency": product.map(|spec| crate::money::name(spec.currency)),
            "amount_minor": job.amount,
            "seconds": job.patience.as_secs(),
        });
        let mut command = tokio::process::Command::new(&self.path);
        command.arg(what).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot run `{name}`: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that answers without reading has closed it.
            let _ = stdin.write_all(format!("{job}\n").as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
            read.map_err(|error| format!("the answer of `{name}` cannot be read: {error}"))?;
        }
        let status = child.wait().await.map_err(|error| format!("`{name}` cannot be waited for: {error}"))?;
        if !status.success() {
            return Err(format!("`{name}` failed: {status}"));
        }
        serde_json::from_slice(&answer)
            .map_err(|error| format!("`{name}` gave no answer that is known: {error}"))
    }
}

pub async fn run(command: TopUp, output: &Output) -> Result<(), Failure> {
    let TopUp { id, to, program, patience, amount, terminal, remote, .. } = command;
    let code = read_secret(&command.code, "code")?;
    let pin = command.pin.as_deref().map(|pin| read_secret(pin, "PIN")).transpose()?;
    remote
        .talk_at(TerminalId(terminal), async |client| {
            let program = Program { path: program, catalogue: Catalogue::read_if_allowed(client).await? };
            let top_up = kami_net::client::TopUp {
                id,
                to: &to,
                amount: amount.read(client, &code).await?,
                pin: pin.as_ref().map(|pin| pin.as_slice()),
                patience: Duration::from_secs(patience.into()),
            };
            let again = "run the same command again";
            let done = client.top_up(&code, &top_up, &program).await.map_err(|error| {
                let failure = Failure::from(error);
                match failure.exit {
                    Exit::Refused => failure,
                    _ => Failure { message: format!("{}; {again}", failure.message), ..failure },
                }
            })?;
            let (reference, receipt, late) = match done {
                ToppedUp::Done { reference, receipt, late } => (reference, receipt, late),
                ToppedUp::Refused { reason } => {
                    return Err(Failure::refused(format!("not topped up, and the card is free: {reason}")));
                }
                ToppedUp::Expired => {
                    return Err(Failure::refused(
                        "not topped up, and the card is free: its hold is over or too short for --patience; try again \
                         with another --id",
                    ));
                }
                ToppedUp::Pending { reason } => {
                    let message = format!("it is not known whether it was topped up: {reason}; {again}");
                    return Err(Failure::new(Exit::Unreachable, message));
                }
                ToppedUp::Unpaid { reference, status } => {
                    let message = format!(
                        "topped up, and the card did not pay for it; look after that reference=`{reference}`: {}",
                        refusal(status)
                    );
                    return Err(Failure { status: Some(status), ..Failure::refused(message) });
                }
            };
            let mut value = moved(&receipt, &receipt.value, &program.catalogue);
            value["to"] = json!(to);
            value["reference"] = json!(reference);
            value["late"] = json!(late);
            output.result(&value, || {
                let worth = |amount| program.catalogue.worth(receipt.value.product, amount);
                let replayed = receipt.flags.contains(ReplyFlags::REPLAYED);
                format!(
                    "topped up {to} with {} of {}{}; {} left\nreference {reference}",
                    worth(receipt.value.amount),
                    mask(&code),
                    if replayed { " (earlier, by the same id)" } else { "" },
                    worth(receipt.value.remaining),
                )
            })
        })
        .await
}
