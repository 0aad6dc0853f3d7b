//! Which column is what: by the header, by what the person says, or by place.

use unicode_normalization::UnicodeNormalization;

use super::record::Record;

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
}

impl Column {
    /// By the name's letters alone: no case, width, spaces or remarks in brackets.
    fn of(name: &str) -> Option<Column> {
        Some(match name {
            "code" | "codes" | "cdkey" | "cdk" | "key" | "vouchercode" | "giftcode" | "cardcode"
            | "redeemcode" | "redemptioncode" | "couponcode" | "activationcode" | "兑换码" | "激活码"
            | "券码" | "卡券码" | "礼品码" | "提货码" | "充值码" | "序列码" => Column::Code,
            "卡号" | "card" | "cardno" | "cardnumber" | "number" | "serial" | "serialno" | "serialnumber"
            | "sn" | "序列号" => Column::Number,
            "卡密" | "卡密码" | "secret" => Column::Secret,
            "密码" | "pin" | "pincode" | "password" | "passcode" | "pwd" => Column::Pin,
            "面值" | "面额" | "金额" | "face" | "facevalue" | "value" | "amount" | "denomination" => {
                Column::Face
            }
            "有效期" | "有效期至" | "有效日期" | "有效期限" | "过期时间" | "过期日期" | "到期"
            | "到期时间" | "到期日" | "到期日期" | "失效日期" | "失效时间" | "截止日期" | "截止时间"
            | "expires" | "expiresat" | "expire" | "expiry" | "expirydate" | "expiredate" | "expiration"
            | "expirationdate" | "validuntil" | "validto" | "validthru" | "enddate" => Column::Expires,
            _ => return None,
        })
    }
}

/// What the first record of a file says about the columns.
pub struct Header {
    /// Which column is what.
    pub columns: Columns,
    /// Whether the record was a header and no card.
    pub is_header: bool,
    /// Columns that mean nothing here.
    pub ignored: Vec<String>,
}

/// What a name says: its letters and digits, without what stands in brackets.
fn squeezed(name: &str) -> String {
    let name: String = name.nfkc().flat_map(char::to_lowercase).collect();
    let name = name.split(['(', '[', '【']).next().unwrap_or_default();
    name.chars().filter(|character| character.is_alphanumeric()).collect()
}

impl Columns {
    /// Reads `code,pin,-,expires`: names in any language a header may have, `-` for what is not imported.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Columns, String> {
        let mut kinds = Vec::new();
        for name in text.split([',', '，']) {
            let kind = Column::of(&squeezed(name));
            if kind.is_none() && name.trim() != "-" {
                return Err(format!("`{name}` is none of code, pin, face, expires and -"));
            }
            kinds.push(kind);
        }
        Columns::of(&kinds)?.ok_or_else(|| "one of the columns must be `code`".to_owned())
    }

    fn of(kinds: &[Option<Column>]) -> Result<Option<Columns>, String> {
        let place = |wanted| kinds.iter().position(|kind| *kind == Some(wanted));
        if let Some(at) =
            (0..kinds.len()).find(|at| kinds[*at].is_some() && kinds[..*at].contains(&kinds[*at]))
        {
            return Err(format!("a column is named twice: the {}. is named like one before it", at + 1));
        }
        let (number, secret) = (place(Column::Number), place(Column::Secret));
        let Some(code) = place(Column::Code).or(number).or(secret) else { return Ok(None) };
        // Beside a number or code, 卡密 is what proves it.
        let pin = place(Column::Pin).or(secret.filter(|secret| *secret != code));
        Ok(Some(Columns { code, pin, face: place(Column::Face), expires: place(Column::Expires) }))
    }

    /// How many columns a record must have for the last of these.
    pub fn width(&self) -> usize {
        let last = [Some(self.code), self.pin, self.face, self.expires].into_iter().flatten().max();
        last.map_or(0, |last| last + 1)
    }

    fn is_used(&self, column: usize) -> bool {
        [Some(self.code), self.pin, self.face, self.expires].contains(&Some(column))
    }
}

impl Header {
    /// Learns from the first record; `given` says the columns outright.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn learn(first: &Record<'_>, given: Option<Columns>) -> Result<Header, String> {
        let names: Vec<String> = (0..first.len())
            .filter_map(|column| first.cell(column))
            .map(|(cell, _)| String::from_utf8_lossy(cell).into_owned())
            .collect();
        let kinds: Vec<Option<Column>> = names.iter().map(|name| Column::of(&squeezed(name))).collect();
        let is_header = kinds.iter().any(Option::is_some);
        let columns = match given {
            Some(columns) => columns,
            None if is_header => Columns::of(&kinds)?
                .ok_or("the header names no column `code` (or 卡号 or 卡密); --columns says which it is")?,
            None if names.len() > 4 => {
                return Err("the file has more than four columns and no header line that says which is \
                            which: begin it with code,pin,face,expires or 卡号,密码,面值,有效期, or use \
                            --columns"
                    .to_owned());
            }
            None => {
                let by_place = |place| (place < names.len()).then_some(place);
                Columns { code: 0, pin: by_place(1), face: by_place(2), expires: by_place(3) }
            }
        };
        let ignored = if is_header {
            let unused = names.into_iter().enumerate().filter(|(at, _)| !columns.is_used(*at));
            unused.map(|(_, name)| name).filter(|name| !name.is_empty()).collect()
        } else {
            Vec::new()
        };
        Ok(Header { columns, is_header, ignored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_can_be_said_outright() {
        let all = Columns { code: 0, pin: Some(1), face: Some(2), expires: Some(3) };
        assert_eq!(Columns::parse("code,pin,face,expires"), Ok(all));
        assert_eq!(Columns::parse("卡号，密码，面值，有效期"), Ok(all));
        let some = Columns { code: 2, expires: Some(0), ..Columns::default() };
        assert_eq!(Columns::parse("expires,-,Card No."), Ok(some));
        for wrong in ["", "-", "pin,face", "code,price", "code,code", "code,,pin"] {
            assert!(Columns::parse(wrong).is_err(), "{wrong}");
        }
    }
}
