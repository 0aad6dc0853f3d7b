//! The characters of generated codes, and the one that tells a mistyped code from a right one.
//!
//! The alphabet is Crockford's base 32: digits and capital letters without I, L, O and U, which are taken for
//! others or make words (Douglas Crockford, "Base 32", crockford.com/base32.html). His check symbol needs five
//! signs beyond the alphabet; this one stays within it.
//!
//! The 32 characters are the elements of the field GF(2⁵), as polynomials in x modulo x⁵ + x² + 1; x is primitive in it.
//! A code of n characters c₁ … cₙ is right if
//!
//! ```text
//! c₁·xⁿ⁻¹ + c₂·xⁿ⁻² + … + cₙ₋₁·x + cₙ = 0
//! ```
//! Any single wrong character changes the sum, because no weight is zero; swapping two neighbours does,
//! because their weights differ and the difference has an inverse; so does swapping any two characters of
//! a code of at most 31, because x has order 31. (H. P. Gumm, "A new class of check-digit methods for
//! arbitrary number systems", IEEE Transactions on Information Theory 31, 1985.)

/// The characters by their value.
pub const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// x⁵ in the field: x² + 1.
const REDUCTION: u8 = 0b0_0101;

/// A value times x.
const fn times_x(value: u8) -> u8 {
    let shifted = value << 1 & 31;
    if value & 16 == 0 { shifted } else { shifted ^ REDUCTION }
}

/// The value of the sum over these values.
fn sum(values: &[u8]) -> u8 {
    values.iter().fold(0, |sum, value| times_x(sum) ^ value)
}

/// The value that makes a code right when it stands behind these.
pub fn check_value(values: &[u8]) -> u8 {
    times_x(sum(values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_right(code: &[u8]) -> bool {
        sum(code) == 0
    }

    #[test]
    fn x_is_primitive() {
        let powers: std::collections::HashSet<u8> =
            std::iter::successors(Some(1), |value| Some(times_x(*value))).take(31).collect();
        assert_eq!(powers.len(), 31);
        assert!(!powers.contains(&0));
    }

    proptest! {
        #[test]
        fn one_wrong_character_or_two_swapped_are_noticed(
            mut code in proptest::collection::vec(0_u8..32, 1..30),
            place in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
            wrong in 1_u8..32,
        ) {
            code.push(check_value(&code));
            prop_assert!(is_right(&code));
            let (place, other) = (place.index(code.len()), other.index(code.len()));
            let mut mistyped = code.clone();
            mistyped[place] ^= wrong;
            prop_assert!(!is_right(&mistyped), "character {place} of {code:?}");
            let mut swapped = code.clone();
            swapped.swap(place, other);
            prop_assert_eq!(is_right(&swapped), code[place] == code[other], "{} and {} of {:?}", place, other, code);
            let next = (place + 1) % code.len();
            let mut neighbours = code.clone();
            neighbours.swap(place.min(next), place.max(next));
            prop_assert_eq!(is_right(&neighbours), code[place] == code[next]);
        }
    }
}
