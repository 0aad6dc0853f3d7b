//! Commands that look after the store itself: a snapshot now, a new master key.
//!
//! Both wait for the disk, so they run on a thread that may, beside the sequencer.

use std::io;

use kami_wal::{Lsn, Poisoned};

use crate::checkpoint::CheckpointError;
use crate::engine::Engine;
use crate::grounds::Grounds;
use crate::identity::{Caller, ChannelId, RequestId, TenantId, TerminalId};
use crate::keyring::KeyRotation;
use crate::record::{HEAD_BYTES, Head, KEY_ROTATE_BYTES, Kind};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::Sequencer;
use crate::status::Status;
use crate::sync::coarse::Mutex;
use crate::vault::Vault;

/// The rotations of this process, so that the same request again is the same rotation.
#[derive(Default)]
pub struct Rotations(Mutex<Vec<Rotation>>);

/// Rotations kept; of an older one the same request again would be another. Nobody rotates so often in a day.
const ROTATIONS_MAX: usize = 1024;

struct Rotation {
    caller: Caller,
    request: RequestId,
    grounds: Option<Box<Grounds>>,
    done: KeyRotation,
    /// Its entry and the time of it; `None` if there was no room for one yet.
    recorded: Option<(Lsn, u64)>,
}

impl Rotation {
    fn is(&self, caller: Caller, request: RequestId) -> bool {
        self.caller.principal == caller.principal && self.request == request
    }
}

/// Whether the caller may look after the store as a whole: not once it is revoked, nor with a scope of some products.
fn standing(sequencer: &Sequencer, caller: Caller) -> Result<(), Status> {
    match sequencer.state().scope(caller.principal) {
        None => Err(Status::Unauthenticated),
        // The store is the house's, whoever else has cards in it.
        Some(_) if caller.tenant != TenantId(0) => Err(Status::Forbidden),
        Some(scope) if !scope.is_all() => Err(Status::ScopeDenied),
        Some(_) => Ok(()),
    }
}

fn answer(request: RequestId, status: Status, time_ms: u64) -> Reply {
    let flags = ReplyFlags::default();
    Reply { request, status, flags, lsn: None, time_ms, body: ReplyBody::None, miss: false }
}

impl Rotations {
    /// Rotates the master key and records it. The reply is right once the log is durable up to its tail.
    ///
    /// The caller's standing is that of the moment when it begins: a revocation that comes while the files are written
    /// finds the key rotated, and stands before the entry in the log.
    pub fn rotate(
        &self,
        sequencer: &Sequencer,
        vault: &Vault,
        caller: Caller,
        request: RequestId,
        grounds: Option<Box<Grounds>>,
    ) -> Reply {
        let mut rotations = self.0.lock();
        let now_ms = sequencer.state().now_ms;
        if grounds.as_ref().is_some_and(|grounds| !grounds.is_reason()) {
            return answer(request, Status::Malformed, now_ms);
        }
        if let Err(status) = standing(sequencer, caller) {
            return answer(request, status, now_ms);
        }
        let earlier = rotations.iter().any(|rotation| rotation.is(caller, request));
        // One that could not be recorded when it happened comes first.
        if let Err(status) = record_all(sequencer, &mut rotations) {
            return answer(request, status, now_ms);
        }
        if !earlier {
            match vault.rotate_master() {
                Ok(done) => {
                    if rotations.len() == ROTATIONS_MAX {
                        rotations.remove(0);
                    }
                    rotations.push(Rotation { caller, request, grounds, done, recorded: None });
                }
                Err(error) => {
                    tracing::error!(%error, "the master key was not rotated");
                    return answer(request, not_done(&error), now_ms);
                }
            }
            // The key is rotated; without room for its entry the same request again only records it.
            if let Err(status) = record_all(sequencer, &mut rotations) {
                return answer(request, status, now_ms);
            }
        }
        let rotation = rotations.iter().find(|rotation| rotation.is(caller, request));
        let Some(Rotation { done, recorded: Some((lsn, time_ms)), .. }) = rotation else {
            unreachable!("it was recorded just now")
        };
        let flags = if earlier { ReplyFlags::REPLAYED } else { ReplyFlags::default() };
        let body = ReplyBody::Keys(*done);
        Reply { flags, lsn: Some(*lsn), body, ..answer(request, Status::Ok, *time_ms) }
    }
}

/// Writes the entries of rotations that have none, in the order in which they happened; why not, if there is no room.
fn record_all(sequencer: &Sequencer, rotations: &mut [Rotation]) -> Result<(), Status> {
    for rotation in rotations.iter_mut().filter(|rotation| rotation.recorded.is_none()) {
        let Rotation { caller, request, done, .. } = *rotation;
        let grounds = rotation.grounds.as_deref();
        let bytes = KEY_ROTATE_BYTES + grounds.map_or(0, Grounds::bytes);
        let head = Head {
            request,
            principal: caller.principal,
            merchant: caller.merchant,
            tenant: caller.tenant,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            ..Head::of_engine(Kind::KeyRotate)
        };
        let mut turn = sequencer.begin(2 * HEAD_BYTES + bytes);
        if !turn.has_credit() {
            return Err(turn.short());
        }
        let lsn = turn.append(HEAD_BYTES + bytes, |group| {
            group.push_on(&head, grounds, KEY_ROTATE_BYTES, |tail| {
                tail[..8].copy_from_slice(&done.key.to_le_bytes());
                tail[8..].copy_from_slice(&done.keys.to_le_bytes());
            })
        });
        rotation.recorded = Some((lsn, turn.state.now_ms));
        turn.end();
    }
    Ok(())
}

impl Engine {
    /// Writes a snapshot unless one is being written: the command CHECKPOINT. Blocking.
    ///
    /// # Errors
    /// If the log failed.
    pub fn checkpoint_reply(&self, caller: Caller, request: RequestId) -> Result<Reply, Poisoned> {
        if let Err(status) = standing(self.sequencer(), caller) {
            // A refusal, too, may only leave when what it rests on is durable.
            return self.settled(answer(request, status, self.now_ms()));
        }
        let (status, body) = match self.try_checkpoint() {
            None => (Status::Busy, ReplyBody::None),
            Some(Ok(checkpoint)) => (Status::Ok, ReplyBody::Checkpoint(checkpoint)),
            Some(Err(CheckpointError::Poisoned(poisoned))) => return Err(poisoned),
            Some(Err(error)) => {
                tracing::error!(%error, "no snapshot was written");
                let status = match &error {
                    CheckpointError::Io(error) => not_done(error),
                    _ => Status::ReadOnly,
                };
                (status, ReplyBody::None)
            }
        };
        Ok(Reply { body, ..answer(request, status, self.now_ms()) })
    }
}

/// A disk that fails is for the operator to look at; to send the same again soon is no use.
pub(crate) fn not_done(error: &io::Error) -> Status {
    if error.kind() == io::ErrorKind::StorageFull { Status::DiskFull } else { Status::ReadOnly }
}
