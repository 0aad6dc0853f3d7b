//! Whether a history can be explained: is there an order of the operations, each at a moment between its beginning and
//! its end, in which every reply is the one that the rule gives?
//!
//! Operations on different cards do not meet, so each card's history is judged by itself (linearizability is local:
//! Herlihy and Wing, 1990). The search goes through the events in the order of their times and keeps every
//! *explanation* that is still possible: the state, and which of the operations under way have had their effect
//! already. When an operation ends, explanations in which it has not had its effect, or would have had another reply,
//! are dropped (Wing and Gong, 1993, in the just-in-time form of Lowe, 2017). Equal explanations are one, so their number is
//! bounded by what the few operations under way can do, and not by the length of the history.
//!
//! An operation that was never answered may have had its effect at any moment until the crash that ended it, or none.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// The rule that a history is held against.
pub trait Rule: Debug {
    /// What the object is like.
    type State: Clone + Ord + Debug;
    /// What is asked.
    type Ask: Clone + Debug;
    /// What is answered.
    type Answer: Clone + Eq + Debug;

    /// State and answer afterwards.
    fn apply(state: &Self::State, ask: &Self::Ask) -> (Self::State, Self::Answer);
}

/// One operation, as its client saw it.
#[derive(Clone, Debug)]
pub struct Operation<R: Rule> {
    /// When it was asked.
    pub asked: u64,
    /// When it was answered, or when it was sure that no answer would come and nothing would happen any more.
    pub ended: u64,
    /// What was asked.
    pub ask: R::Ask,
    /// `None` if it was never answered.
    pub answer: Option<R::Answer>,
}

/// Whether there is an explanation of `history`, from `first` on. The states that the object may be in after it, or the
/// operation up to whose end none is left, with the explanations that there were before.
pub fn explain<R: Rule>(first: R::State, history: &[Operation<R>]) -> Result<BTreeSet<R::State>, String> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
    for (index, operation) in history.iter().enumerate() {
        assert!(operation.asked < operation.ended, "an operation ends after it begins");
        moments.push((operation.asked, false, index));
        moments.push((operation.ended, true, index));
    }
    moments.sort_unstable();
    // What is under way, and of each explanation which of these have had their effect.
    let mut open: Vec<usize> = Vec::new();
    let mut possible: BTreeSet<(R::State, u64)> = BTreeSet::from([(first, 0)]);
    for (_, ends, index) in moments {
        if !ends {
            assert!(open.len() < 64, "too many operations under way on one card");
            open.push(index);
            continue;
        }
        let place = open.iter().position(|at| *at == index).expect("what ends has begun");
        let mut all = possible.clone();
        let mut unseen: Vec<(R::State, u64)> = possible.iter().cloned().collect();
        while let Some((state, had)) = unseen.pop() {
            // Effects are put as late as they can be: nothing needs to happen once this one has.
            if had & 1 << place != 0 {
                continue;
            }
            for (bit, at) in open.iter().enumerate().filter(|(bit, _)| had & 1 << bit == 0) {
                let operation = &history[*at];
                let (after, answer) = R::apply(&state, &operation.ask);
                let fits = operation.answer.as_ref().is_none_or(|given| *given == answer);
                if fits && all.insert((after.clone(), had | 1 << bit)) {
                    unseen.push((after, had | 1 << bit));
                }
            }
        }
        let optional = history[index].answer.is_none();
        let without = |had: u64| {
            let below = had & ((1 << place) - 1);
            below | (had >> 1) & !((1 << place) - 1)
        };
        let left: BTreeSet<_> = all
            .into_iter()
            .filter(|(_, had)| optional || had & 1 << place != 0)
            .map(|(state, had)| (state, without(had)))
            .collect();
        if left.is_empty() {
            let under_way: Vec<_> = open.iter().map(|at| &history[*at]).collect();
            return Err(format!(
                "no explanation of {:?}\nunder way: {under_way:?}\nbefore: {possible:?}",
                history[index]
            ));
        }
        open.remove(place);
        possible = left;
    }
    Ok(possible.into_iter().map(|(state, _)| state).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is set, taken and read.
    #[derive(Debug)]
    struct Number;

    #[derive(Clone, Copy, Debug)]
    enum Ask {
        Set(u8),
        Read,
    }

    impl Rule for Number {
        type State = u8;
        type Ask = Ask;
        type Answer = u8;

        fn apply(state: &u8, ask: &Ask) -> (u8, u8) {
            match ask {
                Ask::Set(to) => (*to, *to),
                Ask::Read => (*state, *state),
            }
        }
    }

    fn of(history: &[(u64, u64, Ask, Option<u8>)]) -> Result<BTreeSet<u8>, String> {
        let operation = |&(asked, ended, ask, answer)| Operation::<Number> { asked, ended, ask, answer };
        explain::<Number>(0, &history.iter().map(operation).collect::<Vec<_>>())
    }

    #[test]
    fn what_overlaps_may_come_in_any_order_and_what_does_not_in_one() {
        let (set, read) = (Ask::Set(1), Ask::Read);
        assert!(of(&[(1, 4, set, Some(1)), (2, 3, read, Some(0))]).is_ok());
        assert!(of(&[(1, 4, set, Some(1)), (2, 3, read, Some(1))]).is_ok());
        assert!(of(&[(1, 2, set, Some(1)), (3, 4, read, Some(0))]).is_err(), "a read of what was before");
        assert!(
            of(&[(1, 9, set, Some(1)), (2, 3, read, Some(1)), (4, 5, read, Some(0))]).is_err(),
            "it went back"
        );
        assert!(of(&[(1, 2, read, Some(7))]).is_err(), "nobody set it");
    }

    #[test]
    fn what_was_never_answered_happened_until_the_crash_or_not_at_all() {
        let (set, read) = (Ask::Set(1), Ask::Read);
        assert_eq!(of(&[(1, 9, set, None)]), Ok(BTreeSet::from([0, 1])));
        assert_eq!(of(&[(1, 4, set, None), (5, 6, read, Some(1))]), Ok(BTreeSet::from([1])));
        assert_eq!(of(&[(1, 4, set, None), (5, 6, read, Some(0))]), Ok(BTreeSet::from([0])));
        assert!(
            of(&[(1, 4, set, None), (5, 6, read, Some(0)), (7, 8, read, Some(1))]).is_err(),
            "after the crash"
        );
    }
}
