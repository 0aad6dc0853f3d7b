//! `kami checkpoint` and `kami keys`: looking after a store that is being served.

use clap::{Args, Subcommand};
use kami_engine::RequestId;
use serde_json::json;

use crate::exit::Failure;
use crate::output::{Output, count};
use crate::remote::Remote;

/// Write a snapshot now, so that the next start replays only what comes after it.
///
/// The server also does this by itself, as the log grows and when it is taken down.
#[derive(Args)]
#[command(after_help = "Example:\n  kami checkpoint --timeout 60")]
pub struct Checkpoint {
    #[command(flatten)]
    remote: Remote,
}

/// Look after the keys of a store that is being served.
#[derive(Args)]
#[command(after_help = "Example:\n  kami keys rotate")]
pub struct Keys {
    #[command(subcommand)]
    action: KeysAction,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum KeysAction {
    /// Make a new master key and wrap the keys of all batches with it; the old one is removed.
    ///
    /// Batches are not touched, and nothing is held up but imports that begin meanwhile. Copy the key directory
    /// afterwards: copies from before open with the key they hold.
    #[command(after_help = "Example:\n  kami keys rotate")]
    Rotate {
        /// The request's id: the same again is the same rotation, until the server is started anew [default: random].
        #[arg(long, value_name = "HEX", value_parser = crate::code::parse_id)]
        id: Option<RequestId>,
    },
}

pub async fn checkpoint(command: Checkpoint, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let made = client.checkpoint().await?.value;
            let value = json!({
                "start": made.start.bytes(),
                "end": made.end.bytes(),
                "bytes": made.bytes,
                "seconds": made.took_ms as f64 / 1000.0,
            });
            output.result(&value, || {
                format!(
                    "snapshot  {} bytes in {:.2} s\nreplay    begins at lsn {}; the log was durable to {}",
                    count(made.bytes),
                    made.took_ms as f64 / 1000.0,
                    made.start,
                    made.end
                )
            })
        })
        .await
}

pub async fn keys(command: Keys, output: &Output) -> Result<(), Failure> {
    let KeysAction::Rotate { id } = command.action;
    command
        .remote
        .talk(async |client| {
            let receipt = client.rotate_keys(id.unwrap_or_else(RequestId::random)).await?;
            let rotation = receipt.value;
            let value = json!({
                "key": format!("{:016x}", rotation.key),
                "keys": rotation.keys,
                "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
                "request": receipt.request.to_string(),
                "replayed": receipt.flags.contains(kami_engine::ReplyFlags::REPLAYED),
            });
            output.result(&value, || {
                format!(
                    "master key  {:016x} wraps the keys of {} batches; the one before is removed\n\
                     next        copy the key directory: older copies open only with the key they hold",
                    rotation.key,
                    count(rotation.keys)
                )
            })
        })
        .await
}
