//! The cards of a file as the rows of an import.

use std::io;

use kami_engine::{ImportRow, ImportSpec, Money};
use kami_net::client::Rows;
use kami_net::frame::request::ChunkRows;

use super::{CardFile, Cards};

/// The good lines of a card file, in order; the bad ones are passed over and take no row.
pub struct CardRows<'a> {
    file: &'a CardFile,
    cards: Option<Cards<'a>>,
    /// Which row comes next.
    next: u64,
    /// What a card is worth whose line does not say; `None` if rows carry no face value.
    face: Option<Money>,
}

impl<'a> CardRows<'a> {
    /// The rows of `spec`, which says whether they carry face values; `face` is that of the batch.
    #[must_use]
    pub fn new(file: &'a CardFile, spec: &ImportSpec, face: Money) -> CardRows<'a> {
        CardRows { file, cards: None, next: 0, face: spec.faces.then_some(face) }
    }
}

impl Rows for CardRows<'_> {
    fn seek(&mut self, row: u64) -> io::Result<()> {
        if row < self.next || self.cards.is_none() {
            (self.cards, self.next) = (Some(self.file.cards()?), 0);
        }
        let Some(cards) = &mut self.cards else { return Ok(()) };
        while self.next < row {
            match cards.next()? {
                None => return Ok(()),
                Some(line) => self.next += u64::from(line.card.is_ok()),
            }
        }
        Ok(())
    }

    fn fill(&mut self, chunk: &mut ChunkRows) -> io::Result<()> {
        if self.cards.is_none() {
            self.seek(0)?;
        }
        let Some(cards) = &mut self.cards else { return Ok(()) };
        while let Some(line) = cards.next()? {
            let Ok(card) = line.card else { continue };
            let fits = chunk.push(&ImportRow {
                code: card.code.as_bytes(),
                pin: card.pin,
                face: self.face.map(|batch| card.face.unwrap_or(batch)),
                expires_ms: card.expires_ms,
                origin: card.origin,
                ..ImportRow::default()
            });
            if !fits {
                cards.again();
                return Ok(());
            }
            self.next += 1;
        }
        Ok(())
    }
}
