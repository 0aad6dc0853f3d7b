//! Commands that look after the store itself: a snapshot now, a new master key.
//!
//! Both wait for the disk, so they run on a thread that may, beside the sequencer.

use std::io;

use kami_wal::{Lsn, Poisoned};
use parking_lot::Mutex;

use crate::checkpoint::CheckpointError;
use crate::engine::Engine;
use crate::identity::{Caller, ChannelId, RequestId, TerminalId};
use crate::keyring::KeyRotation;
use crate::record::{HEAD_BYTES, Head, KEY_ROTATE_BYTES, Kind};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::Sequencer;
use crate::status::Status;
use crate::vault::Vault;

/// The last rotation of this process, so that the same request again is the same rotation.
#[derive(Default)]
pub struct Rotations(Mutex<Option<Rotation>>);

struct Rotation {
    request: RequestId,
    done: KeyRotation,
    /// Its entry and the time of it; `None` if there was no room for one yet.
    recorded: Option<(Lsn, u64)>,
}

impl Rotations {
    /// Rotates the master key and records it. The reply is right once the log is durable up to its tail.
    pub fn rotate(&self, sequencer: &Sequencer, vault: &Vault, caller: Caller, request: RequestId) -> Reply {
        let mut last = self.0.lock();
        let time_ms = sequencer.state().now_ms;
        let reply = |status, lsn, time_ms, body| Reply {
            request,
            status,
            flags: ReplyFlags::default(),
            lsn,
            time_ms,
            body,
            miss: false,
        };
        let again = last.take_if(|rotation| rotation.request == request);
        let mut rotation = match again {
            Some(Rotation { done, recorded: Some((lsn, time_ms)), .. }) => {
                *last = Some(Rotation { request, done, recorded: Some((lsn, time_ms)) });
                let replayed = reply(Status::Ok, Some(lsn), time_ms, ReplyBody::Keys(done));
                return Reply { flags: ReplyFlags::REPLAYED, ..replayed };
            }
            Some(rotation) => rotation,
            None => match vault.rotate_master() {
                Ok(done) => Rotation { request, done, recorded: None },
                Err(error) => {
                    tracing::error!(%error, "the master key was not rotated");
                    let status = not_done(&error);
                    return reply(status, None, time_ms, ReplyBody::None);
                }
            },
        };
        let head = Head {
            request,
            principal: caller.principal,
            merchant: caller.merchant,
            tenant: caller.tenant,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            ..Head::of_engine(Kind::KeyRotate)
        };
        let mut turn = sequencer.begin(2 * HEAD_BYTES + KEY_ROTATE_BYTES);
        let reply = if turn.has_credit() {
            let lsn = turn.append(HEAD_BYTES + KEY_ROTATE_BYTES, |group| {
                group.push(&head, KEY_ROTATE_BYTES, |tail| {
                    tail[..8].copy_from_slice(&rotation.done.key.to_le_bytes());
                    tail[8..].copy_from_slice(&rotation.done.keys.to_le_bytes());
                })
            });
            let time_ms = turn.state.now_ms;
            rotation.recorded = Some((lsn, time_ms));
            reply(Status::Ok, Some(lsn), time_ms, ReplyBody::Keys(rotation.done))
        } else {
            // The key is rotated; the same request again only records it.
            reply(turn.short(), None, time_ms, ReplyBody::None)
        };
        turn.end();
        *last = Some(rotation);
        reply
    }
}

impl Engine {
    /// Writes a snapshot unless one is being written: the command CHECKPOINT. Blocking.
    ///
    /// # Errors
    /// If the log failed.
    pub fn checkpoint_reply(&self, request: RequestId) -> Result<Reply, Poisoned> {
        let (status, body) = match self.try_checkpoint() {
            None => (Status::Busy, ReplyBody::None),
            Some(Ok(checkpoint)) => (Status::Ok, ReplyBody::Checkpoint(checkpoint)),
            Some(Err(CheckpointError::Poisoned(poisoned))) => return Err(poisoned),
            Some(Err(error)) => {
                tracing::error!(%error, "no snapshot was written");
                let status = match &error {
                    CheckpointError::Io(error) => not_done(error),
                    _ => Status::Busy,
                };
                (status, ReplyBody::None)
            }
        };
        let time_ms = self.now_ms();
        Ok(Reply { request, status, flags: ReplyFlags::default(), lsn: None, time_ms, body, miss: false })
    }
}

pub(crate) fn not_done(error: &io::Error) -> Status {
    if error.kind() == io::ErrorKind::StorageFull { Status::DiskFull } else { Status::Busy }
}
