//! Amounts as people type them: in the currency's main unit. Inside, money is a whole number of minor units.

use kami_engine::Money;

/// How many digits the minor unit has (ISO 4217). Two unless listed.
fn digits(currency: [u8; 3]) -> usize {
    match &currency {
        b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
        | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
        b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
        _ => 2,
    }
}

/// Reads `28`, `28.5` or `28.50`; never rounds.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, currency: [u8; 3]) -> Result<Money, String> {
    let digits = digits(currency);
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let fraction = fraction.trim_end_matches('0');
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return Err("it is no amount, such as 28 or 28.50".to_owned());
    }
    if fraction.len() > digits {
        return Err(format!("an amount in {} has {digits} digits after the point", name(currency)));
    }
    format!("{whole}{fraction:0<digits$}").parse().map_err(|_| "the amount is too large".to_owned())
}

/// `28.00`.
pub fn show(money: Money, currency: [u8; 3]) -> String {
    let digits = digits(currency);
    let (sign, units) = (if money < 0 { "-" } else { "" }, money.unsigned_abs().to_string());
    let units = format!("{units:0>width$}", width = digits + 1);
    match units.split_at(units.len() - digits) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// `28.00 CNY`.
pub fn show_with(money: Money, currency: [u8; 3]) -> String {
    format!("{} {}", show(money, currency), name(currency))
}

/// The currency's three letters.
pub fn name(currency: [u8; 3]) -> String {
    String::from_utf8_lossy(&currency).into_owned()
}

/// Three letters, in upper case.
///
/// # Errors
/// If it is not that.
pub fn parse_currency(text: &str) -> Result<[u8; 3], String> {
    let bytes: Result<[u8; 3], _> = text.to_ascii_uppercase().into_bytes().try_into();
    match bytes {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_uppercase) => Ok(bytes),
        _ => Err("a currency is three letters, such as CNY".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown_exactly() {
        for (text, currency, minor, shown) in [
            ("100", b"CNY", 10_000, "100.00"),
            ("28.5", b"CNY", 2850, "28.50"),
            ("0.05", b"USD", 5, "0.05"),
            ("500", b"JPY", 500, "500"),
            ("1.250", b"KWD", 1250, "1.250"),
            ("3.10000", b"EUR", 310, "3.10"),
        ] {
            assert_eq!(parse(text, *currency), Ok(minor));
            assert_eq!(show(minor, *currency), shown);
        }
        for text in ["", ".5", "-1", "1,000", "28.505", "1e3", "99999999999999999999", "NaN"] {
            assert!(parse(text, *b"CNY").is_err(), "{text}");
        }
    }
}
