//! Times as people type and read them. Inside, a time is milliseconds since 1970.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Reads an end of validity: a date (`2027-12-31`) counts to its last moment in the local time zone; a
/// date and time (`2027-12-31 18:00`) is local; with an offset (`2027-12-31T18:00:00+08:00`) it is exact.
///
/// # Errors
/// What is wrong with it.
pub fn parse_end(text: &str) -> Result<u64, String> {
    parse(text).map(|(ms, _)| ms)
}

/// Reads the last moment that is wanted: as [`parse_end`], but the midnight that ends a day is the next day's.
///
/// # Errors
/// What is wrong with it.
pub fn parse_until(text: &str) -> Result<u64, String> {
    parse(text).map(|(ms, is_day)| ms - u64::from(is_day))
}

/// Reads the first moment that is wanted: as [`parse_end`], but a date counts from its first moment.
///
/// # Errors
/// What is wrong with it.
pub fn parse_start(text: &str) -> Result<u64, String> {
    match spreadsheet_style(text.trim()).parse::<Date>() {
        Ok(date) if text.trim().len() <= 10 => parse(&format!("{date}T00:00:00")).map(|(ms, _)| ms),
        _ => parse(text).map(|(ms, _)| ms),
    }
}

/// A time, and whether it is the end of a day that was given without one.
fn parse(text: &str) -> Result<(u64, bool), String> {
    let text = spreadsheet_style(text.trim());
    let wrong = |_| "it is no date, such as 2027-12-31 or 2027-12-31T18:00:00+08:00".to_owned();
    let mut is_day = false;
    let stamp = if let Ok(stamp) = text.parse::<Timestamp>() {
        stamp
    } else if let (Ok(date), true) = (text.parse::<Date>(), text.len() <= 10) {
        is_day = true;
        let next = date.checked_add(1.day()).map_err(wrong)?;
        next.to_zoned(TimeZone::system()).map_err(wrong)?.timestamp()
    } else {
        let time: DateTime = text.parse().map_err(wrong)?;
        time.to_zoned(TimeZone::system()).map_err(wrong)?.timestamp()
    };
    match u64::try_from(stamp.as_millisecond()) {
        Ok(ms) if ms > 0 => Ok((ms, is_day)),
        _ => Err("it is before 1970".to_owned()),
    }
}

/// Spreadsheets write `2027/1/2 8:30`: the same with dashes, and with two digits each.
fn spreadsheet_style(text: &str) -> String {
    let text = text.replace('/', "-");
    let (date, time) = text.find([' ', 'T']).map_or((text.as_str(), ""), |end| text.split_at(end));
    let date: Vec<String> = date.split('-').map(|part| format!("{part:0>2}")).collect();
    let time = match time.as_bytes() {
        [_, hour, b':', ..] if hour.is_ascii_digit() => format!("{}0{}", &time[..1], &time[1..]),
        _ => time.to_owned(),
    };
    date.join("-") + &time
}

/// A time for a person, in the local time zone; `-` for none.
pub fn show(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match stamp {
        Some(stamp) if ms > 0 => {
            stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
        }
        _ => "-".to_owned(),
    }
}

/// The day of a time, as `2027-12-31`, in UTC as certificates have it.
pub fn day(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "-".to_owned(), |stamp| stamp.to_zoned(TimeZone::UTC).date().to_string())
}

/// A day, counted from 1970-01-01 in whatever time zone it is said to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub u32);

const FIRST_DAY: Date = Date::constant(1970, 1, 1);

/// Reads `2026-11-23`.
///
/// # Errors
/// If it is no date since 1970.
pub fn parse_day(text: &str) -> Result<Day, String> {
    let text = spreadsheet_style(text.trim());
    let days = text.parse::<Date>().ok().filter(|_| text.len() <= 10);
    let days = days.and_then(|date| FIRST_DAY.until(date).ok()).map(|span| span.get_days());
    days.and_then(|days| u32::try_from(days).ok())
        .map(Day)
        .ok_or_else(|| "it is no day, such as 2026-11-23".to_owned())
}

/// `2026-11-23`.
pub fn show_day(day: Day) -> String {
    let days = i64::from(day.0);
    FIRST_DAY.checked_add(days.days()).map_or_else(|_| "-".to_owned(), |date| date.to_string())
}

/// Reads `+08:00`, `-3:30` or `Z` as minutes ahead of UTC.
///
/// # Errors
/// If it is not that, or more than 18 hours.
pub fn parse_offset(text: &str) -> Result<i16, String> {
    let wrong = || "it is no distance from UTC, such as +08:00".to_owned();
    if matches!(text, "Z" | "z") {
        return Ok(0);
    }
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "00"));
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<i16>().ok()).flatten()
    };
    let (hours, minutes) = number(hours, 1..=2).zip(number(minutes, 2..=2)).ok_or_else(wrong)?;
    let total = hours * 60 + minutes;
    if minutes < 60 && total <= 18 * 60 { Ok(sign * total) } else { Err(wrong()) }
}

/// `+08:00`.
pub fn show_offset(minutes: i16) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.unsigned_abs() / 60, minutes.unsigned_abs() % 60)
}

/// This machine's time zone at the beginning of a day, in minutes ahead of UTC.
pub fn local_offset(day: Day) -> i16 {
    let date = FIRST_DAY.checked_add(i64::from(day.0).days());
    let zoned = date.and_then(|date| date.to_zoned(TimeZone::system()));
    zoned.map_or(0, |zoned| i16::try_from(zoned.offset().seconds() / 60).unwrap_or(0))
}

/// Now, by this machine's clock: good enough to say that a date in a file has passed.
pub fn now_ms() -> u64 {
    Timestamp::now().as_millisecond().unsigned_abs()
}

/// Reads `90s`, `15m`, `12h` or `30d`.
///
/// # Errors
/// If it is not that.
pub fn parse_seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => 0,
    };
    let number: Option<u32> = number.parse().ok().filter(|_| seconds > 0);
    let wrong = "it is no length of time, such as 90s, 15m, 12h or 30d".to_owned();
    number.and_then(|number| number.checked_mul(seconds)).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_lasts_to_its_end() {
        let day = parse_end("2027-12-31").unwrap();
        assert_eq!(parse_end("2027/12/31"), Ok(day));
        assert_eq!(parse_end("2027/1/2"), parse_end("2027-01-02"));
        assert_eq!(parse_end("2027/1/2 8:30"), parse_end("2027-01-02T08:30:00"));
        assert_eq!(parse_end("2027-12-31 23:59:59").map(|ms| ms + 1000), Ok(day));
        assert_eq!(parse_end("2027-12-31T18:00:00+08:00"), Ok(1_830_247_200_000));
        for text in ["", "soon", "2027-13-01", "2027-12", "31.12.2027", "1950-01-01"] {
            assert!(parse_end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_and_time_zones_are_read_and_shown() {
        assert_eq!(parse_day("1970-01-01"), Ok(Day(0)));
        assert_eq!(parse_day("2026-11-23"), Ok(Day(20_780)));
        assert_eq!(parse_day("2026/11/23"), Ok(Day(20_780)));
        assert_eq!(show_day(Day(20_780)), "2026-11-23");
        for text in ["", "1969-12-31", "2026-11", "2026-11-31", "today", "2026-11-23T00:00"] {
            assert!(parse_day(text).is_err(), "{text}");
        }
        for (text, minutes, shown) in [
            ("+08:00", 480, "+08:00"),
            ("+8", 480, "+08:00"),
            ("-3:30", -210, "-03:30"),
            ("Z", 0, "+00:00"),
            ("-00:00", 0, "+00:00"),
        ] {
            assert_eq!(parse_offset(text), Ok(minutes));
            assert_eq!(show_offset(minutes), shown);
        }
        for text in ["", "8", "+", "+19:00", "+8:0", "+08:60", "+-8", "UTC", "+123"] {
            assert!(parse_offset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_that_is_wanted_does_not_take_in_the_next_one() {
        assert_eq!(parse_until("2027-12-31").map(|ms| ms + 1), parse_end("2027-12-31"));
        assert_eq!(parse_until("2027-12-31 18:00"), parse_end("2027-12-31 18:00"));
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(parse_seconds("90s"), Ok(90));
        assert_eq!(parse_seconds("30d"), Ok(2_592_000));
        for text in ["", "d", "30", "1w", "-1d", "99999999d", "3天"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
