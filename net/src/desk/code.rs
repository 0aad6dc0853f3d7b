//! Where plaintext codes and PINs end: only their digests go on.
//!
//! # Invariants
//! * A digest that was taken ahead is used only for the very bytes it was taken of, and by the tenant it was taken for.
//! * What was taken ahead is wiped with the batch at the latest.
//! * Whoever sent too many wrong codes is refused before anything is asked about the card.

use kami_engine::{CardDigest, CodeError, CodeGroup, Command, PinDigest, Status};

use super::{Desk, Refusal};
use crate::frame::request::Redeem;
use crate::frame::split::whole_frames;
use crate::frame::{Opcode, REQUEST_HEAD_BYTES, Secret, Wait};

impl Desk {
    /// Takes the digests of the redemptions that `piece` begins with, together, which costs a fraction of taking each when
    /// its turn comes. Nothing else is done about them.
    #[inline]
    pub(crate) fn look_ahead(&mut self, piece: &[u8]) {
        if self.ahead.is_spent() {
            let redemptions = whole_frames(piece, REQUEST_HEAD_BYTES).map_while(|frame| {
                let is_redemption = frame[6..8] == Opcode::Redeem.number().to_le_bytes();
                let body = is_redemption.then(|| Redeem::decode(&frame[REQUEST_HEAD_BYTES..]))?;
                body.ok().map(|redeem| redeem.code)
            });
            let room = self.batch_max.saturating_sub(self.line.len());
            self.digest_ahead(redemptions.take(room));
        }
    }

    #[inline]
    pub(super) fn digest_ahead<'c>(&mut self, codes: impl Iterator<Item = Secret<'c>>) {
        self.ahead.clear();
        for code in codes.take(CodeGroup::CODES_MAX) {
            // What cannot be a code is left out and answered when its turn comes.
            let _ = self.ahead.push(code.0);
        }
        if self.ahead.len() > 1 {
            self.shared.engine.digest_group(self.peer.caller.tenant, &mut self.ahead);
        } else {
            self.ahead.clear();
        }
    }

    #[inline]
    fn digest(&mut self, code: Secret<'_>) -> Result<CardDigest, CodeError> {
        match self.ahead.take(code.0) {
            Some(digest) => Ok(digest),
            None => self.shared.engine.digest(self.peer.caller.tenant, code.0),
        }
    }

    pub(super) fn redeem(
        &mut self,
        code: Secret<'_>,
        pin: Option<Secret<'_>>,
        amount: i64,
        partial: bool,
    ) -> Result<Command, Refusal> {
        let (card, pin) = self.card_and_pin(code, pin)?;
        Ok(Command::Redeem { card, pin, amount, partial })
    }

    /// A card that is used, with the PIN that was given for it.
    #[inline]
    pub(super) fn card_and_pin(
        &mut self,
        code: Secret<'_>,
        pin: Option<Secret<'_>>,
    ) -> Result<(CardDigest, Option<PinDigest>), Refusal> {
        let card = self.card(code, Status::CardNotValid)?;
        Ok((card, pin.map(|pin| self.shared.engine.pin_digest(card, pin.0))))
    }

    /// The card that a code names, unless the caller has sent too many wrong ones. What cannot be a code is
    /// `nobodys`; it tells a guesser nothing, and is not counted.
    #[inline]
    pub(super) fn card(&mut self, code: Secret<'_>, nobodys: Status) -> Result<CardDigest, Refusal> {
        let card = self.digest(code).map_err(|_| Refusal::Status(nobodys))?;
        if !self.codes.insert(card) {
            return Err(Refusal::Again);
        }
        let admitted = self.shared.guesses.admit(&self.peer.guesser, card.spread(), self.received);
        admitted.map_err(|wait| Refusal::Limited(Wait::of(wait)))?;
        Ok(card)
    }

    pub(super) fn known(&mut self, code: Secret<'_>) -> Result<CardDigest, Refusal> {
        self.card(code, Status::NotFound)
    }

    /// The second card of a request that names two. What comes of it is counted by the first, which was let in.
    pub(super) fn other(&self, code: Secret<'_>) -> Result<CardDigest, Refusal> {
        let digest = self.shared.engine.digest(self.peer.caller.tenant, code.0);
        digest.map_err(|_| Refusal::Status(Status::NotFound))
    }
}
