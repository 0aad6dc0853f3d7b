//! The typed calls about what takes two people.

use kami_engine::{BatchId, DualControl, OrderId, Proposal, ProposalId, ReplyFlags, RequestId, TenantId};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::control::{Asked, Export, OneProposal, ProposalList, Proposals, TenantControl};
use crate::frame::request::{OneCard, OrderFetch, RefundValue};
use crate::frame::{Body, Request, Secret};

/// What can be proposed, from outside.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// A card is to become void, be it sold.
    Void(&'a [u8]),
    /// Value of a redemption is to be given back: the code, the redemption, and how much, 0 being all.
    RefundValue(&'a [u8], RequestId, i64),
    /// The codes of another's order are to be fetched.
    OrderFetch(OrderId),
    /// At most so many unsold cards of a batch are to be exported.
    Export(BatchId, u32),
    /// What of a tenant takes two people is to be set.
    TenantControl(TenantId, DualControl),
}

/// Proposals asked for in one PROPOSAL_LIST.
const PROPOSALS_PER_LIST: u32 = 500;

impl Client {
    /// Proposes something that a second person must approve. `request` becomes the proposal's id, and the handle's
    /// [grounds](Client::on_grounds) must say why.
    ///
    /// # Errors
    /// As [`Client::redeem`]; what could not be done now is refused as if it were tried.
    pub async fn propose(
        &self,
        wish: Wish<'_>,
        request: Option<RequestId>,
    ) -> Result<Receipt<Proposal>, ClientError> {
        let request_id = request.unwrap_or_else(RequestId::random);
        let request = match wish {
            Wish::Void(code) => Request::Void(OneCard { code: Secret(code) }),
            Wish::RefundValue(code, original, amount) => {
                Request::RefundValue(RefundValue { original, amount, code: Secret(code) })
            }
            Wish::OrderFetch(order) => Request::OrderFetch(OrderFetch { order, from: 0, count: u32::MAX }),
            Wish::Export(batch, count) => Request::Export(Export { batch, count }),
            Wish::TenantControl(tenant, control) => Request::TenantControl(TenantControl { tenant, control }),
        };
        let request = Request::Propose(Box::new(Asked { request }));
        self.call(request_id, &request, one).await
    }

    /// Approves what somebody else proposed; it is done with that. `request` makes it repeatable.
    ///
    /// # Errors
    /// As [`Client::redeem`]; PROPOSAL_DONE, PROPOSAL_LAPSED or PROPOSAL_WITHDRAWN if it is not open;
    /// SECOND_PERSON_REQUIRED for one's own. What does not fit any more is refused as if it were tried, and stays open.
    pub async fn approve(
        &self,
        proposal: ProposalId,
        request: Option<RequestId>,
    ) -> Result<Receipt<Proposal>, ClientError> {
        let request_id = request.unwrap_or_else(RequestId::random);
        self.call(request_id, &Request::Approve(OneProposal { proposal }), one).await
    }

    /// Withdraws what the caller proposed.
    ///
    /// # Errors
    /// As [`Client::approve`].
    pub async fn proposal_withdraw(&self, proposal: ProposalId) -> Result<Receipt<Proposal>, ClientError> {
        let request = Request::ProposalWithdraw(OneProposal { proposal });
        self.call(RequestId::random(), &request, one).await
    }

    /// Lists proposals, page by page, in order of number: those that are open, or all; and what of the caller's tenant
    /// takes two people.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn proposals(&self, all: bool) -> Result<(DualControl, Vec<Proposal>), ClientError> {
        let mut listed: Vec<Proposal> = Vec::new();
        loop {
            let after = listed.last().map_or(0, |last| last.number);
            let page = ProposalList { after, count: PROPOSALS_PER_LIST, all };
            let request = Request::ProposalList(page);
            let page = self.call(RequestId::random(), &request, proposals).await?;
            let more = page.flags.contains(ReplyFlags::PARTIAL) && !page.value.listing.rows.is_empty();
            listed.extend(page.value.listing.rows);
            if !more {
                return Ok((page.value.control, listed));
            }
        }
    }

    /// Sets what of a tenant takes two people; once it is on, only as a proposal.
    ///
    /// # Errors
    /// As [`Client::redeem`]; SECOND_PERSON_REQUIRED if nobody else could approve its end.
    pub async fn tenant_control(
        &self,
        tenant: TenantId,
        control: DualControl,
    ) -> Result<Receipt<DualControl>, ClientError> {
        let request = Request::TenantControl(TenantControl { tenant, control });
        self.call(RequestId::random(), &request, |body| proposals(body).map(|it| it.control)).await
    }
}

fn proposals(body: Body) -> Option<Proposals> {
    match body {
        Body::Proposals(proposals) => Some(*proposals),
        _ => None,
    }
}

fn one(body: Body) -> Option<Proposal> {
    proposals(body)?.listing.rows.pop()
}
