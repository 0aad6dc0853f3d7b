//! What cards were in the system that they come from: the columns state, sold_at, redeemed_at, order and remaining.
//!
//! A card that was redeemed and comes in as sold is worth its value twice, and one that was sold and comes in as
//! stock is sold twice. So every line must say its state, in words that are known here, and what it says besides must
//! fit that state: a line that cannot have been so is bad, and says why.

use kami_engine::{CardKind, Lifecycle, Money, Origin, ProductSpec, ValidFrom};

use super::card::Last;
use super::header::Columns;
use super::record::Record;
use super::{BadLine, CardFile, sheet};
use crate::{ids, money, time};

/// The cards that lines are to be, as their product and batch say.
#[derive(Clone, Copy, Debug)]
pub struct NewCards {
    kind: CardKind,
    worth: Money,
    value_max: Money,
    /// From when their days count, if their number is not that of the import.
    valid_from: ValidFrom,
}

impl NewCards {
    /// Of a product; `face` is what a card of the batch is worth, and `ends` whether the batch says when all end.
    #[must_use]
    pub fn of(product: &ProductSpec, face: Money, ends: bool) -> NewCards {
        let worth = match product.kind {
            CardKind::MultiUse => Money::from(product.terms.uses),
            _ => face,
        };
        let by_rule = product.valid_days > 0 && !ends;
        let valid_from = if by_rule { product.terms.valid_from } else { ValidFrom::Import };
        NewCards { kind: product.kind, worth, value_max: product.terms.value_max, valid_from }
    }
}

/// What the last line said: the next line's is mostly the same.
#[derive(Default)]
pub struct Memory {
    sold: Last<u64>,
    redeemed: Last<u64>,
    remaining: Last<Money>,
}

/// What a line calls its state.
enum Said {
    Is(Lifecycle),
    Frozen,
    Expired,
}

fn said(name: &str) -> Result<Said, BadLine> {
    let name: String = name.to_lowercase().chars().filter(|letter| letter.is_alphanumeric()).collect();
    Ok(match name.as_str() {
        "available" | "instock" | "stock" | "unsold" | "在库" | "在庫" | "库存" | "未售" | "未售出"
        | "可售" => Said::Is(Lifecycle::Available),
        "sold" | "已售" | "已售出" | "已出售" | "售出" => Said::Is(Lifecycle::Sold),
        "redeemed" | "used" | "已核销" | "已核銷" | "核销" | "已使用" | "已用" | "已兑换" => {
            Said::Is(Lifecycle::Redeemed)
        }
        "void" | "voided" | "作废" | "作廢" | "已作废" => Said::Is(Lifecycle::Voided),
        "returned" | "退回" | "已退回" | "退货" | "已退货" => Said::Is(Lifecycle::Returned),
        "frozen" | "冻结" | "凍結" | "已冻结" => Said::Frozen,
        "expired" | "过期" | "過期" | "已过期" => Said::Expired,
        "reserved" | "占用" | "已占用" => {
            return bad("it waits for its payment: settle that order first, and say sold or available");
        }
        "" => return bad("it has no state"),
        _ => {
            return bad(
                "its state is none of available, sold, redeemed, voided, returned, frozen and expired",
            );
        }
    })
}

fn bad<T>(why: &str) -> Result<T, BadLine> {
    Err(BadLine(why.to_owned()))
}

impl CardFile {
    /// What the card of a line was. `face` and `expires_ms` are what the line says of them.
    pub(super) fn origin(
        &self,
        record: &Record<'_>,
        face: Option<Money>,
        expires_ms: u64,
        memory: &mut Memory,
    ) -> Result<Option<Origin>, BadLine> {
        let Some(new) = self.states else { return Ok(None) };
        let Columns { state, sold_at, redeemed_at, order, remaining, .. } = self.columns;
        let said = said(&self.word(record, state, "state")?)?;
        let moment = |column, what: &str, memory: &mut Last<u64>| -> Result<u64, BadLine> {
            let Some(column) = column else { return Ok(0) };
            let text = self.cell(record, column, what)?;
            if text.is_empty() {
                return Ok(0);
            }
            let ms = memory.of(text, |text| {
                let date = sheet::date_of_serial(text);
                let start = time::parse_start(date.as_deref().unwrap_or(text));
                start.map_err(|wrong| BadLine(format!("its {what} is wrong: {wrong}")))
            })?;
            if ms > self.now_ms { Err(BadLine(format!("its {what} is in the future"))) } else { Ok(ms) }
        };
        let sold_ms = moment(sold_at, "sold_at", &mut memory.sold)?;
        let redeemed_ms = moment(redeemed_at, "redeemed_at", &mut memory.redeemed)?;
        let order = match self.word(record, order, "order")? {
            name if name.is_empty() => None,
            name => {
                Some(ids::order_id(&name).map_err(|wrong| BadLine(format!("its order is wrong: {wrong}")))?)
            }
        };
        let left = self.remaining(record, remaining, new, memory)?;
        let was_sold = sold_ms != 0 || redeemed_ms != 0 || order.is_some() || left.is_some();
        let (state, frozen) = match said {
            Said::Is(state) => (state, false),
            // Both may be said of what is in stock and of what is in somebody's hands.
            Said::Frozen | Said::Expired => {
                let state = if was_sold { Lifecycle::Sold } else { Lifecycle::Available };
                (state, matches!(said, Said::Frozen))
            }
        };
        let worth = face.filter(|_| new.kind != CardKind::MultiUse).unwrap_or(new.worth);
        let in_parts = matches!(new.kind, CardKind::MultiUse | CardKind::StoredValue);
        // What can be loaded again is never used up.
        let loads = new.kind == CardKind::StoredValue && new.value_max > 0;
        let (state, left) = match (state, left) {
            (Lifecycle::Redeemed, None | Some(0)) if loads => (Lifecycle::Sold, Some(0)),
            (state, left) => (state, left),
        };
        let origin = Origin { state, frozen, sold_ms, redeemed_ms, remaining: left, order };
        match state {
            _ if matches!(said, Said::Expired) && (expires_ms == 0 || self.now_ms < expires_ms) => {
                bad("it is said to be expired, and its expiry is not a time that has passed")
            }
            Lifecycle::Available if was_sold => {
                bad("it is said to be in stock, and has a sold_at, redeemed_at, remaining or order")
            }
            Lifecycle::Voided | Lifecycle::Returned if redeemed_ms != 0 || left.is_some() => {
                bad("it has a redeemed_at or remaining, and is said not to be used")
            }
            Lifecycle::Sold if !in_parts && redeemed_ms != 0 => {
                bad("it is said to be sold, and has a redeemed_at: is it redeemed?")
            }
            Lifecycle::Sold if left.is_none() && redeemed_ms != 0 => {
                bad("it was used, and does not say what remains")
            }
            Lifecycle::Sold if left == Some(0) && !loads => bad("nothing remains of it: is it redeemed?"),
            Lifecycle::Redeemed if left.is_some_and(|left| left != 0) => {
                bad("it is said to be redeemed, and something remains of it")
            }
            _ if left.is_some_and(|left| left > worth.max(new.value_max)) => {
                bad("more remains of it than it can hold")
            }
            _ if sold_ms != 0 && redeemed_ms != 0 && redeemed_ms < sold_ms => {
                bad("its redeemed_at is before its sold_at")
            }
            Lifecycle::Sold if expires_ms == 0 && sold_ms == 0 && new.valid_from == ValidFrom::Sale => {
                bad("its validity counts from its sale: say sold_at or expires")
            }
            Lifecycle::Sold
                if expires_ms == 0
                    && left.is_some()
                    && redeemed_ms == 0
                    && new.valid_from == ValidFrom::FirstUse =>
            {
                bad("its validity counts from its first use: say redeemed_at or expires")
            }
            _ if !origin.is_possible(new.kind, worth, new.value_max, self.now_ms) => {
                bad("what it says of its state does not fit together")
            }
            _ => Ok(Some(origin)),
        }
    }

    /// A cell's words in plain letters; empty if the file has no such column.
    fn word(&self, record: &Record<'_>, column: Option<usize>, what: &str) -> Result<String, BadLine> {
        use unicode_normalization::UnicodeNormalization;
        let Some(column) = column else { return Ok(String::new()) };
        let cell = self.cell(record, column, what)?;
        let text = std::str::from_utf8(cell).map_err(|_| BadLine(self.not_text(what)))?;
        Ok(text.nfkc().collect())
    }

    fn remaining(
        &self,
        record: &Record<'_>,
        column: Option<usize>,
        new: NewCards,
        memory: &mut Memory,
    ) -> Result<Option<Money>, BadLine> {
        let Some(column) = column else { return Ok(None) };
        let text = self.cell(record, column, "remaining")?;
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |wrong: String| BadLine(format!("its remaining is wrong: {wrong}"));
        let left = memory.remaining.of(text, |text| match new.kind {
            CardKind::StoredValue => money::parse(text, self.currency).map_err(wrong),
            CardKind::MultiUse => text
                .parse::<u32>()
                .map(Money::from)
                .map_err(|_| wrong("a number of uses is wanted, such as 3".to_owned())),
            _ => Err(wrong("a card that is used once has nothing that remains".to_owned())),
        })?;
        Ok(Some(left))
    }
}
