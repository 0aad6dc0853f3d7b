//! Which column is what: by the header, by what the person says, or by place.
//!
//! A column that is left out unnoticed makes wrong cards: without their PINs, worth something else, valid for
//! ever. So a header must be understood as a whole, and where it might be one and might not, the person is
//! asked.

use unicode_normalization::UnicodeNormalization;

use super::form::{Row, Sample};
use super::record::Form;

/// Where what is imported stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The code.
    pub code: usize,
    /// The PIN.
    pub pin: Option<usize>,
    /// The face value.
    pub face: Option<usize>,
    /// The end of validity.
    pub expires: Option<usize>,
    /// What the card was in the system it comes from; this and the next four only if that is to be imported.
    pub state: Option<usize>,
    /// When it was sold there.
    pub sold_at: Option<usize>,
    /// When it was redeemed there, or used first.
    pub redeemed_at: Option<usize>,
    /// The order that bought it there.
    pub order: Option<usize>,
    /// What is left on it.
    pub remaining: Option<usize>,
    /// How many columns there are, with those that are not imported.
    pub count: usize,
}

/// What a header may call a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Code,
    /// 卡号: the code, if there is no other.
    Number,
    /// 卡密: the code, or beside one its PIN.
    Secret,
    Pin,
    Face,
    Expires,
    State,
    SoldAt,
    RedeemedAt,
    Order,
    Remaining,
    /// Known to be of no use here.
    Other,
}

impl Column {
    /// By the name's letters alone: no case, width, spaces or remarks in brackets.
    fn of(name: &str) -> Option<Column> {
        Some(match name {
            "code" | "codes" | "cdkey" | "cdk" | "key" | "vouchercode" | "giftcode" | "cardcode"
            | "redeemcode" | "redemptioncode" | "couponcode" | "activationcode" | "兑换码" | "激活码"
            | "券码" | "卡券码" | "礼品码" | "提货码" | "充值码" | "序列码" | "兌換碼" | "序號碼" => {
                Column::Code
            }
            "卡号" | "卡號" | "card" | "cardno" | "cardnumber" | "number" | "serial" | "serialno"
            | "serialnumber" | "sn" | "序列号" | "序列號" => Column::Number,
            "卡密" | "卡密码" | "卡密碼" | "secret" => Column::Secret,
            "密码" | "密碼" | "pin" | "pincode" | "password" | "passcode" | "pwd" => Column::Pin,
            "面值" | "面额" | "面額" | "金额" | "金額" | "face" | "facevalue" | "value" | "amount"
            | "denomination" => Column::Face,
            "有效期" | "有效期至" | "有效日期" | "有效期限" | "过期时间" | "过期日期" | "到期"
            | "到期时间" | "到期日" | "到期日期" | "失效日期" | "失效时间" | "截止日期" | "截止时间"
            | "expires" | "expiresat" | "expire" | "expiry" | "expirydate" | "expiredate" | "expiration"
            | "expirationdate" | "validuntil" | "validto" | "validthru" | "enddate" => Column::Expires,
            "state" | "status" | "状态" | "狀態" | "卡状态" => Column::State,
            "soldat" | "solddate" | "saletime" | "selltime" | "售出时间" | "销售时间" | "出售时间"
            | "售出日期" => Column::SoldAt,
            "redeemedat" | "redeemtime" | "usedat" | "usetime" | "核销时间" | "使用时间" | "兑换时间"
            | "核销日期" => Column::RedeemedAt,
            "order" | "orderno" | "ordernumber" | "orderid" | "订单号" | "訂單號" | "订单" => {
                Column::Order
            }
            "remaining" | "balance" | "余额" | "餘額" | "剩余" | "剩余次数" | "剩余金额" => {
                Column::Remaining
            }
            "序号" | "序號" | "编号" | "編號" | "行号" | "备注" | "備註" | "说明" | "說明" | "批次"
            | "批次号" | "批号" | "商品" | "商品名" | "商品名称" | "产品" | "产品名称" | "品名" | "名称"
            | "名稱" | "类型" | "类别" | "分类" | "规格" | "数量" | "币种" | "渠道" | "供应商"
            | "采购单号" | "创建时间" | "创建日期" | "生成时间" | "生成日期" | "制卡日期" | "发行日期"
            | "no" | "index" | "id" | "row" | "note" | "notes" | "remark" | "remarks" | "comment"
            | "comments" | "memo" | "description" | "batch" | "batchno" | "batchnumber" | "lot"
            | "product" | "productname" | "item" | "name" | "title" | "type" | "category" | "quantity"
            | "qty" | "currency" | "supplier" | "channel" | "po" | "created" | "createdat" | "createtime"
            | "issued" | "issuedate" | "label" => Column::Other,
            _ => return None,
        })
    }
}

/// What the first records of a file say about the columns.
pub struct Header {
    /// Which column is what.
    pub columns: Columns,
    /// Whether the first record is a header and no card.
    pub is_header: bool,
    /// Columns that mean nothing here.
    pub ignored: Vec<String>,
}

/// What a name says: its letters and digits, without a remark in brackets. One with digits is no remark:
/// `CODE(0001)` is a code.
fn squeezed(name: &str) -> String {
    let name: String = name.nfkc().flat_map(char::to_lowercase).collect();
    let (before, remark) = match name.find(['(', '[', '【']) {
        Some(at) => name.split_at(at),
        None => (name.as_str(), ""),
    };
    let name = if remark.contains(|character: char| character.is_ascii_digit()) { &name } else { before };
    name.chars().filter(|character| character.is_alphanumeric()).collect()
}

/// Why a cell is no code, though it might pass for one: a header that comes again, or a sum below the cards.
pub fn no_code(cell: &[u8]) -> Option<&'static str> {
    const SUM: &str = "is the word for a sum, and no card";
    let is_plain = cell.is_ascii() && cell.iter().any(u8::is_ascii_digit);
    if is_plain && !cell.contains(&b':') {
        // Most codes have digits; no name of a column has, nor has a sum in English before its colon.
        return None;
    }
    let name = std::str::from_utf8(cell).ok()?;
    let word = name.split([':', '：']).next().map(squeezed).unwrap_or_default();
    if matches!(word.as_str(), "total" | "subtotal" | "grandtotal") {
        return Some(SUM);
    }
    if is_plain {
        return None;
    }
    let word = squeezed(name);
    if Column::of(&word).is_some() {
        return Some("is the name of a column; is this a header that comes again?");
    }
    let word: String = word.chars().filter(|character| !character.is_ascii_digit()).collect();
    let is_sum =
        ["合计", "总计", "小计", "共计", "总数", "合計", "總計"].iter().any(|sum| word.starts_with(sum))
            || matches!(word.as_str(), "共" | "共张" | "共条" | "共个" | "共枚");
    is_sum.then_some(SUM)
}

impl Columns {
    /// Whether it says of cards what they were elsewhere.
    #[must_use]
    pub fn tells_states(&self) -> bool {
        [self.state, self.sold_at, self.redeemed_at, self.order, self.remaining].iter().any(Option::is_some)
    }

    /// Reads `code,pin,-,expires`: names in any language a header may have, `-` for what is not imported.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Columns, String> {
        let mut kinds = Vec::new();
        for name in text.split([',', '，']) {
            let kind = Column::of(&squeezed(name)).filter(|kind| *kind != Column::Other);
            if kind.is_none() && name.trim() != "-" {
                return Err(format!(
                    "`{name}` is none of code, pin, face, expires and -, nor of state, sold_at, redeemed_at, order \
                     and remaining"
                ));
            }
            kinds.push(kind);
        }
        Columns::of(&kinds)?.ok_or_else(|| "one of the columns must be `code`".to_owned())
    }

    fn of(kinds: &[Option<Column>]) -> Result<Option<Columns>, String> {
        let is_wanted = |kind: Option<Column>| kind.is_some_and(|kind| kind != Column::Other);
        let place = |wanted| kinds.iter().position(|kind| *kind == Some(wanted));
        if let Some(at) =
            (0..kinds.len()).find(|at| is_wanted(kinds[*at]) && kinds[..*at].contains(&kinds[*at]))
        {
            return Err(format!("a column is named twice: the {}. is named like one before it", at + 1));
        }
        let (number, secret) = (place(Column::Number), place(Column::Secret));
        let Some(code) = place(Column::Code).or(number).or(secret) else { return Ok(None) };
        // Beside a number or code, 卡密 is what proves it.
        let pin = place(Column::Pin).or(secret.filter(|secret| *secret != code));
        Ok(Some(Columns {
            code,
            pin,
            face: place(Column::Face),
            expires: place(Column::Expires),
            state: place(Column::State),
            sold_at: place(Column::SoldAt),
            redeemed_at: place(Column::RedeemedAt),
            order: place(Column::Order),
            remaining: place(Column::Remaining),
            count: kinds.len(),
        }))
    }

    fn is_used(&self, column: usize) -> bool {
        let Columns { state, sold_at, redeemed_at, order, remaining, .. } = *self;
        [Some(self.code), self.pin, self.face, self.expires, state, sold_at, redeemed_at, order, remaining]
            .contains(&Some(column))
    }
}

impl Header {
    /// Learns from the first records; `given` says the columns outright, `said` whether the first record is a
    /// header, and `form` is what parts the cells of a text.
    ///
    /// # Errors
    /// What is wrong or not clear, and what to do.
    pub fn learn(
        sample: &Sample,
        form: Option<Form>,
        given: Option<Columns>,
        said: Option<bool>,
        states: bool,
    ) -> Result<Header, String> {
        let in_lines = form == Some(Form::OneCodeALine);
        let first = match sample.first() {
            None => return Err("the card file is empty".to_owned()),
            Some(Ok(first)) => first,
            // A line is one cell, whatever is in it; it is reported like any other bad one.
            Some(Err(_)) if said != Some(true) && (in_lines || given.is_some()) => {
                let columns = given.unwrap_or(Columns { count: 1, ..Columns::default() });
                return Ok(Header { columns, is_header: false, ignored: Vec::new() });
            }
            Some(Err(broken)) => {
                return Err(format!(
                    "its first line, which says what the columns are, cannot be read: {}",
                    broken.why
                ));
            }
        };
        let kinds = kinds(first);
        let is_header = said.unwrap_or_else(|| kinds.iter().any(Option::is_some));
        if !is_header && said.is_none() {
            no_header_behind(sample)?;
            no_unknown_header(sample, given.map_or(0, |columns| columns.code))?;
        }
        let columns = match given {
            Some(columns) => columns,
            None if is_header => named(first, &kinds, sample, states)?,
            None if first.cells.len() > 4 => {
                return Err("the file has more than four columns and no header line that says which is \
                            which: begin it with code,pin,face,expires or 卡号,密码,面值,有效期, or use \
                            --columns"
                    .to_owned());
            }
            None => {
                // A first line that is narrower than the rest is not what tells how many columns there are.
                let rows = sample.iter().flatten();
                if let Some(other) = rows.clone().find(|row| row.cells.len() > first.cells.len()) {
                    return Err(format!(
                        "its first line has fewer cells than line {}: remove it if it is no card, or say \
                         --columns",
                        other.line
                    ));
                }
                let by_place = |place| (place < first.cells.len()).then_some(place);
                let (pin, face, expires) = (by_place(1), by_place(2), by_place(3));
                Columns { code: 0, pin, face, expires, count: first.cells.len(), ..Columns::default() }
            }
        };
        if states && columns.state.is_none() {
            return Err(
                "no column says what the cards were: begin the file with a header that has a column `state` \
                        (or 状态), or say --columns"
                    .to_owned(),
            );
        }
        if !states && columns.tells_states() {
            return Err(
                "--columns names what cards were in another system: say --with-state to bring that, or - in \
                        its place"
                    .to_owned(),
            );
        }
        if given.is_some() && form.is_some() {
            let filled =
                |row: &&Row| row.cells.iter().rposition(|cell| !cell.is_empty()).map_or(0, |at| at + 1);
            if let Some(wide) = sample.iter().flatten().find(|row| filled(row) > columns.count) {
                return Err(format!(
                    "line {} has {} cells parted by {}, and --columns names {}: write - for each that is not \
                     imported, or say --separator",
                    wide.line,
                    filled(&wide),
                    form.map_or("", Form::name),
                    columns.count
                ));
            }
        }
        let ignored = if is_header {
            let unused = first.cells.iter().enumerate().filter(|(at, _)| !columns.is_used(*at));
            unused.map(|(_, name)| name.to_string()).filter(|name| !name.is_empty()).collect()
        } else {
            Vec::new()
        };
        Ok(Header { columns, is_header, ignored })
    }
}

fn kinds(row: &Row) -> Vec<Option<Column>> {
    row.cells.iter().map(|cell| Column::of(&squeezed(cell))).collect()
}

/// The columns that a header names, all of which are known.
fn named(header: &Row, kinds: &[Option<Column>], sample: &Sample, states: bool) -> Result<Columns, String> {
    // A state or an order may be no more than a note; times and remainders tell of cards that were used.
    let tells = |kind: &&Option<Column>| {
        matches!(kind, Some(Column::SoldAt | Column::RedeemedAt | Column::Remaining))
    };
    if !states && kinds.iter().any(|kind| tells(&kind)) {
        return Err(
            "its header says when cards were sold or used elsewhere: say --with-state to bring them as what \
                    they were, or leave those columns out with --columns"
                .to_owned(),
        );
    }
    let passed_over = |kind: &Option<Column>| match kind {
        Some(Column::State | Column::Order) if !states => Some(Column::Other),
        kind => *kind,
    };
    let known: Vec<Option<Column>> = kinds.iter().map(passed_over).collect();
    let columns = Columns::of(&known)?
        .ok_or("the header names no column `code` (or 卡号 or 卡密); --columns says which it is")?;
    for (at, (name, kind)) in header.cells.iter().zip(kinds).enumerate() {
        let is_filled = || {
            sample.iter().flatten().skip(1).any(|row| row.cells.get(at).is_some_and(|cell| !cell.is_empty()))
        };
        if kind.is_none() && (!name.is_empty() || is_filled()) {
            return Err(format!(
                "the header's {}. column has a name that is not known, `{}`: rename it, or say with --columns what \
                 it is, - for what is not imported",
                at + 1,
                shown(name)
            ));
        }
    }
    Ok(columns)
}

/// A name as it may be shown: a cell of a line that is no header might be a code.
fn shown(name: &str) -> String {
    let is_secret = name.chars().any(|character| character.is_ascii_digit());
    let name: String = name.chars().filter(|character| !character.is_control()).take(24).collect();
    if is_secret { "…".to_owned() } else { name }
}

/// That no later line is the header: what stands before it would be a card, or would say what the columns are.
fn no_header_behind(sample: &Sample) -> Result<(), String> {
    let behind = sample.iter().flatten().skip(1);
    // A single name may stand in a card's note.
    let is_header = |row: &&Row| {
        let known = kinds(row).iter().flatten().count();
        known > 0
            && (known > 1 || row.cells.len() == 1)
            && Columns::of(&kinds(row)).is_ok_and(|of| of.is_some())
    };
    match behind.clone().find(is_header) {
        None => Ok(()),
        Some(header) => Err(format!(
            "its header seems to be line {}: remove the lines before it, or say --header no",
            header.line
        )),
    }
}

/// That the first line is not a header in words that are not known here: it has no digit in the code's place
/// and is of another length, while all others have digits there.
fn no_unknown_header(sample: &Sample, code: usize) -> Result<(), String> {
    let mut codes = sample.iter().flatten().filter_map(|row| row.cells.get(code));
    let Some(first) = codes.next() else { return Ok(()) };
    let has_digit = |cell: &str| cell.nfkc().any(|character| character.is_ascii_digit());
    let mut others = codes.filter(|cell| !cell.is_empty()).peekable();
    let is_alone = others.peek().is_some()
        && !has_digit(first)
        && others.all(|cell| has_digit(cell) && cell.len() != first.len());
    if is_alone {
        return Err(
            "its first line may be a header or a title: say --header yes, with --columns, if it is one, \
                    or --header no if it is a card"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_can_be_said_outright() {
        let all = Columns {
            code: 0,
            pin: Some(1),
            face: Some(2),
            expires: Some(3),
            count: 4,
            ..Columns::default()
        };
        assert_eq!(Columns::parse("code,pin,face,expires"), Ok(all));
        assert_eq!(Columns::parse("卡号，密码，面值，有效期"), Ok(all));
        let some = Columns { code: 2, expires: Some(0), count: 3, ..Columns::default() };
        assert_eq!(Columns::parse("expires,-,Card No."), Ok(some));
        for wrong in ["", "-", "pin,face", "code,price", "code,code", "code,,pin"] {
            assert!(Columns::parse(wrong).is_err(), "{wrong}");
        }
    }
}
