//! Sequences of operations for a whole engine on the simulated disk: commands, commits, snapshots, time, kills and power
//! cuts. Every reply is held against the rule that the histories are judged by (`tests/src/history/card.rs`), and after
//! every crash the store is in a state that it was in, with all that was acknowledged.

#![no_main]

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use kami_engine::{Command, Engine, RequestId, Work};
use kami_fuzz::card::{Answer, Ask, Card};
use kami_fuzz::search::Rule;
use kami_fuzz::{CARDS, Hand, VALUE, ask, digest, open, store};
use kami_wal::{SimMedium, SimMode};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Redeem { card: u8, id: u8, amount: u8 },
    Load { card: u8, id: u8, amount: u8 },
    Reverse { card: u8, id: u8, original: u8 },
    Freeze { card: u8, id: u8 },
    Unfreeze { card: u8, id: u8 },
    Query { card: u8 },
    Commit,
    Checkpoint,
    Pass { ms: u16 },
    CutAfter { operations: u8 },
    Crash { seed: u8, kill: bool },
}

type Cards = [Card; CARDS];

/// What may be the state of the store, and since when.
struct Possible {
    /// States after each effect that is not sure to be durable, the oldest first; the last is now.
    states: Vec<Cards>,
    /// How many of them are behind the last that is known to be durable.
    durable: usize,
}

struct World {
    medium: SimMedium,
    clock: Hand,
    engine: Option<Engine>,
    work: Work,
    /// More than one after a crash of which reads do not tell what is left.
    possible: Vec<Possible>,
    /// The log's tail after each command: which are durable.
    tails: Vec<u64>,
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (mapped, steps) = input;
    static STORES: [OnceLock<SimMedium>; 2] = [OnceLock::new(), OnceLock::new()];
    let mode = if mapped { SimMode::Mapped } else { SimMode::Direct };
    let medium = STORES[usize::from(mapped)].get_or_init(|| store(mode, false)).kill();
    let first: Cards = std::array::from_fn(|card| Card::sold((CARDS / 2 <= card).then_some(VALUE)));
    let mut world = World {
        medium,
        clock: Hand::default(),
        engine: None,
        work: Work::default(),
        possible: vec![Possible { states: vec![first], durable: 0 }],
        tails: Vec::new(),
    };
    world.engine = Some(open(&world.medium, &world.clock).expect("the store opens"));
    for step in steps.into_iter().take(80) {
        world.step(step);
    }
    world.crash(0, false);
    let medium = std::sync::Arc::new(world.medium.kill());
    let found = kami_engine::verify(medium.clone(), medium).expect("the store can be read");
    assert!(found.problems.is_empty(), "{:?}", found.problems);
});

impl World {
    fn step(&mut self, step: Step) {
        let of = |card: u8| usize::from(card) % CARDS;
        // Few ids, so that they meet.
        let id = |id: u8| 1 + u32::from(id % 24);
        let amount = |card: u8, amount: u8| {
            if of(card) < CARDS / 2 { 0 } else { 1 + i64::from(amount) % 60 }
        };
        match step {
            // A number means one request only: what else comes under it is another question.
            Step::Redeem { card, id: n, amount: a } => {
                self.ask(of(card), Ask::Redeem { id: id(n), amount: amount(card, a) })
            }
            Step::Load { card, id: n, amount: a } if CARDS / 2 <= of(card) => {
                self.ask(of(card), Ask::Load { id: 100 + id(n), amount: amount(card, a) });
            }
            Step::Load { .. } => {}
            Step::Reverse { card, id: n, original } => {
                self.ask(of(card), Ask::Reverse { id: 200 + id(n), original: id(original) });
            }
            Step::Freeze { card, id: n } => self.ask(of(card), Ask::Freeze { id: 300 + id(n) }),
            Step::Unfreeze { card, id: n } => self.ask(of(card), Ask::Unfreeze { id: 400 + id(n) }),
            Step::Query { card } => self.ask(of(card), Ask::Query),
            Step::Commit => {
                let _ = self.engine().drive();
                self.acknowledge();
            }
            Step::Checkpoint => {
                let made = self.engine().checkpoint();
                assert!(made.is_ok() || self.medium.is_cut(), "{:?}", made.err());
                self.acknowledge();
            }
            Step::Pass { ms } => {
                self.clock.0.fetch_add(ms.into(), Ordering::Relaxed);
            }
            Step::CutAfter { operations } => {
                self.medium.cut_power_at(self.medium.operations() + 1 + u64::from(operations));
            }
            Step::Crash { seed, kill } => self.crash(seed, kill),
        }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open")
    }

    fn ask(&mut self, card: usize, asked: Ask) {
        if self.medium.is_cut() {
            return;
        }
        let code = digest(self.engine(), card);
        let (id, command) = match asked {
            Ask::Redeem { id, amount } => {
                (id, Command::Redeem { card: code, pin: None, amount, partial: false })
            }
            Ask::Load { id, amount } => (id, Command::Load { card: code, amount }),
            Ask::Reverse { id, original } => {
                (id, Command::Reverse { card: code, original: RequestId(original.into()) })
            }
            Ask::Freeze { id } => (id, Command::Freeze { card: code }),
            Ask::Unfreeze { id } => (id, Command::Unfreeze { card: code }),
            Ask::Query => (0, Command::Query { card: code }),
        };
        let engine = self.engine.take().expect("it is open");
        let reply = ask(&engine, &mut self.work, id.into(), command);
        let tail = engine.tail().bytes();
        self.engine = Some(engine);
        if reply.status == kami_engine::Status::IdReused {
            // The same number with another amount; nothing happens.
            return;
        }
        let Some(answer) = Answer::of(asked, &reply, CARDS / 2 <= card) else { return };
        self.possible.retain_mut(|possible| {
            let now = possible.states.last().expect("there is always one");
            let (after, expected) = Card::apply(&now[card], &asked);
            let mut cards = now.clone();
            cards[card] = after;
            possible.states.push(cards);
            expected == answer
        });
        self.tails.push(tail);
        assert!(!self.possible.is_empty(), "card {card}: {asked:?} was answered {reply:?}");
    }

    /// What is durable now can be told.
    fn acknowledge(&mut self) {
        let end = self.engine().durable_end().bytes();
        let durable = self.tails.iter().take_while(|tail| **tail <= end).count();
        self.possible.iter_mut().for_each(|possible| possible.durable = possible.durable.max(durable));
    }

    fn crash(&mut self, seed: u8, kill: bool) {
        drop(self.engine.take());
        self.medium = match kill && !self.medium.is_cut() {
            true => self.medium.kill(),
            false => self.medium.crash(seed.into()),
        };
        let engine = open(&self.medium, &self.clock).expect("the store opens");
        engine.check().expect("counters are the sums of states");
        let is: Vec<Answer> = (0..CARDS)
            .map(|card| {
                let query = Command::Query { card: digest(&engine, card) };
                let reply = ask(&engine, &mut self.work, 0, query);
                Answer::of(Ask::Query, &reply, CARDS / 2 <= card).expect("reads are answered")
            })
            .collect();
        let looks_so =
            |cards: &Cards| cards.iter().zip(&is).all(|(card, is)| Card::apply(card, &Ask::Query).1 == *is);
        let mut left: Vec<Cards> = Vec::new();
        for possible in &self.possible {
            for cards in &possible.states[possible.durable..] {
                if looks_so(cards) && !left.contains(cards) {
                    left.push(cards.clone());
                }
            }
        }
        assert!(!left.is_empty(), "no state that was, with all that was acknowledged, looks like {is:?}");
        self.possible = left.into_iter().map(|cards| Possible { states: vec![cards], durable: 0 }).collect();
        self.tails.clear();
        self.engine = Some(engine);
    }
}
