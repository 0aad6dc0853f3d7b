//! What a typed call brings: a receipt, or a refusal as an error that says what to do.
//!
//! There is one call per command, by what it is about: `cards.rs`, `orders.rs`, `stock.rs`, `import.rs`, `money.rs`,
//! `tills.rs`, `principals.rs`, `control.rs`, `upkeep.rs`.

use kami_engine::{Lsn, ReplyFlags, RequestId, Status};

use super::Client;
use crate::error::ClientError;
use crate::frame::{Answer, Body, Listing, ReplyHead, Request};

/// What a command brought, and the proof of it.
#[derive(Clone, Debug)]
pub struct Receipt<T> {
    /// What was asked for.
    pub value: T,
    /// The request id: the same again is the same request, and REVERSE names it.
    pub request: RequestId,
    /// Where the effect stands in the log.
    pub lsn: Option<Lsn>,
    /// Engine time of the decision, milliseconds since 1970.
    pub time_ms: u64,
    /// OK, OK_PARTIAL or TOMBSTONED.
    pub status: Status,
    /// REPLAYED, PARTIAL, REVERSED.
    pub flags: ReplyFlags,
}

impl Client {
    pub(super) async fn list<T>(
        &self,
        request: &Request<'_>,
        rows: fn(Body) -> Option<Listing<T>>,
    ) -> Result<Receipt<Listing<T>>, ClientError> {
        self.call(RequestId::random(), request, rows).await
    }

    pub(super) async fn call<T>(
        &self,
        id: RequestId,
        request: &Request<'_>,
        body: impl FnOnce(Body) -> Option<T>,
    ) -> Result<Receipt<T>, ClientError> {
        receipt(self.send_as(id, request).await?, body)
    }
}

/// A reply as a receipt, if it says done and carries what it should.
pub(super) fn receipt<T>(
    answer: Answer,
    body: impl FnOnce(Body) -> Option<T>,
) -> Result<Receipt<T>, ClientError> {
    let head = answer.head;
    if !head.status.is_done() {
        return Err(ClientError::Refused { status: head.status, answer: Box::new(answer) });
    }
    let value = body(answer.body).ok_or(ClientError::BadReply)?;
    let ReplyHead { request, lsn, time_ms, status, flags, .. } = head;
    Ok(Receipt { value, request, lsn, time_ms, status, flags })
}

impl<T> Receipt<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Receipt<U> {
        let Receipt { value, request, lsn, time_ms, status, flags } = self;
        Receipt { value: map(value), request, lsn, time_ms, status, flags }
    }

    pub(super) const fn clone_head<U>(&self, value: U) -> Receipt<U> {
        Receipt {
            value,
            request: self.request,
            lsn: self.lsn,
            time_ms: self.time_ms,
            status: self.status,
            flags: self.flags,
        }
    }
}

impl<T> Receipt<Listing<T>> {
    /// The one row of a list that must have one.
    pub(super) fn one(mut self) -> Result<Receipt<T>, ClientError> {
        let row = self.value.rows.pop().ok_or(ClientError::BadReply)?;
        Ok(self.map(|_| row))
    }
}
