//! The typed calls about what tills leave behind: requests without an answer, locked PINs, redemptions made offline.

use kami_engine::{
    CardReport, DocumentId, Exception, ExceptionNote, Lsn, Money, OrderId, OutcomeReport, ReplyFlags,
    RequestId, Status, ValueReport,
};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::request::{Advice, ExceptionList, OneCard, OutcomeQuery};
use crate::frame::{Body, Exceptions, Request, Secret};

/// What a request was about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A card, by its code.
    Card(&'a [u8]),
    /// An order.
    Order(OrderId),
    /// The document of a posting.
    Document(DocumentId),
}

/// What became of a report of a redemption that was made offline.
#[derive(Clone, Debug)]
pub enum Advised {
    /// It is a redemption now.
    Redeemed(Receipt<ValueReport>),
    /// It did not fit its card and was noted for an operator, there in the log. The till is done with it.
    Noted(Option<Lsn>),
}

/// A redemption that was made offline.
#[derive(Clone, Copy, Debug)]
pub struct Offline<'a> {
    /// Under which request id: that of the REDEEM that may have been sent before, or a new one.
    pub request: RequestId,
    /// How much; 0 is all of it.
    pub amount: Money,
    /// The PIN, if the card has one.
    pub pin: Option<&'a [u8]>,
    /// When, by the till's clock, in milliseconds since 1970; not 0.
    pub made_ms: u64,
}

/// Exceptions asked for in one EXCEPTION_LIST.
const EXCEPTIONS_PER_LIST: u32 = 500;

impl Client {
    /// Reports a redemption that was made offline. Sent again with the same id it is the same report.
    ///
    /// # Errors
    /// As [`Client::redeem`]. After EXCEPTIONS_FULL the till keeps it and sends it again later.
    pub async fn advice(&self, code: &[u8], offline: Offline<'_>) -> Result<Advised, ClientError> {
        let Offline { request, amount, pin, made_ms } = offline;
        let body = Advice { amount, made_ms, code: Secret(code), pin: pin.map(Secret) };
        let read = |body| match body {
            Body::Value(value) => Some(value),
            _ => None,
        };
        match self.call(request, &Request::Advice(body), read).await {
            Ok(receipt) => Ok(Advised::Redeemed(receipt)),
            Err(ClientError::Refused { status: Status::ExceptionNoted, answer }) => {
                Ok(Advised::Noted(answer.head.lsn))
            }
            Err(error) => Err(error),
        }
    }

    /// Lists exceptions, page by page, in order of number: those that are open, or all.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn exceptions(&self, all: bool) -> Result<Vec<Exception>, ClientError> {
        let mut listed: Vec<Exception> = Vec::new();
        let mut after = 0;
        loop {
            let page = ExceptionList { after, count: EXCEPTIONS_PER_LIST, all };
            let page = self.call(RequestId::random(), &Request::ExceptionList(page), exceptions).await?;
            let more = page.flags.contains(ReplyFlags::PARTIAL) && after < page.value.reached;
            after = page.value.reached;
            listed.extend(page.value.listing.rows);
            if !more {
                return Ok(listed);
            }
        }
    }

    /// Notes what was done about an exception.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn exception_resolve(&self, id: u64, note: &str) -> Result<Receipt<Exception>, ClientError> {
        let given = ExceptionNote { id, note: note.to_owned() };
        let resolve = Request::ExceptionResolve(Box::new(given));
        self.list(&resolve, |body| Some(exceptions(body)?.listing)).await?.one()
    }

    /// Lifts the locks that wrong PINs put on a card.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn pin_unlock(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::PinUnlock(OneCard { code: Secret(code) })).await
    }

    /// Asks what became of a request about a card, an order or a document, without doing it. `None` if it had no
    /// effect so far that the caller may know of; a refusal says that it never will have one.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn outcome(
        &self,
        asked: RequestId,
        target: Target<'_>,
    ) -> Result<Option<Receipt<OutcomeReport>>, ClientError> {
        let (target, id, code) = match target {
            Target::Card(code) => (OutcomeQuery::CARD, 0, code),
            Target::Order(order) => (OutcomeQuery::ORDER, order.0, &[][..]),
            Target::Document(document) => (OutcomeQuery::DOCUMENT, document.0, &[][..]),
        };
        let query = Request::OutcomeQuery(OutcomeQuery { asked, target, id, code: Secret(code) });
        let read = |body| match body {
            Body::Outcome(report) => Some(report),
            _ => None,
        };
        match self.call(RequestId::random(), &query, read).await {
            Ok(receipt) => Ok(Some(receipt)),
            Err(ClientError::Refused { status: Status::NoEffect, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn exceptions(body: Body) -> Option<Exceptions> {
    match body {
        Body::Exceptions(page) => Some(page),
        _ => None,
    }
}
