//! Limits and what counts against them in log and snapshot, and in the state hash.

use kami_wal::Lsn;

use super::{LOOK_AGAIN_MS, LimitState, Limits, Usage};
use crate::identity::{AccountId, LimitId, ProductId, TenantId};
use crate::limit::{Limit, LimitAction, LimitScope, LimitSpec, LimitWindow, Subject};
use crate::record::stored;
use crate::window::Window;

/// A limit in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredLimit {
    /// Its tenant.
    pub tenant: u16,
    /// Its name.
    pub name: String,
    /// Account 1, address 2, till 3, principal 4, order 5.
    pub scope: u8,
    /// The one account, or 0.
    pub account: u32,
    /// The product, or 0.
    pub product: u32,
    /// Day 1, rolling 2, life 3, open cards 4, open orders 5.
    pub window: u8,
    /// Minutes east, or seconds.
    pub length: i32,
    /// How many units.
    pub max: u64,
    /// Its [`LimitAction`].
    pub action: u8,
    /// Whether it is taken away.
    pub ended: bool,
}

/// A limit in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct LimitRow {
    /// As in the log.
    pub stored: StoredLimit,
    /// The entry that set it first.
    pub since: u64,
    /// Its last entry.
    pub lsn: u64,
}

/// What one subject took, in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct UsageRow {
    /// Whose.
    pub tenant: u16,
    /// The kind of subject.
    pub kind: u8,
    /// Which one.
    pub number: u64,
    /// The last entry that changed it.
    pub lsn: u64,
    /// By limit.
    pub windows: Vec<WindowRow>,
}

/// What one subject took of one limit, in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct WindowRow {
    /// The limit.
    pub limit: u32,
    /// Slots and units.
    pub slots: Vec<(u64, u64)>,
    /// The slot in which its crossing was recorded.
    pub crossed: Option<u64>,
}

stored!(StoredLimit);

impl StoredLimit {
    /// What the log keeps of a limit.
    #[must_use]
    pub fn of(spec: &LimitSpec, tenant: TenantId) -> StoredLimit {
        let (scope, account) = match spec.scope {
            LimitScope::Account(account) => (1, account.map_or(0, |account| account.0)),
            LimitScope::Ip => (2, 0),
            LimitScope::Terminal => (3, 0),
            LimitScope::Principal => (4, 0),
            LimitScope::Order => (5, 0),
        };
        let (window, length) = match spec.window {
            LimitWindow::Day { offset_min } => (1, i32::from(offset_min)),
            LimitWindow::Rolling { seconds } => (2, seconds.cast_signed()),
            LimitWindow::Life => (3, 0),
            LimitWindow::OpenCards => (4, 0),
            LimitWindow::OpenOrders => (5, 0),
        };
        StoredLimit {
            tenant: tenant.0,
            name: spec.name.clone(),
            scope,
            account,
            product: spec.product.map_or(0, |product| product.0),
            window,
            length,
            max: spec.max,
            action: spec.action as u8,
            ended: spec.ended,
        }
    }

    /// The specification, if all of it is known to this version.
    #[must_use]
    pub fn spec(&self) -> Option<LimitSpec> {
        let spec = LimitSpec {
            name: self.name.clone(),
            scope: match self.scope {
                1 if self.account == 0 => LimitScope::Account(None),
                1 => LimitScope::Account(Some(AccountId(self.account))),
                2 => LimitScope::Ip,
                3 => LimitScope::Terminal,
                4 => LimitScope::Principal,
                5 => LimitScope::Order,
                _ => return None,
            },
            product: (self.product != 0).then_some(ProductId(self.product)),
            window: match self.window {
                1 => LimitWindow::Day { offset_min: i16::try_from(self.length).ok()? },
                2 => LimitWindow::Rolling { seconds: u32::try_from(self.length).ok()? },
                3 => LimitWindow::Life,
                4 => LimitWindow::OpenCards,
                5 => LimitWindow::OpenOrders,
                _ => return None,
            },
            max: self.max,
            action: LimitAction::from_number(self.action)?,
            ended: self.ended,
        };
        spec.is_sane().then_some(spec)
    }
}

impl Limits {
    /// Adds all of it that is not derived to a state hash.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for state in &self.limits {
            hasher.update(format!("{state:?}\n").as_bytes());
        }
        let mut keys: Vec<_> = self.usage.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            let usage = self.usage.get(&key).expect("listed just now");
            let mut windows = self.window_rows(usage);
            windows.sort_by_key(|row| row.limit);
            if !windows.is_empty() {
                hasher.update(format!("{key:?} {windows:?}\n").as_bytes());
            }
        }
    }

    /// Up to `count` limits for a snapshot, from the `from`-th on.
    pub fn rows(&self, from: usize, count: usize) -> impl Iterator<Item = LimitRow> + '_ {
        self.limits.iter().skip(from).take(count).map(|LimitState { limit, since, lsn }| LimitRow {
            stored: StoredLimit::of(&limit.spec, limit.tenant),
            since: since.bytes(),
            lsn: lsn.bytes(),
        })
    }

    /// What the subjects of one of the [`SHARDS`](crate::sharded::SHARDS) took, for a snapshot.
    pub fn usage_rows(&self, shard: usize) -> impl Iterator<Item = UsageRow> + '_ {
        self.usage.of_shard(shard).map(move |((tenant, subject), usage)| {
            let (kind, number) = subject.numbers();
            let lsn = usage.lsn.map_or(0, Lsn::bytes);
            UsageRow { tenant: tenant.0, kind, number, lsn, windows: self.window_rows(usage) }
        })
    }

    /// What is in the windows of limits that stand; windows with nothing are left out.
    fn window_rows(&self, usage: &Usage) -> Vec<WindowRow> {
        let now_ms = self.counted_ms;
        let row = |(id, window): &(LimitId, Window)| {
            let spec = &self.at(*id)?.limit.spec;
            let crossed = window.crossed(spec.window, now_ms);
            let slots: Vec<_> = window.live(spec.window, now_ms).collect();
            let counts = !spec.ended && (crossed.is_some() || !slots.is_empty());
            counts.then_some(WindowRow { limit: id.0, slots, crossed })
        };
        usage.windows.iter().filter_map(row).collect()
    }

    /// When something last counted; to be copied after all else.
    #[must_use]
    pub fn counted_ms(&self) -> u64 {
        self.counted_ms
    }

    /// Adds the limits and usages of a snapshot; `false` if one makes no sense.
    pub fn restore(&mut self, limits: &[LimitRow], usages: &[UsageRow], counted_ms: u64) -> bool {
        self.counted_ms = counted_ms;
        for row in limits {
            let places = (Lsn::from_bytes(row.since), Lsn::from_bytes(row.lsn));
            let (Some(spec), (Some(since), Some(lsn))) = (row.stored.spec(), places) else { return false };
            let limit = Limit { id: self.next(), tenant: TenantId(row.stored.tenant), spec };
            self.place(LimitState { limit, since, lsn });
        }
        usages.iter().all(|row| {
            let Some(subject) = Subject::from_numbers(row.kind, row.number) else { return false };
            let key = (TenantId(row.tenant), subject);
            let window = |row: &WindowRow| Some((LimitId(row.limit), Window::of(&row.slots, row.crossed)?));
            let Some(windows) = row.windows.iter().map(window).collect() else { return false };
            self.usage.insert(key, Usage { lsn: Lsn::from_bytes(row.lsn), windows });
            self.due.insert((counted_ms + LOOK_AGAIN_MS, key));
            true
        })
    }
}
