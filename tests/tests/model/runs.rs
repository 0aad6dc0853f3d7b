//! Whole lives of a store, by seed.

use kami_wal::SimMode;

use super::restart::End;
use super::workload::ADMIN;
use super::world::World;
use crate::ask::{Ask, What, caller};
use kami_tests::binaries::whole;
use kami_tests::random::for_seeds;

impl World {
    /// Products and a few cards, so that there is something to sell.
    pub fn stock_up(&mut self) {
        for (tenant, name) in
            [(0, "product 2"), (0, "product 3"), (1, "product 2"), (0, "value"), (0, "uses"), (0, "shared")]
        {
            let mut spec = kami_engine::ProductSpec::single(name, *b"CNY", 100);
            match name {
                "value" => {
                    spec.kind = kami_engine::CardKind::StoredValue;
                    spec.terms.value_max = *self.random.pick(&[0, 150, 1_000]);
                }
                "uses" => {
                    spec.kind = kami_engine::CardKind::MultiUse;
                    spec.terms.uses = 1 + self.random.below(5) as u32;
                }
                "shared" => {
                    spec.kind = kami_engine::CardKind::Shared;
                    spec.terms.uses = 1 + self.random.below(6) as u32;
                }
                _ => {}
            }
            spec.terms.hold_s = *self.random.pick(&[1, 60, 300]);
            spec.terms.partial = self.random.percent(20);
            let id = u128::from(self.random.next());
            let mut admin = ADMIN;
            admin.tenant.0 = tenant;
            self.execute(&[Ask::new(id, admin, What::ProductPut { spec, adds: true })]);
        }
        for _ in 0..2 {
            self.import();
        }
    }

    /// An import in chunks, with whatever comes between.
    fn import(&mut self) {
        let id = u128::from(self.random.next());
        let tenant = u16::from(self.random.percent(15));
        // One principal may have few of them lying about.
        let issuer = 20 + self.random.below(16) as u32;
        let importer = caller(issuer, kami_engine::Role::Issuer, 0, tenant);
        let product = 1 + self.random.below(6) as u32;
        let mut spec = self.some_import_spec(product);
        // What was sold elsewhere comes by an admin; others may try.
        spec.origins = self.random.percent(25);
        let importer = match spec.origins && self.random.percent(90) {
            true => kami_engine::Caller { role: kami_engine::Role::Admin, ..importer },
            false => importer,
        };
        let mut rows = self.some_rows(tenant, &spec);
        // The same file once more, under another id.
        let twin = self.oracle.batches.values().find(|batch| batch.tenant == tenant);
        if let Some(twin) = twin
            && self.random.percent(4)
        {
            let codes = twin.cards.iter().map(|card| card.code.clone());
            rows = codes.map(|code| super::imports::Row { code, ..Default::default() }).collect();
            spec = kami_engine::ImportSpec::of(spec.product, rows.len() as u64, 20);
        }
        if self.random.percent(8) {
            rows.pop();
        }
        if self.random.percent(8) && !rows.is_empty() {
            let at = self.random.below(rows.len() as u64) as usize;
            match self.random.below(5) {
                4 => {
                    rows[at].origin = Some(kami_engine::Origin {
                        state: kami_engine::Lifecycle::Reserved,
                        ..Default::default()
                    })
                }
                0 => rows[at].code = "abc".to_owned(),
                1 => rows[at].code = "x".repeat(21),
                2 => rows[at].pin = if spec.pins { None } else { Some("1".to_owned()) },
                _ => rows[at].face = if spec.faces { Some(-1) } else { Some(5) },
            }
        }
        self.import_begin(importer, id, &spec);
        let mut first = 0;
        while first < rows.len() && !self.medium.is_cut() {
            let count = (1 + self.random.below(30) as usize).min(rows.len() - first);
            // A chunk may come again, or begin before what was taken.
            let from = first - self.random.below(3).min(first as u64) as usize;
            self.import_chunk(importer, id, from as u64, &rows[from..first + count]);
            if self.random.percent(5) {
                self.import_status(importer, id);
                let from = self.random.below(3);
                self.import_duplicates(importer, id, from);
            }
            if self.random.percent(10) && !self.medium.is_cut() {
                let asks = self.some_asks();
                self.execute(&asks);
            }
            first += count;
        }
        if self.medium.is_cut() {
            return;
        }
        match self.random.below(20) {
            0 => self.import_abort(importer, id),
            // Left lying; perhaps another import overtakes it.
            1 => {}
            _ => {
                let why = (spec.origins || self.random.percent(20)).then(|| "moved".to_owned());
                if spec.origins && self.random.percent(10) {
                    self.import_commit(importer, id, None);
                }
                self.import_commit(importer, id, why);
            }
        }
        if self.random.percent(20) && !self.medium.is_cut() {
            // Again by the same, by another, or as something else.
            let importer = match self.random.below(4) {
                0 => caller(9, kami_engine::Role::Issuer, 0, tenant),
                _ => importer,
            };
            if self.random.percent(30) {
                spec.content += 1;
            }
            match self.random.below(5) {
                0 | 4 => self.import_begin(importer, id, &spec),
                1 => self.import_status(importer, id),
                2 => self.import_abort(importer, id),
                _ => {
                    let why = self.random.percent(50).then(|| "again".to_owned());
                    self.import_commit(importer, id, why);
                }
            }
        }
    }

    /// One step. Returns false if the power is off.
    pub fn step(&mut self) -> bool {
        match self.random.below(100) {
            0..60 => {
                if self.random.percent(85) && !self.drive() {
                    return false;
                }
                let asks = self.some_asks();
                self.execute(&asks);
            }
            60..65 => {
                if self.random.percent(85) && !self.drive() {
                    return false;
                }
                self.run_due();
            }
            65..80 => {
                if !self.drive() {
                    return false;
                }
                if self.looking.percent(10) {
                    self.follow();
                }
            }
            80..92 => {
                let ms = *self.random.pick(&[
                    1,
                    30,
                    70,
                    99,
                    100,
                    100,
                    1_000,
                    59_000,
                    61_000,
                    3_600_000,
                    25 * 3_600_000,
                ]);
                self.clock.advance(ms);
            }
            92..96 => self.import(),
            96..98 => self.checkpoint(),
            98 => self.prove(),
            _ => {
                self.engine().check().unwrap();
                self.look_back();
            }
        }
        !self.medium.is_cut()
    }

    /// A snapshot, with whatever else comes while it is written.
    fn checkpoint(&mut self) {
        let engine = self.engine().clone();
        // Mostly a busy engine; sometimes the copy is exact.
        let busy = *self.random.pick(&[0, 1, 1, 2, 10]);
        let made = engine.checkpoint_beside(|| {
            if self.random.below(100) < busy {
                self.beside_a_checkpoint();
            }
        });
        self.settle();
        if !self.medium.is_cut() {
            made.expect("a snapshot is made");
        }
    }

    fn beside_a_checkpoint(&mut self) {
        if self.medium.is_cut() {
            return;
        }
        match self.random.below(12) {
            0..7 => {
                if self.random.percent(70) && !self.drive() {
                    return;
                }
                let asks = self.some_asks();
                self.execute(&asks);
            }
            7 => {
                self.drive();
            }
            8 => {
                let ms = *self.random.pick(&[1, 100, 61_000]);
                self.clock.advance(ms);
            }
            9 | 10 => self.take_up_an_import(),
            _ => self.import(),
        }
        *self.met.entry("something beside a checkpoint".to_owned()).or_default() += 1;
    }

    /// An import that was left lying is committed after one that came later.
    fn take_up_an_import(&mut self) {
        let Some((&(_, id), staged)) = self.staged.iter().next() else { return };
        let caller = staged.caller;
        self.import_commit(caller, id, None);
    }
}

/// Whole lives by seed. `KAMI_MET=1` prints how often each command met each status.
fn lives(test: &'static str, mode: SimMode) {
    let met = std::cell::RefCell::new(std::collections::BTreeMap::<String, u64>::new());
    for_seeds(&whole(test), 200, |seed, verbose| {
        for (what, count) in life(seed, mode, verbose) {
            *met.borrow_mut().entry(what).or_default() += count;
        }
    });
    if std::env::var_os("KAMI_MET").is_some() {
        met.borrow().iter().for_each(|(what, count)| println!("{count:9} {what}"));
    }
}

fn life(seed: u64, mode: SimMode, verbose: bool) -> std::collections::BTreeMap<String, u64> {
    let segment_bytes = if seed % 4 == 3 { 256 << 10 } else { 64 << 10 };
    let mut world = World::new(seed, mode, segment_bytes);
    world.verbose = verbose;
    world.stock_up();
    for _ in 0..3 {
        if world.random.percent(60) {
            let soon = world.medium.operations() + 1 + world.random.below(120);
            world.medium.cut_power_at(soon);
        }
        let steps = 40 + world.random.below(160);
        for _ in 0..steps {
            if !world.step() {
                break;
            }
            if world.random.percent(4) {
                world.take_up_an_import();
            }
        }
        let end = match world.random.below(10) {
            0..6 => End::PowerCut,
            6..9 => End::Kill,
            _ => End::Close,
        };
        world.restart(end);
    }
    world.met
}

/// Every reply is what the rules say; what was promised survives every power cut and kill, what was not is
/// there as a prefix; a retry has one effect.
#[test]
fn direct() {
    lives("model::runs::direct", SimMode::Direct);
}

#[test]
fn mapped() {
    lives("model::runs::mapped", SimMode::Mapped);
}
