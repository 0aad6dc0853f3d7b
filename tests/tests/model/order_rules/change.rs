//! What an event about an order changes in what the oracle knows.

use kami_engine::{AccountId, Flags, Kind, Lifecycle, OrderId, OrderReport, OrderState, PrincipalId};

use crate::ask::Ask;
use crate::model::oracle::{Event, Oracle, Order, OrderChange, Past, Place};

impl Order {
    pub fn buyer(&self) -> PrincipalId {
        self.past[0].ask.caller.principal
    }

    /// Its cards but for those that came back.
    pub fn left(&self) -> impl Iterator<Item = Place> + '_ {
        self.cards.iter().copied()
    }

    pub(super) fn report(&self) -> OrderReport {
        OrderReport {
            order: OrderId(self.id),
            state: self.state,
            fetched: self.fetched,
            buyer: self.buyer(),
            account: AccountId(self.account),
            cards: 0,
            deadline_ms: self.deadline_ms,
            lines: self.lines.clone(),
        }
    }

    /// A new order, before its first entry.
    pub(super) fn new(change: &OrderChange) -> Order {
        Order {
            opened_with: change.cards.len() as u32,
            id: change.order,
            number: 0,
            state: OrderState::Sold,
            cards: Vec::new(),
            sealed: false,
            fetched: false,
            deadline_ms: change.deadline_ms,
            account: change.account,
            ip: change.ip,
            lines: change.lines.clone(),
            legs: change.legs.clone(),
            past: Vec::new(),
            sold_lsn: None,
            last_lsn: None,
        }
    }
}

impl OrderChange {
    pub(super) fn of(ask: &Ask) -> OrderChange {
        OrderChange {
            tenant: ask.caller.tenant.0,
            order: ask.what.order().expect("about an order"),
            subject: 0,
            cards: Vec::new(),
            sealed: false,
            deadline_ms: 0,
            account: 0,
            ip: 0,
            lines: Vec::new(),
            legs: Vec::new(),
        }
    }
}

impl Oracle {
    /// Moves an order and its cards.
    pub fn apply_order(&mut self, event: &Event, change: &OrderChange) {
        let (from, to) = match event.kind {
            Kind::Sell | Kind::Export | Kind::Realloc => (Lifecycle::Available, Lifecycle::Sold),
            Kind::Reserve => (Lifecycle::Available, Lifecycle::Reserved),
            Kind::Confirm => (Lifecycle::Reserved, Lifecycle::Sold),
            Kind::Return if change.sealed => (Lifecycle::Sold, Lifecycle::Available),
            Kind::Return => (Lifecycle::Sold, Lifecycle::Returned),
            _ => (Lifecycle::Reserved, Lifecycle::Available),
        };
        for &place in &change.cards {
            if self.is_shared(place) {
                self.apply_use(event, change, place);
                continue;
            }
            let mut flags = self.card(place).flags;
            if to == Lifecycle::Sold && !change.sealed {
                flags = flags.with(Flags::REVEALED);
            }
            let past = event.past(to, flags, change.order);
            let card = self.card_mut(place);
            assert_eq!(card.lifecycle, from, "a card in two orders");
            assert!(
                to != Lifecycle::Available || !flags.contains(Flags::REVEALED),
                "a code that was seen came back into stock"
            );
            (card.lifecycle, card.flags) = (to, flags);
            card.past.push(past);
        }
        if event.kind != Kind::Reserve {
            self.move_money(event, change.order, &change.legs);
        }
        let key = (change.tenant, change.order);
        let known = self.orders.get(&key).map(|order| (order.state, order.legs.clone()));
        match known {
            None if event.kind == Kind::Reserve => self.set_aside(&change.legs, 1),
            // Whatever ends a reservation ends what it set aside.
            Some((OrderState::Reserved, legs)) => self.set_aside(&legs, -1),
            _ => {}
        }
        if matches!(event.kind, Kind::Cancel | Kind::ReserveTimeout) {
            self.counted.iter_mut().filter(|it| it.order == Some(key)).for_each(|it| it.given_back = true);
        }
        let number = self.orders.len();
        let order = self.orders.entry(key).or_insert_with(|| Order { number, ..Order::new(change) });
        order.past.push(event.past(to, Flags::NONE, 0));
        order.last_lsn = event.lsn;
        match event.kind {
            Kind::Return => order.cards.retain(|place| !change.cards.contains(place)),
            Kind::Cancel => order.state = OrderState::Cancelled,
            Kind::ReserveTimeout => order.state = OrderState::TimedOut,
            kind => {
                order.state = if kind == Kind::Reserve { OrderState::Reserved } else { OrderState::Sold };
                order.cards.clone_from(&change.cards);
                order.sealed = change.sealed;
                order.sold_lsn = event.lsn;
            }
        }
    }

    /// A use of a card that is sold many times moves with its order; the card only with its first sale.
    pub(super) fn apply_use(&mut self, event: &Event, change: &OrderChange, place: Place) {
        let card = self.card(place);
        let (mut lifecycle, mut flags, mut uses) = (card.lifecycle, card.flags, card.uses);
        match event.kind {
            Kind::Reserve => uses.reserved += 1,
            Kind::Cancel | Kind::ReserveTimeout => uses.reserved -= 1,
            Kind::Return if change.sealed => uses.sold -= 1,
            Kind::Return => uses.returned += 1,
            kind => {
                uses.reserved -= u32::from(kind == Kind::Confirm);
                uses.sold += 1;
                if lifecycle == Lifecycle::Available {
                    lifecycle = Lifecycle::Sold;
                    flags = if change.sealed { flags } else { flags.with(Flags::REVEALED) };
                }
            }
        }
        let past = event.past(lifecycle, flags, change.order);
        let card = self.card_mut(place);
        (card.lifecycle, card.flags, card.uses) = (lifecycle, flags, uses);
        card.past.push(past);
    }

    /// Codes of an order were given out that had not been delivered with it.
    pub fn apply_first_reveal(&mut self, event: &Event, key: (u16, u128)) {
        let past: Past = event.past(Lifecycle::Sold, Flags::NONE, 0);
        let order = self.orders.get_mut(&key).expect("known");
        order.fetched = true;
        order.past.push(past);
        order.last_lsn = None;
    }
}
