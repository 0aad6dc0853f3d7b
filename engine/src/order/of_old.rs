//! Orders of the system that cards were imported from.
//!
//! They are no orders of this store: nothing was sold here, no money moved, and nothing can be taken back of them. But
//! their ids are taken, or a platform that repeats a request after the change of systems would be sold the cards
//! twice; and whoever looks after orders finds the cards by them. Which cards these are stands in the batches and
//! never changes, so it is looked up before the lock; under it only the number of batches is compared.

use crate::command::{Command, Request};
use crate::identity::{AccountId, OrderId, Role, TenantId};
use crate::order::Line;
use crate::orders::OrderState;
use crate::reply::{OrderReport, Reply, ReplyBody};
use crate::sequencer::{Sequencer, Turn};
use crate::status::Status;

impl Sequencer {
    /// What is known of an order of the system before; `None` if no batch has cards of it.
    pub(crate) fn order_of_old(&self, tenant: TenantId, order: OrderId) -> Option<OrderReport> {
        let mut report: Option<OrderReport> = None;
        for batch in self.table.with_order_of_old(tenant, order) {
            let rows = batch.columns.orders.rows(order);
            let report = report.get_or_insert_with(|| OrderReport {
                order,
                state: OrderState::Migrated,
                fetched: false,
                buyer: batch.imported_by,
                account: AccountId(0),
                cards: 0,
                deadline_ms: 0,
                lines: Vec::new(),
            });
            let own = rows.iter().filter(|row| batch.word(**row).belongs_to_order()).count();
            report.cards += u32::try_from(own).unwrap_or(u32::MAX);
            let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            match report.lines.iter_mut().find(|line| line.product == batch.product) {
                Some(line) => line.count = line.count.saturating_add(count),
                None => report.lines.push(Line { product: batch.product, count, face: None }),
            }
        }
        report
    }
}

impl Turn<'_> {
    /// A command about such an order: it can be looked at, and nothing else.
    pub(super) fn answer_of_old(&self, request: &Request, report: &OrderReport) -> Reply {
        let caller = &request.caller;
        let own = report.buyer == caller.principal;
        let looks_after = matches!(caller.role, Role::Admin | Role::Operator);
        let looks_at = looks_after || matches!(caller.role, Role::Finance | Role::Auditor);
        match request.command {
            Command::OrderStatus(_) if own || looks_at => {
                self.reply(request, Status::Ok, None, ReplyBody::Order(Box::new(report.clone())))
            }
            Command::Sell { .. } | Command::SellLines(_) | Command::Reserve(_) => {
                self.refuse(request, Status::Migrated)
            }
            // No request of this store had an effect on it.
            Command::OutcomeOfOrder { .. } => self.outcome_of_order(request, None),
            _ if own || looks_after => self.refuse(request, Status::Migrated),
            // Whose order it is, is not told either.
            _ => self.refuse(request, Status::NotFound),
        }
    }
}
