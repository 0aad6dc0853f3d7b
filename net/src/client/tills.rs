//! The typed calls about what tills leave behind: requests without an answer, locked PINs, redemptions made offline.

use kami_engine::{CardReport, DocumentId, OrderId, OutcomeReport, RequestId, Status};

use super::Client;
use super::calls::Receipt;
use crate::error::ClientError;
use crate::frame::request::{OneCard, OutcomeQuery};
use crate::frame::{Body, Request, Secret};

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

impl Client {
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
