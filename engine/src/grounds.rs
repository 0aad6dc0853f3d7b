//! The grounds of an administrative request: why it is made, and under whose approval.
//!
//! They stand at the end of its entry, so that who looks at a change later finds the reason with it, and they are
//! part of what was asked: the same request id with other words is another request.

use crate::identity::{PrincipalId, ProposalId};

/// The longest reason, in bytes.
pub const WHY_BYTES_MAX: usize = 255;

/// Why something is done, in the words of who does it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// The reason: at most [`WHY_BYTES_MAX`] bytes without control characters; empty if none was given.
    pub why: String,
    /// The proposal that a second person approved, where one must.
    pub approval: Option<ProposalId>,
    /// Who approved it; the engine says so, and no request.
    pub approver: Option<PrincipalId>,
}

impl Grounds {
    /// A reason, without an approval.
    #[must_use]
    pub fn because(why: &str) -> Grounds {
        Grounds { why: why.to_owned(), ..Grounds::default() }
    }

    /// Whether they say anything, and nothing that cannot be kept or shown.
    pub(crate) fn is_sane(&self) -> bool {
        self.why.len() <= WHY_BYTES_MAX
            && !self.why.chars().any(char::is_control)
            && (!self.why.is_empty() || self.approval.is_some())
            && self.approval != Some(ProposalId(0))
    }

    /// Whether a caller may give them with what it asks: a reason, and nothing about an approval, which is for the engine
    /// to say.
    pub(crate) fn is_reason(&self) -> bool {
        self.is_sane() && self.approval.is_none() && self.approver.is_none()
    }

    const FIXED_BYTES: usize = 21;
    /// The most bytes in an entry.
    pub(crate) const BYTES_MAX: usize = (Self::FIXED_BYTES + WHY_BYTES_MAX).next_multiple_of(8);

    /// Bytes in an entry, a multiple of 8.
    pub(crate) fn bytes(&self) -> usize {
        (Self::FIXED_BYTES + self.why.len()).next_multiple_of(8)
    }

    /// Writes them; `place` is [`Grounds::bytes`] long.
    ///
    /// # Panics
    /// If they are not sane.
    pub(crate) fn encode(&self, place: &mut [u8]) {
        place.fill(0);
        place[..16].copy_from_slice(&self.approval.map_or(0, |approval| approval.0).to_le_bytes());
        place[16..20].copy_from_slice(&self.approver.map_or(0, |approver| approver.0).to_le_bytes());
        place[20] = u8::try_from(self.why.len()).expect("bounded before the lock");
        place[Self::FIXED_BYTES..Self::FIXED_BYTES + self.why.len()].copy_from_slice(self.why.as_bytes());
    }

    /// What `bytes` say; `None` if they cannot be grounds.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Grounds> {
        let (approval, rest) = bytes.split_first_chunk::<16>()?;
        let (approver, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first()?;
        let why = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?.to_owned();
        let approval = match u128::from_le_bytes(*approval) {
            0 => None,
            id => Some(ProposalId(id)),
        };
        let approver = approval.map(|_| PrincipalId(u32::from_le_bytes(*approver)));
        let grounds = Grounds { why, approval, approver };
        (grounds.is_sane() && grounds.bytes() == bytes.len()).then_some(grounds)
    }

    /// The checksum of what was asked, these words included.
    pub(crate) fn body(&self, body: u32) -> u32 {
        let approval = self.approval.map_or(0, |approval| approval.0).to_le_bytes();
        crc32c::crc32c_append(crc32c::crc32c_append(body, &approval), self.why.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for grounds in [
            Grounds::because("客户投诉：卡被盗"),
            Grounds::because(&"x".repeat(WHY_BYTES_MAX)),
            Grounds { why: String::new(), approval: Some(ProposalId(7)), approver: Some(PrincipalId(0)) },
            Grounds {
                why: "seven!!".to_owned(),
                approval: Some(ProposalId(u128::MAX)),
                approver: Some(PrincipalId(u32::MAX)),
            },
        ] {
            assert!(grounds.is_sane());
            let mut bytes = vec![0xff; grounds.bytes()];
            assert!(bytes.len() <= (Grounds::FIXED_BYTES + WHY_BYTES_MAX).next_multiple_of(8));
            grounds.encode(&mut bytes);
            assert_eq!(Grounds::decode(&bytes), Some(grounds));
            bytes.extend([0; 8]);
            assert_eq!(Grounds::decode(&bytes), None, "longer than they say");
        }
    }

    #[test]
    fn what_says_nothing_or_cannot_be_shown_is_none() {
        for grounds in [
            Grounds::default(),
            Grounds::because("two\nlines"),
            Grounds::because(&"x".repeat(WHY_BYTES_MAX + 1)),
            Grounds { approval: Some(ProposalId(0)), ..Grounds::because("why") },
        ] {
            assert!(!grounds.is_sane(), "{grounds:?}");
        }
        assert_eq!(Grounds::decode(&[0; 24]), None);
        assert_eq!(Grounds::decode(&[0; 8]), None);
    }
}
