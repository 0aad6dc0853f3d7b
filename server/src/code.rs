//! Codes and ids as they are given on the command line.

use std::io::BufRead;

use kami_engine::{DocumentId, OrderId, RequestId};
pub use kami_server::ids::order_id;
use kami_server::ids::{derive, hex_id};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// A secret from the command line; `-` stands for the next line of standard input, because arguments
/// can be seen by everyone on the machine.
pub fn read_secret(argument: &str, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    /// No code or PIN is longer, however it is spaced.
    const LINE_BYTES_MAX: u64 = 4096;
    if argument != "-" {
        return Ok(Zeroizing::new(argument.as_bytes().to_vec()));
    }
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX as usize));
    let mut stdin = std::io::stdin().lock();
    let read = std::io::Read::take(&mut stdin, LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::environment(format!("standard input cannot be read: {error}")))?;
    let end = line.trim_ascii_end().len();
    line.truncate(end);
    if line.is_empty() {
        return Err(Failure::usage(format!("there is no {what} on standard input")));
    }
    Ok(line)
}

/// A code for the eyes of whoever knows it already: all but the last four characters hidden.
pub fn mask(code: &[u8]) -> String {
    let text = String::from_utf8_lossy(code);
    let characters: Vec<char> = text.trim().chars().collect();
    let shown = if characters.len() >= 8 { 4 } else { 0 };
    let tail: String = characters[characters.len() - shown..].iter().collect();
    format!("****{tail}")
}

/// 32 hex digits are an id as it is.
pub fn parse_id(text: &str) -> Result<RequestId, String> {
    match hex_id(text) {
        Some(0) => Err("zero is no id".to_owned()),
        Some(id) => Ok(RequestId(id)),
        None => Err("an id is 32 hex digits".to_owned()),
    }
}

/// A top-up by what the shop calls it, read as an order is.
pub fn top_up_id(name: &str) -> Result<RequestId, String> {
    if name.is_empty() {
        return Err("a top-up needs a name".to_owned());
    }
    let id = hex_id(name).unwrap_or_else(|| derive("kami 2026-11 id of a top-up of a name", name.as_bytes()));
    if id == 0 { Err("zero is no id".to_owned()) } else { Ok(RequestId(id)) }
}

/// The request id of an order's sale. It follows from the order, so that the same command run again is
/// a retry and not a second sale.
pub fn sale_id(order: OrderId) -> RequestId {
    RequestId(derive("kami 2026-11 request id of an order's sale", &order.0.to_le_bytes()).max(1))
}

/// The request id of a step of an order, as [`sale_id`]; `parts` tell apart what may happen to it several times.
pub fn step_id(order: OrderId, step: &str, parts: &[&[u8]]) -> RequestId {
    let mut bytes = order.0.to_le_bytes().to_vec();
    for part in [step.as_bytes()].iter().chain(parts) {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    RequestId(derive("kami 2026-11 request id of a step of an order", &bytes).max(1))
}

/// A document by what finance calls it, as [`order_id`].
pub fn document_id(name: &str) -> Result<DocumentId, String> {
    if name.is_empty() {
        return Err("a document needs a name".to_owned());
    }
    let id = hex_id(name).unwrap_or_else(|| derive("kami 2026-11 document id of a name", name.as_bytes()));
    if id == 0 { Err("zero is no document id".to_owned()) } else { Ok(DocumentId(id)) }
}

/// The request id of a document's posting, as [`sale_id`].
pub fn posting_id(document: DocumentId) -> RequestId {
    RequestId(derive("kami 2026-11 request id of a document's posting", &document.0.to_le_bytes()).max(1))
}

/// The request id of an import: what it is told from another one by. So the same command run again goes on
/// where the first was, or says what it said.
pub fn import_id(what: &str) -> RequestId {
    RequestId(derive("kami 2026-11 request id of an import", what.as_bytes()).max(1))
}

/// A digest of a card file and of how it is read.
pub fn content_digest(content: &[u8; 32], how: &str) -> u128 {
    derive("kami 2026-11 content of an import", &[content, how.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_show_no_more_than_four() {
        assert_eq!(mask(b"ABCD-EFGH-1234"), "****1234");
        assert_eq!(mask(b"1234567"), "****");
        assert_eq!(mask("卡密一二三四五六".as_bytes()), "****三四五六");
    }

    #[test]
    fn an_order_has_one_id_and_its_sale_another() {
        let id = order_id("2026-0001").unwrap();
        assert_eq!(order_id("2026-0001"), Ok(id));
        assert_ne!(order_id("2026-0002"), Ok(id));
        assert_eq!(order_id(&id.to_string()), Ok(id), "shown and typed again");
        assert_ne!(sale_id(id).0, id.0);
        assert!(order_id("").is_err());
        assert!(order_id(&"0".repeat(32)).is_err());
        assert!(parse_id("12").is_err());
    }
}
