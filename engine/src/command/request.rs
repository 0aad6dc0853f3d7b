//! A command with all that goes with it: the id that makes a retry safe, who asks, through what, by when, and why.

use std::time::Instant;

use super::Command;
use crate::grounds::Grounds;
use crate::identity::{Caller, ChannelId, RequestId, TerminalId};
use crate::record::{Head, Kind};

/// One request: who, through what, by when, and what.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id that makes a retry safe.
    pub id: RequestId,
    /// Who asks.
    pub caller: Caller,
    /// The till.
    pub terminal: TerminalId,
    /// The sales channel.
    pub channel: ChannelId,
    /// Not executed when this has passed before the decision.
    pub deadline: Option<Instant>,
    /// What is asked.
    pub command: Command,
    /// Why, and under whose approval: only with commands that [take them](Command::takes_grounds).
    pub grounds: Option<Box<Grounds>>,
}

impl Request {
    /// [`Command::body`] of what is asked, its grounds included.
    #[inline]
    pub(crate) fn body(&self) -> u32 {
        let body = self.command.body();
        match &self.grounds {
            None => body,
            Some(grounds) => grounds.body(body),
        }
    }

    /// What its grounds take in an entry, in bytes.
    #[inline]
    pub(crate) fn grounds_bytes(&self) -> usize {
        // What cannot be recorded is refused, and takes nothing, however long it is.
        self.grounds.as_ref().filter(|grounds| grounds.is_sane()).map_or(0, |grounds| grounds.bytes())
    }

    /// Whether its grounds cannot be recorded.
    #[inline]
    pub(crate) fn has_bad_grounds(&self) -> bool {
        self.grounds.as_ref().is_some_and(|grounds| {
            !grounds.is_sane()
                || !self.command.takes_grounds()
                // Who approved what is for the engine to say; a caller names a proposal to fetch what it lets be fetched.
                || grounds.approver.is_some()
                || grounds.approval.is_some() && !matches!(self.command, Command::OrderFetch { .. })
        })
    }

    /// The head of an entry that records this request; post, subject and prev are the caller's. `body` is
    /// [`Command::body`], which takes a while.
    pub(crate) fn head(&self, kind: Kind, body: u32) -> Head {
        Head {
            kind,
            request: self.id,
            principal: self.caller.principal,
            terminal: self.terminal,
            merchant: self.caller.merchant,
            tenant: self.caller.tenant,
            channel: self.channel,
            body,
            post: 0,
            subject: 0,
            prev: 0,
        }
    }
}
