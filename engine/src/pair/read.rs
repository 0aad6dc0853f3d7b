//! What is read of two cards before the lock, and finding one in stock that is like another.

use kami_wal::Lsn;

use super::{Asked, PAIR_ENTRY_BYTES, Seen, batch_fits, end_fits};
use crate::card::Past;
use crate::chain::{Chain, ChainError, Sought};
use crate::command::Request;
use crate::identity::CardDigest;
use crate::index::Index;
use crate::product::{CardKind, Money};
use crate::record::{Kind, Purse, VOLUME_BYTES};
use crate::sequencer::{Detail, GROUP_BYTES, OrderPast, Prepared, Sequencer, Wallet};
use crate::state::State;
use crate::stock::Search;
use crate::subject::count_validity;
use crate::table::{Batch, Table};
use crate::word::{CardRef, Lifecycle, Word};

/// One of two cards, as it was read before the lock.
pub(crate) struct Side {
    pub(super) card: CardRef,
    pub(super) word: Word,
    pub(super) past: Past,
    pub(super) wallet: Wallet,
}

/// What was read for a pair beside its first card.
pub(crate) struct PairRead {
    /// The second card, if there is one; of a retry the one of the first time.
    pub(super) second: Option<Side>,
    /// The order of the first card, if that is to be replaced.
    pub(super) order: Option<OrderPast>,
}

impl Side {
    /// A card in stock that nothing ever happened to but sales that were taken back.
    pub(super) fn untouched(card: CardRef, word: Word) -> Side {
        let wallet = Wallet {
            purse: None,
            trail: Default::default(),
            chapters: Vec::new(),
            sale: word.lsn(),
            sold_ms: 0,
        };
        Side { card, word, past: Past::NONE, wallet }
    }
}

impl Sequencer {
    /// Reads both cards of a pair, and the order of the first.
    pub(crate) fn read_pair(
        &self,
        request: &Request,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ChainError> {
        let (first, named, asked) = Asked::of(&request.command);
        let (first, named) = {
            let guard = Index::pin();
            let find = |digest: CardDigest| self.index.find(digest, &guard);
            (find(first), named.and_then(find))
        };
        let Some((batch, card)) = self.batch_of(first) else { return Ok(()) };
        (prepared.card, prepared.absent_at) = (Some(card), None);
        prepared.word = batch.word(card.row());
        let Side { past, wallet, word, .. } = self.read_side(request, card, buffer)?;
        prepared.word = word;
        let again = past.same.filter(|same| same.kind == Kind::Replace).and_then(|same| same.other);
        let replaces = matches!(asked, Asked::Replace { .. });
        let mut order = None;
        if let Some(sale) = wallet.sale
            && replaces
            && again.is_none()
            && word.lifecycle() == Lifecycle::Sold
        {
            order = self.read_order_of(request, sale, buffer)?;
        }
        let second = match (again, asked) {
            (Some(other), _) => Some(other),
            (None, Asked::Replace { with: None }) => {
                let state = self.state();
                let seen = state.seen(batch, card, word, &past, wallet.purse);
                let mut search = Search::default();
                let found = state.find_like(&self.table, &seen, &mut search);
                found.then(|| search.cards.cards().next().expect("one was found").0)
            }
            (None, _) => named,
        };
        let second = second.filter(|other| self.table.batch_of(*other).is_some());
        let second = second.map(|other| self.read_side(request, other, buffer)).transpose()?;
        let entry_bytes = |wallet: Option<&Wallet>| {
            let ends_volume = wallet.is_some_and(|wallet| !wallet.chapters.is_empty());
            PAIR_ENTRY_BYTES + request.grounds_bytes() + if ends_volume { VOLUME_BYTES } else { 0 }
        };
        prepared.log_bytes = 2 * GROUP_BYTES
            + entry_bytes(Some(&wallet))
            + entry_bytes(second.as_ref().map(|second| &second.wallet));
        prepared.set_past(past);
        prepared.wallet = Some(Box::new(wallet));
        prepared.detail = Detail::Pair(Box::new(PairRead { second, order }));
        Ok(())
    }

    fn read_side(&self, request: &Request, card: CardRef, buffer: &mut Vec<u8>) -> Result<Side, ChainError> {
        let batch = self.table.batch_of(card).expect("the caller looked for it");
        let word = batch.word(card.row());
        let sought = Sought::new(request.id, None, &self.marks, true);
        let (past, wallet) = self.read_value(&sought, card, word, &mut Chain::new(&self.wal, buffer))?;
        Ok(Side { card, word, past, wallet })
    }

    /// The order that bought a card, whose sale is the entry at `sale`.
    fn read_order_of(
        &self,
        request: &Request,
        sale: Lsn,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<OrderPast>, ChainError> {
        let mut chain = Chain::new(&self.wal, buffer);
        let entry = chain.entry(sale)?;
        let order = match entry.head.kind {
            Kind::Replacement => entry.pair()?.order,
            kind if kind.is_order() => entry.order()?.0,
            _ => return Ok(None),
        };
        let word = self.state().orders.find(&(request.caller.tenant, order));
        word.map(|word| chain.order(order, word, request.id)).transpose()
    }
}

impl State {
    /// A card as a decision sees it.
    pub(super) fn seen<'a>(
        &self,
        batch: &'a Batch,
        card: CardRef,
        word: Word,
        past: &'a Past,
        purse: Option<Purse>,
    ) -> Seen<'a> {
        let value = self.value(batch, card, word, purse, None);
        let mut view = self.view(batch, card.row(), word);
        view.held = 0 < value.held.live;
        if let Some(rule) = batch.validity {
            count_validity(self, past, purse, batch, card, rule, &mut view);
        }
        Seen { batch, card, word, view, value, past }
    }

    /// Looks for a card in stock that can take the place of another, and adds it to what was found.
    pub(super) fn find_like(&self, table: &Table, old: &Seen<'_>, found: &mut Search) -> bool {
        let product = self.product_of(old.batch);
        if self.is_product_frozen(product) {
            return false;
        }
        let face = old.is_single().then_some(old.view.face);
        let mut missing = 1;
        for &place in &product.stocked {
            let id = product.batches[place as usize];
            let batch = table.batch(id).expect("a product's batches are committed");
            if missing > 0 && batch_fits(old, batch) {
                let fits = |row| end_fits(old, self.expires_ms(batch, row, batch.word(row)));
                self.stock(id).find(batch, self.now_ms, self.now_ms, face, fits, &mut missing, found);
            }
        }
        missing == 0
    }

    /// Whether a card can take the place of another.
    pub(super) fn can_replace(&self, old: &Seen<'_>, new: &Seen<'_>) -> bool {
        new.card != old.card
            && new.view.lifecycle() == Lifecycle::Available
            && !new.view.is_frozen()
            && (!old.is_single() || new.view.face == old.view.face)
            && batch_fits(old, new.batch)
            && end_fits(old, new.view.expires_ms)
    }

    /// The most that a card can hold.
    pub(super) fn value_max(&self, seen: &Seen<'_>) -> Money {
        match (seen.view.kind, seen.value.value_max) {
            (CardKind::StoredValue, max) if 0 < max => max,
            _ => self.worth(seen.batch, seen.card.row()),
        }
    }
}
