//! The codes of the cards: 16 characters of base 32, computed from a seed and the card's number.
//!
//! Ten million codes in memory would be measured along with the engine, and reading them would compete
//! with it for the cache. So a code is a function of its card's number, takes a few nanoseconds, and
//! two cards never have the same: the first 64 of its 80 bits are a bijection of the number.

/// Characters of a code.
pub const CODE_BYTES: usize = 16;

/// The codes of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    key: u64,
}

impl Codes {
    /// The codes of `seed`.
    pub const fn new(seed: u64) -> Codes {
        Codes { key: mix(seed ^ 0x6b61_6d69_2d62_656e) }
    }

    /// The code of card `number`.
    #[inline]
    pub fn code(self, number: u64) -> [u8; CODE_BYTES] {
        let low = mix(number ^ self.key);
        let high = mix(low ^ self.key.rotate_left(32)) & 0xFFFF;
        let first = characters(low & ((1 << 40) - 1));
        let second = characters((low >> 40) | (high << 24));
        let mut code = [0; CODE_BYTES];
        code.first_chunk_mut::<8>().expect("half a code").copy_from_slice(&first.to_le_bytes());
        code.last_chunk_mut::<8>().expect("half a code").copy_from_slice(&second.to_le_bytes());
        code
    }
}

/// A bijection of 64 bits in which every bit of the input changes half of the output (the finaliser of
/// SplitMix64, Steele, Lea and Flood 2014).
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Eight characters of 5 bits each, `0`–`9` and `A`–`V`, all eight at once: 40 bits are spread over
/// eight bytes by halving, and letters get 7 added because they do not follow the digits.
const fn characters(bits: u64) -> u64 {
    let lanes = (bits & 0xF_FFFF) | ((bits >> 20) << 32);
    let lanes = (lanes & 0x0000_03FF_0000_03FF) | ((lanes & 0x000F_FC00_000F_FC00) << 6);
    let lanes = (lanes & 0x001F_001F_001F_001F) | ((lanes & 0x03E0_03E0_03E0_03E0) << 3);
    let letters = (lanes + 0x7676_7676_7676_7676) & 0x8080_8080_8080_8080;
    lanes + 0x3030_3030_3030_3030 + (letters >> 7) * 7
}

/// All numbers below `count`, each once, in an order that jumps: neighbours in time are far apart in
/// the card table, as the cards of different customers are.
///
/// The step is about the golden part of `count` and has no factor in common with it, so the walk meets
/// every number and the numbers met so far lie evenly spread.
#[derive(Clone, Debug)]
pub struct Scattered {
    next: u64,
    step: u64,
    count: u64,
    left: u64,
}

impl Scattered {
    /// The part `part` of `parts` of the walk over `count` numbers.
    pub fn part(count: u64, part: u64, parts: u64) -> Scattered {
        let golden = (count as f64 * 0.618_033_988_749_895) as u64;
        let step =
            (golden.max(1)..).find(|step| common_factor(*step, count) == 1).unwrap_or(1) % count.max(1);
        let (from, to) = (count * part / parts, count * (part + 1) / parts);
        let next = (u128::from(from) * u128::from(step) % u128::from(count.max(1))) as u64;
        Scattered { next, step, count, left: to - from }
    }
}

impl Iterator for Scattered {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        let next = number + self.step;
        self.next = if next < self.count { next } else { next - self.count };
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Scattered {}

const fn common_factor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_of_base_32() {
        let codes = Codes::new(1);
        let made: HashSet<_> = (0..100_000).map(|number| codes.code(number)).collect();
        assert_eq!(made.len(), 100_000);
        let allowed = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'V');
        assert!(made.iter().all(|code| code.iter().all(allowed)));
        let used: HashSet<u8> = made.iter().flatten().copied().collect();
        assert_eq!(used.len(), 32);
        assert_ne!(codes.code(7), Codes::new(2).code(7));
    }

    #[test]
    fn a_walk_in_parts_meets_every_number_once() {
        for count in [1, 2, 7, 10, 64, 1000, 99_991] {
            for parts in [1, 2, 3] {
                let walks = (0..parts).flat_map(|part| Scattered::part(count, part, parts));
                let mut met: Vec<u64> = walks.collect();
                met.sort_unstable();
                assert!(met.into_iter().eq(0..count), "{count} in {parts}");
            }
        }
    }
}
