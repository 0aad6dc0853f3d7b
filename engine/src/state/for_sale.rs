//! Finding cards for an order: oldest batch first, in row order.
//!
//! A product that is imported every day has thousands of batches, most of them sold out, void or over. So each product
//! keeps which of them orders look at, and each batch where the search goes on.
//!
//! # Invariants
//! * A batch that is not looked at has no card that could be sold.
//! * To look for cards changes nothing; what was learned is kept afterwards, whatever became of the order.

use super::State;
use crate::identity::TenantId;
use crate::order::Line;
use crate::reply::StockLine;
use crate::stock::Search;
use crate::table::{Batch, Table};

impl State {
    /// Looks for the cards of one line of an order, oldest batch first, in row order, and adds them to what was
    /// found. Changes nothing. The result says whether there were enough.
    pub fn allocate(
        &self,
        table: &Table,
        tenant: TenantId,
        line: &Line,
        validity_s_min: u32,
        found: &mut Search,
    ) -> bool {
        let Some(product) = self.product(line.product, tenant) else { return false };
        if self.is_product_frozen(product) || !product.product.spec.terms.listed {
            return false;
        }
        let valid_until = self.now_ms + u64::from(validity_s_min) * 1000;
        let mut missing = u64::from(line.count);
        let known = |place: u32| {
            let id = product.batches[place as usize];
            (table.batch(id).expect("a product's batches are committed"), self.stock(id))
        };
        if line.face.is_some() {
            // Rows of one face value may lie anywhere: what cannot be enough is not looked for.
            let stocked = product.stocked.iter().map(|place| known(*place));
            let most: u64 = stocked.map(|(batch, stock)| stock.standing(batch, line.face)).sum();
            if most < missing {
                return false;
            }
        }
        for &place in &product.stocked {
            if missing == 0 {
                break;
            }
            let (batch, stock) = known(place);
            found.batches += 1;
            if stock.is_over(batch, self.now_ms) {
                found.over.push(batch.id);
            } else {
                stock.find(batch, self.now_ms, valid_until, line.face, |_| true, &mut missing, found);
            }
        }
        missing == 0
    }

    /// After looking for cards, whatever came of it: batches whose cards have all expired are looked at no more.
    pub fn pass_over(&mut self, table: &Table, found: &Search) {
        for &id in &found.over {
            let place = self.stock(id).place;
            let product = table.batch(id).expect("it was looked at").product;
            self.products[product.0 as usize - 1].stocked.remove(&place);
        }
    }

    /// After cards were looked for: the next order begins behind those that were found, if they were `taken`, and
    /// behind what is not for sale in any case.
    pub fn advance(&mut self, found: &Search, taken: bool) {
        for passed in found.passed() {
            let cursor = if taken { passed.taken } else { passed.left };
            self.stock_mut(passed.batch).pass(passed.face, cursor);
        }
    }

    /// Whether the batch has cards that could be sold has changed, perhaps: orders are to look at it, or not.
    #[cold]
    pub fn note_stock(&mut self, batch: &Batch) {
        let stock = self.stock(batch.id);
        let offers = !batch.is_frozen() && !batch.is_voided() && stock.standing(batch, None) > 0;
        let place = stock.place;
        let stocked = &mut self.products[batch.product.0 as usize - 1].stocked;
        if offers {
            stocked.insert(place);
        } else {
            stocked.remove(&place);
        }
    }

    /// The stock of a batch, to be shown.
    pub fn stock_line(&mut self, batch: &Batch) -> StockLine {
        let now_ms = self.now_ms;
        let product = &self.product_of(batch).product;
        let frozen = batch.is_frozen() || self.is_product_frozen(self.product_of(batch));
        let closed = frozen || batch.is_voided() || !product.spec.terms.listed;
        let stock = self.stock_mut(batch.id);
        let sellable = if closed { 0 } else { stock.sellable(batch, now_ms) };
        StockLine {
            product: batch.product,
            batch: batch.id,
            imported: batch.rows(),
            sellable,
            counts: stock.counts,
        }
    }
}
