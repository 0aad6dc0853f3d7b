//! Lists of orders, and orders of the system that cards were imported from.

use kami_engine::{
    AccountId, Lifecycle, Line, OrderId, OrderLine, OrderQuery, OrderReport, OrderState, ProductId, Role,
    Status,
};

use crate::ask::{Ask, What};
use crate::model::expected::{Body, Expected};
use crate::model::oracle::{Batch, Card, Oracle, Order};
use crate::model::rules::Verdict;

impl Oracle {
    /// The orders of the tenant that the caller may see, newest first.
    pub fn list_orders(&self, ask: &Ask, query: &OrderQuery) -> Verdict {
        let sees_all =
            matches!(ask.caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor);
        let mut own: Vec<&Order> = self
            .orders
            .iter()
            .filter(|(key, _)| key.0 == ask.caller.tenant.0)
            .map(|(_, order)| order)
            .collect();
        own.sort_by_key(|order| std::cmp::Reverse(order.number));
        let (mut lines, mut read) = (Vec::new(), 0);
        let hidden = !sees_all && query.buyer.is_some_and(|buyer| buyer != ask.caller.principal);
        for order in own.iter().take(if hidden { 0 } else { usize::MAX }) {
            if lines.len() == query.count.clamp(1, 100) as usize {
                break;
            }
            read += 1;
            let product = match &order.past[0].ask.what {
                What::Sell { product, .. } => Some(ProductId(*product)),
                _ => (order.lines.len() == 1).then(|| order.lines[0].product),
            };
            let wanted = (sees_all || order.buyer() == ask.caller.principal)
                && query.buyer.is_none_or(|buyer| buyer == order.buyer())
                && query.account.is_none_or(|account| account.0 == order.account)
                && query.product.is_none_or(|wanted| product == Some(wanted));
            if wanted {
                lines.push((order, product));
            }
        }
        let next = own.get(read).filter(|_| !hidden).map(|order| order.past[0].lsn);
        lines.retain(|(order, _)| query.state.is_none_or(|state| state == order.state));
        let line = |(order, product): (&&Order, Option<ProductId>)| {
            let line = OrderLine {
                order: OrderId(order.id),
                state: order.state,
                fetched: order.fetched,
                buyer: order.buyer(),
                account: AccountId(order.account),
                product,
                cards: order.opened_with,
                opened_ms: order.past[0].time_ms,
                lsn: kami_engine::Lsn::START,
            };
            (order.past[0].lsn, line)
        };
        let body = Body::Orders { lines: lines.into_iter().map(line).collect(), next };
        (Expected { body, ..Expected::plain(Status::Ok, self.now_ms) }, None)
    }

    /// The batches that have cards of an order of another system, with those cards, first batch first.
    pub(super) fn cards_of_old(&self, (tenant, order): (u16, u128)) -> Vec<(&Batch, Vec<&Card>)> {
        let named = |card: &&Card| card.origin.and_then(|origin| origin.order) == Some(OrderId(order));
        let own = self.batches.values().filter(|batch| batch.tenant == tenant);
        let found = own.map(|batch| (batch, batch.cards.iter().filter(named).collect::<Vec<_>>()));
        found.filter(|(_, cards)| !cards.is_empty()).collect()
    }

    pub(super) fn is_order_of_old(&self, key: (u16, u128)) -> bool {
        !self.cards_of_old(key).is_empty()
    }

    pub(super) fn answer_of_old(&self, ask: &Ask, key: (u16, u128)) -> Verdict {
        let found = self.cards_of_old(key);
        let own = found[0].0.imported_by == ask.caller.principal;
        let looks_after = matches!(ask.caller.role, Role::Admin | Role::Operator);
        let looks_at = looks_after || matches!(ask.caller.role, Role::Finance | Role::Auditor);
        match ask.what {
            What::OrderStatus(_) if own || looks_at => {}
            What::OrderStatus(_) => return self.refuse(Status::NotFound),
            _ if own || looks_after => return self.refuse(Status::Migrated),
            _ => return self.refuse(Status::NotFound),
        }
        let mut lines: Vec<Line> = Vec::new();
        for (batch, cards) in &found {
            let (product, count) = (ProductId(batch.product), cards.len() as u32);
            match lines.iter_mut().find(|line| line.product == product) {
                Some(line) => line.count += count,
                None => lines.push(Line { product, count, face: None }),
            }
        }
        let keeps = |card: &&&Card| matches!(card.lifecycle, Lifecycle::Sold | Lifecycle::Redeemed);
        let cards = found.iter().map(|(_, cards)| cards.iter().filter(keeps).count() as u32).sum();
        let report = OrderReport {
            order: OrderId(key.1),
            state: OrderState::Migrated,
            fetched: false,
            buyer: found[0].0.imported_by,
            account: AccountId(0),
            cards,
            deadline_ms: 0,
            lines,
        };
        (Expected { body: Body::Order(report), ..Expected::plain(Status::Ok, self.now_ms) }, None)
    }
}
