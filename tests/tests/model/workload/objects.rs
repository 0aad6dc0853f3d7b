//! Products, batches, principals and imports, as they may be and as they must not.

use kami_engine::{
    CardKind, CertificateNote, ImportSpec, Lifecycle, MerchantId, PrincipalSpec, ProductId, ProductSpec,
    Role, TenantId, ValidFrom,
};

use crate::ask::{BatchChange, What};
use crate::model::imports::Row;
use crate::model::world::World;

impl World {
    pub(super) fn batch_change(&mut self) -> What {
        let batch = 1 + self.random.below(u64::from(self.next_batch)) as u32;
        let change = match self.random.below(17) {
            13.. => {
                let known = self.oracle.batches.get(&batch).map_or(10, |batch| batch.cards.len() as u64);
                let from = self.random.below(known + 1);
                let rows = self.random.below(known + 2 - from.min(known));
                BatchChange::Rows { from, rows, active: self.random.percent(60) }
            }
            0..3 => BatchChange::Activate,
            3 => BatchChange::Deactivate,
            4 => BatchChange::Freeze,
            5..9 => BatchChange::Unfreeze,
            9 if self.random.percent(30) => BatchChange::Void,
            _ => BatchChange::Extend(self.soon()),
        };
        What::Batch { batch, change }
    }

    /// A time that may come during the run.
    pub(super) fn soon(&mut self) -> u64 {
        let ahead_ms =
            *self.random.pick(&[60, 150, 1_000, 60_000, 3_600_000, 24 * 3_600_000, 90 * 24 * 3_600_000]);
        self.oracle.now_ms + ahead_ms
    }

    pub(super) fn product_spec(&mut self) -> ProductSpec {
        let name = match self.random.below(15) {
            14 => "shared".to_owned(),
            12 => "value".to_owned(),
            13 => "uses".to_owned(),
            0 => String::new(),
            1 => "tab\tbed".to_owned(),
            n => format!("product {}", n % 4),
        };
        let mut spec = ProductSpec::single(&name, *b"CNY", 100);
        spec.face = *self.random.pick(&[100, 100, 0, 2_800, -1]);
        spec.valid_days = *self.random.pick(&[0, 0, 1, 30]);
        spec.reversal_s = *self.random.pick(&[0, 60, 24 * 3600]);
        if self.random.percent(30) {
            spec.terms.attributes = "x".repeat(*self.random.pick(&[1, 255, 256]));
        }
        let known = self.oracle.products.values().find(|product| product.spec.name == spec.name);
        spec.kind = match known {
            Some(known) if self.random.percent(90) => known.spec.kind,
            _ => *self.random.pick(&[
                CardKind::Single,
                CardKind::StoredValue,
                CardKind::MultiUse,
                CardKind::Shared,
            ]),
        };
        spec.terms.uses = match known {
            Some(known) if self.random.percent(70) => known.spec.terms.uses,
            _ => self.random.below(4) as u32,
        };
        let events = [ValidFrom::Activation, ValidFrom::Sale, ValidFrom::FirstUse];
        if self.random.percent(40) {
            spec.terms.valid_from = *self.random.pick(&events);
        }
        spec.terms.value_max = *self.random.pick(&[0, 0, 150, 1_000]);
        spec.terms.partial = self.random.percent(20);
        spec.terms.hold_s = *self.random.pick(&[1, 60, 300]);
        spec.terms.listed = self.random.percent(90);
        spec.terms.reserve_s = *self.random.pick(&[1, 60, 900]);
        spec.terms.class = *self.random.pick(&[0, 0, 0, 1, 2, 63, 64]);
        if self.random.percent(15) {
            spec.terms.merchants = vec![MerchantId(9), MerchantId(1)];
        }
        if self.random.percent(15) {
            spec.terms.stores = vec![0, 7];
        }
        if self.random.percent(5) {
            spec.currency = *b"USD";
        }
        spec
    }

    pub(super) fn principal_spec(&mut self) -> PrincipalSpec {
        let name = format!("till {}", self.random.below(6));
        let products = if self.random.percent(30) { vec![ProductId(self.product())] } else { Vec::new() };
        PrincipalSpec {
            name: if self.random.percent(5) { "x".repeat(65) } else { name },
            role: *self.random.pick(&Role::ALL),
            tenant: TenantId(*self.random.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2])),
            merchant: MerchantId(self.random.below(3) as u32),
            key: [self.random.below(6) as u8; 32],
            certificate: CertificateNote { serial: u128::from(self.random.next()), expires_ms: 1 << 40 },
            products,
            misses_per_minute: *self.random.pick(&[0, 0, 0, 1, 1, 1, 1, 1_000_000, 1_000_001, u32::MAX]),
            store: *self.random.pick(&[0, 7, 8]),
            classes: *self.random.pick(&[0, 0, 0, 1, 0b101, 1 << 63]),
        }
    }

    /// The rows of an import: new codes, and with some luck one that is there already.
    pub fn some_rows(&mut self, tenant: u16, spec: &ImportSpec) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let doubtful = self.random.percent(15);
        for _ in 0..spec.rows {
            let code = if doubtful && self.random.percent(10) && !rows.is_empty() {
                self.random.pick(&rows).code.clone()
            } else if doubtful && self.random.percent(10) {
                self.code()
            } else {
                format!("CODE-{tenant}-{:05}", self.random.below(100_000))
            };
            rows.push(Row {
                code,
                pin: spec.pins.then(|| format!("{:04}", self.random.below(3))),
                face: spec.faces.then(|| *self.random.pick(&[0, 100, 101, 102])),
                expires_ms: if spec.expiries && self.random.percent(70) { self.soon() } else { 0 },
                origin: spec.origins.then(|| self.some_origin(spec)),
            });
        }
        rows
    }

    /// What a card was elsewhere; now and then what it cannot have been.
    pub(super) fn some_origin(&mut self, spec: &ImportSpec) -> kami_engine::Origin {
        use kami_engine::{OrderId, Origin};
        let kind =
            self.oracle.products.get(&spec.product.0).map_or(CardKind::Single, |known| known.spec.kind);
        let in_parts = matches!(kind, CardKind::MultiUse | CardKind::StoredValue);
        let now_ms = self.oracle.now_ms;
        let ago = |random: &mut kami_tests::random::Random| {
            now_ms - random.below(3 * 24 * 3600 * 1000).min(now_ms - 1)
        };
        let sold_ms = if self.random.percent(70) { ago(&mut self.random) } else { 0 };
        let order = self.random.percent(50).then(|| OrderId(1 + u128::from(self.random.below(30))));
        let sold = Origin { state: Lifecycle::Sold, sold_ms, order, ..Origin::default() };
        match self.random.below(100) {
            0..30 => Origin::default(),
            30..35 => Origin { frozen: true, ..Origin::default() },
            35..70 if in_parts && self.random.percent(60) => {
                let left = 1 + self.random.below(100) as i64;
                let redeemed_ms = if self.random.percent(50) { now_ms } else { 0 };
                Origin { remaining: Some(left), redeemed_ms, ..sold }
            }
            35..65 => sold,
            65..70 => Origin { frozen: true, ..sold },
            70..85 => Origin { state: Lifecycle::Redeemed, redeemed_ms: now_ms, ..sold },
            85..92 => Origin { state: Lifecycle::Voided, ..sold },
            _ => Origin { state: Lifecycle::Returned, ..sold },
        }
    }

    pub fn some_import_spec(&mut self, product: u32) -> ImportSpec {
        let rows = if self.random.percent(3) { 0 } else { 1 + self.random.below(50) };
        ImportSpec {
            label: if self.random.percent(2) { "x".repeat(129) } else { format!("order {rows}") },
            pins: self.random.percent(30),
            faces: self.random.percent(30),
            expiries: self.random.percent(40),
            face: if self.random.percent(30) { Some(*self.random.pick(&[0, 500])) } else { None },
            valid_from_ms: if self.random.percent(10) { self.soon() } else { 0 },
            expires_ms: match self.random.below(10) {
                0 => self.oracle.now_ms,
                1..4 => self.soon(),
                _ => 0,
            },
            active: self.random.percent(85),
            skip_duplicates: self.random.percent(50),
            ..ImportSpec::of(ProductId(product), rows, 20)
        }
    }
}
