//! The accounts of all tenants: whether legs may be posted, and posting them.
//!
//! A pure data structure under the sequencer's lock. A command first asks [`Accounts::check`], computes what
//! its entry says with [`Accounts::posted`], and, once the entry is published, calls [`Accounts::post`]. An
//! order that is not paid yet sets money aside with [`Accounts::hold`] and ends that with
//! [`Accounts::release`], whatever becomes of it.
//!
//! # Invariants
//! * In every tenant and currency all balances sum to zero, because the legs of every entry do.
//! * No account but an external one has less than `held - credit limit`: what is set aside is there.
//! * An account has two chains of entries: those about itself (ACCOUNT_PUT and freezes, few) and those that
//!   moved its money (many). Each has a position of its own, so that a retry of the first kind never walks
//!   the second, and each makes replay over a fuzzy snapshot skip what the snapshot has.
//! * Holds are derived from open orders. [`Accounts::hold`] knows nothing of replay: the orders are replayed,
//!   and whoever keeps them sets money aside for those that are open once recovery is done.

use std::collections::HashMap;

use kami_wal::{Lsn, planted};

use crate::account::{Account, AccountKind, AccountSpec, LEGS_MAX, Leg, MONEY_MAX, accounts_of, net};
use crate::identity::{AccountId, PrincipalId, TenantId};
use crate::product::Money;
use crate::record::{PostedLeg, stored};
use crate::status::Status;

/// An account with its places in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// The account.
    pub account: Account,
    /// Its last entry about itself.
    pub lsn: Lsn,
    /// Its last entry that moved money.
    pub money_lsn: Option<Lsn>,
}

/// Why legs may not be posted, and the account that stands against it (0 if it is none alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegsRefused {
    /// Why.
    pub status: Status,
    /// Which account.
    pub account: AccountId,
}

/// An account in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredAccount {
    /// Its tenant.
    pub tenant: u16,
    /// Its name.
    pub name: String,
    /// Its currency.
    pub currency: [u8; 3],
    /// Its [`AccountKind`].
    pub kind: u8,
    /// Its credit limit.
    pub credit_limit: i64,
    /// Who may pay from it.
    pub owner: u32,
}

/// An account in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct AccountRow {
    /// As in the log.
    pub stored: StoredAccount,
    /// Whether it is frozen.
    pub frozen: bool,
    /// What is on it.
    pub balance: i64,
    /// Its last entry about itself.
    pub lsn: u64,
    /// Its last entry that moved money; 0 is none.
    pub money_lsn: u64,
}

stored!(StoredAccount);

impl StoredAccount {
    /// What the log keeps of an account.
    #[must_use]
    pub fn of(spec: &AccountSpec, tenant: TenantId) -> StoredAccount {
        StoredAccount {
            tenant: tenant.0,
            name: spec.name.clone(),
            currency: spec.currency,
            kind: spec.kind as u8,
            credit_limit: spec.credit_limit,
            owner: spec.owner.0,
        }
    }

    /// The specification, if its kind is known to this version.
    #[must_use]
    pub fn spec(&self) -> Option<AccountSpec> {
        Some(AccountSpec {
            name: self.name.clone(),
            currency: self.currency,
            kind: AccountKind::from_number(self.kind)?,
            credit_limit: self.credit_limit,
            owner: PrincipalId(self.owner),
        })
    }
}

/// The accounts.
#[derive(Default)]
pub struct Accounts {
    /// By number; number 1 is the first.
    accounts: Vec<AccountState>,
    names: HashMap<(TenantId, String), AccountId>,
}

impl Accounts {
    /// The account with this number, if it is the tenant's.
    #[must_use]
    pub fn find(&self, id: AccountId, tenant: TenantId) -> Option<&AccountState> {
        self.at(id).filter(|state| state.account.tenant == tenant)
    }

    /// The account of this name.
    #[must_use]
    pub fn named(&self, tenant: TenantId, name: &str) -> Option<&AccountState> {
        self.names.get(&(tenant, name.to_owned())).and_then(|id| self.at(*id))
    }

    /// All of them, in order of number.
    #[must_use]
    pub fn all(&self) -> &[AccountState] {
        &self.accounts
    }

    /// The number of the next new account.
    #[must_use]
    pub fn next(&self) -> AccountId {
        AccountId(self.accounts.len() as u32 + 1)
    }

    fn at(&self, id: AccountId) -> Option<&AccountState> {
        self.accounts.get((id.0 as usize).checked_sub(1)?)
    }

    fn at_mut(&mut self, id: AccountId) -> Option<&mut AccountState> {
        self.accounts.get_mut((id.0 as usize).checked_sub(1)?)
    }

    /// Adds an account, or gives one what it is changed to. `id` is known, or [`Accounts::next`].
    pub fn put(&mut self, id: AccountId, tenant: TenantId, spec: AccountSpec, lsn: Lsn) {
        if let Some(state) = self.at_mut(id) {
            state.account.spec = spec;
            state.lsn = lsn;
            return;
        }
        debug_assert_eq!(id, self.next(), "numbers are given out one after the other");
        self.names.insert((tenant, spec.name.clone()), id);
        let account = Account { id, tenant, spec, frozen: false, balance: 0, held: 0 };
        self.accounts.push(AccountState { account, lsn, money_lsn: None });
    }

    /// Freezes an account or ends its freeze.
    ///
    /// # Panics
    /// If there is none.
    pub fn set_frozen(&mut self, id: AccountId, frozen: bool, lsn: Lsn) {
        let state = self.at_mut(id).expect("the caller found it");
        state.account.frozen = frozen;
        state.lsn = lsn;
    }

    /// Whether `legs` may be posted, or set aside for an order, now. `held` are the legs that the same order
    /// has set aside before, if it has: they do not stand against themselves. `may_debit` says whether the
    /// caller may pay from an account; anybody may pay onto one. No legs may always be posted.
    ///
    /// # Errors
    /// In this order: MALFORMED (more than [`LEGS_MAX`], a leg of nothing or of more than [`MONEY_MAX`]),
    /// NOT_FOUND, FORBIDDEN, LEGS_UNBALANCED, FROZEN (money would leave a frozen account),
    /// INSUFFICIENT_FUNDS, MALFORMED (an account would leave the range of [`MONEY_MAX`]).
    pub fn check(
        &self,
        tenant: TenantId,
        legs: &[Leg],
        held: &[Leg],
        may_debit: impl Fn(&Account) -> bool,
    ) -> Result<(), LegsRefused> {
        let refuse = |status, account| Err(LegsRefused { status, account });
        let sane = |leg: &Leg| leg.amount != 0 && (-MONEY_MAX..=MONEY_MAX).contains(&leg.amount);
        if legs.len() > LEGS_MAX || !legs.iter().all(sane) {
            return refuse(Status::Malformed, AccountId(0));
        }
        for leg in legs {
            let Some(state) = self.find(leg.account, tenant) else {
                return refuse(Status::NotFound, leg.account);
            };
            if leg.amount < 0 && !may_debit(&state.account) {
                return refuse(Status::Forbidden, leg.account);
            }
        }
        if !self.is_balanced(legs) && !planted("unbalanced-legs") {
            return refuse(Status::LegsUnbalanced, AccountId(0));
        }
        for id in accounts_of(legs) {
            let account = &self.at(id).expect("found above").account;
            let moved = net(legs, id);
            if moved < 0 && account.frozen {
                return refuse(Status::Frozen, id);
            }
            let own = set_aside(held, id);
            let others = if planted("spend-what-is-held") { 0 } else { i128::from(account.held) - own };
            let after = i128::from(account.balance) + moved;
            let left = after + i128::from(account.spec.credit_limit) - others;
            if moved < 0 && account.spec.kind != AccountKind::External && left < 0 {
                return refuse(Status::InsufficientFunds, id);
            }
            let max = i128::from(MONEY_MAX);
            if !(-max..=max).contains(&after) || others + moved.min(0).abs() > max {
                return refuse(Status::Malformed, id);
            }
        }
        Ok(())
    }

    /// Whether the legs sum to zero in every currency. All their accounts are there.
    fn is_balanced(&self, legs: &[Leg]) -> bool {
        let currency = |leg: &Leg| self.at(leg.account).map(|state| state.account.spec.currency);
        let sums_to_zero = |(at, leg): (usize, &Leg)| {
            let own = currency(leg);
            // Each currency once, at its first leg.
            legs[..at].iter().any(|before| currency(before) == own)
                || legs[at..]
                    .iter()
                    .filter(|leg| currency(leg) == own)
                    .map(|l| i128::from(l.amount))
                    .sum::<i128>()
                    == 0
        };
        legs.iter().enumerate().all(sums_to_zero)
    }

    /// What the entry says that posts `legs` now; `posted` is overwritten.
    ///
    /// # Panics
    /// If [`Accounts::check`] would refuse them for want of an account or of range.
    pub fn posted(&self, legs: &[Leg], posted: &mut Vec<PostedLeg>) {
        posted.clear();
        posted.extend(legs.iter().map(|leg| {
            let state = self.at(leg.account).expect("checked before");
            let after = i128::from(state.account.balance) + net(legs, leg.account);
            let balance = Money::try_from(after).expect("checked before");
            PostedLeg { leg: *leg, balance, prev: state.money_lsn }
        }));
    }

    /// Installs the legs of the entry at `lsn`: when it is executed, and again when it is replayed. Accounts
    /// that have it already, or are further on, are left alone.
    ///
    /// # Errors
    /// The account whose chain the entry does not continue; nothing may be used then.
    pub fn post(&mut self, legs: &[PostedLeg], lsn: Lsn) -> Result<(), AccountId> {
        for posted in legs {
            let id = posted.leg.account;
            let state = self.at_mut(id).ok_or(id)?;
            // A second leg of the same entry on the account finds what the first installed.
            if state.money_lsn >= Some(lsn) {
                continue;
            }
            if state.money_lsn != posted.prev {
                return Err(id);
            }
            state.account.balance = posted.balance;
            state.money_lsn = Some(lsn);
        }
        Ok(())
    }

    /// Sets aside what the legs of an order take from each account, until [`Accounts::release`].
    pub fn hold(&mut self, legs: &[Leg]) {
        self.change_held(legs, 1);
    }

    /// Ends what [`Accounts::hold`] did with the same legs.
    pub fn release(&mut self, legs: &[Leg]) {
        self.change_held(legs, -1);
    }

    fn change_held(&mut self, legs: &[Leg], sign: i128) {
        for id in accounts_of(legs) {
            let by = sign * set_aside(legs, id);
            if by != 0
                && let Some(state) = self.at_mut(id)
            {
                let held = i128::from(state.account.held) + by;
                debug_assert!(held >= 0, "more is released than was held");
                state.account.held = held.clamp(0, i128::from(MONEY_MAX)) as Money;
            }
        }
    }

    /// Nothing is held any more: before what is held is derived anew.
    pub fn release_all(&mut self) {
        self.accounts.iter_mut().for_each(|state| state.account.held = 0);
    }

    /// Checks that money closes: balances sum to zero, and no account is below what it may be.
    ///
    /// # Errors
    /// The first disagreement, in words.
    pub fn check_all(&self) -> Result<(), String> {
        let mut sums: HashMap<_, i128> = HashMap::new();
        for AccountState { account, .. } in &self.accounts {
            let Account { id, tenant, spec, balance, held, .. } = account;
            *sums.entry((*tenant, spec.currency)).or_default() += i128::from(*balance);
            let left = i128::from(*balance) + i128::from(spec.credit_limit) - i128::from(*held);
            if spec.kind != AccountKind::External && left < 0 {
                return Err(format!("account {id} is {} below what it may be", -left));
            }
        }
        let open = sums.into_iter().find(|(_, sum)| *sum != 0);
        open.map_or(Ok(()), |((tenant, currency), sum)| {
            let currency = String::from_utf8_lossy(&currency).into_owned();
            Err(format!("the balances of tenant {tenant} in {currency} sum to {sum}, not to zero"))
        })
    }

    /// Adds all of it to a state hash. Holds are left out: they follow from the orders.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for AccountState { account, lsn, money_lsn } in &self.accounts {
            let account = Account { held: 0, ..account.clone() };
            hasher.update(format!("{account:?} {lsn} {money_lsn:?}\n").as_bytes());
        }
    }

    /// Up to `count` rows for a snapshot, from the `from`-th account on.
    pub fn rows(&self, from: usize, count: usize) -> impl Iterator<Item = AccountRow> + '_ {
        self.accounts.iter().skip(from).take(count).map(|AccountState { account, lsn, money_lsn }| {
            AccountRow {
                stored: StoredAccount::of(&account.spec, account.tenant),
                frozen: account.frozen,
                balance: account.balance,
                lsn: lsn.bytes(),
                money_lsn: money_lsn.map_or(0, Lsn::bytes),
            }
        })
    }

    /// Adds the accounts of a snapshot; `false` if one makes no sense.
    pub fn restore(&mut self, rows: &[AccountRow]) -> bool {
        rows.iter().all(|row| {
            let (Some(spec), Some(lsn)) = (row.stored.spec(), Lsn::from_bytes(row.lsn)) else { return false };
            let money_lsn = Lsn::from_bytes(row.money_lsn);
            let id = self.next();
            self.put(id, TenantId(row.stored.tenant), spec, lsn);
            let state = self.at_mut(id).expect("put just now");
            state.account.frozen = row.frozen;
            state.account.balance = row.balance;
            state.money_lsn = money_lsn;
            money_lsn.is_some() || (row.money_lsn == 0 && row.balance == 0)
        })
    }
}

/// What the legs of an order take from the account, all together.
fn set_aside(legs: &[Leg], account: AccountId) -> i128 {
    net(legs, account).min(0).abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CNY: [u8; 3] = *b"CNY";
    const USD: [u8; 3] = *b"USD";
    const HERE: TenantId = TenantId(0);

    fn lsn(at: u64) -> Lsn {
        Lsn::from_bytes(8 * at).unwrap()
    }

    /// Customer 1 (credit 100), agent 2, income 3, external 4 in CNY; external 5 and customer 6 in USD.
    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        let kinds = [
            (AccountKind::Customer, CNY, 100),
            (AccountKind::Agent, CNY, 0),
            (AccountKind::Income, CNY, 0),
            (AccountKind::External, CNY, 0),
            (AccountKind::External, USD, 0),
            (AccountKind::Customer, USD, 0),
        ];
        for (kind, currency, credit_limit) in kinds {
            let id = accounts.next();
            let name = format!("a{id}");
            let spec = AccountSpec { name, currency, kind, credit_limit, owner: PrincipalId(0) };
            accounts.put(id, HERE, spec, lsn(u64::from(id.0)));
        }
        accounts
    }

    fn legs(legs: &[(u32, Money)]) -> Vec<Leg> {
        legs.iter().map(|&(account, amount)| Leg { account: AccountId(account), amount }).collect()
    }

    fn checked(accounts: &Accounts, of: &[(u32, Money)]) -> Result<(), (Status, u32)> {
        let refused = |refused: LegsRefused| (refused.status, refused.account.0);
        accounts.check(HERE, &legs(of), &[], |_| true).map_err(refused)
    }

    fn post(accounts: &mut Accounts, of: &[(u32, Money)], at: u64) -> Vec<PostedLeg> {
        let mut posted = Vec::new();
        accounts.posted(&legs(of), &mut posted);
        accounts.post(&posted, lsn(at)).unwrap();
        posted
    }

    #[test]
    fn what_stands_against_legs_is_told_in_order() {
        let mut accounts = accounts();
        type Case = (&'static [(u32, Money)], Result<(), (Status, u32)>);
        let cases: &[Case] = &[
            (&[], Ok(())),
            (&[(1, -100), (3, 100)], Ok(())),
            (&[(1, -101), (3, 101)], Err((Status::InsufficientFunds, 1))),
            // What comes in with the same entry counts.
            (&[(1, -101), (3, 101), (1, 1), (4, -1)], Ok(())),
            (&[(1, -10), (3, 9)], Err((Status::LegsUnbalanced, 0))),
            (&[(1, -10), (6, 10)], Err((Status::LegsUnbalanced, 0))),
            (&[(1, -10), (3, 10), (5, -7), (6, 7)], Ok(())),
            (&[(1, 0), (3, 0)], Err((Status::Malformed, 0))),
            (&[(4, Money::MIN), (3, Money::MAX), (3, 1)], Err((Status::Malformed, 0))),
            (&[(7, -1), (3, 1)], Err((Status::NotFound, 7))),
            (&[(0, -1), (3, 1)], Err((Status::NotFound, 0))),
            (&[(4, -MONEY_MAX), (3, MONEY_MAX)], Ok(())),
            (&[(4, -MONEY_MAX), (4, -1), (3, MONEY_MAX), (3, 1)], Err((Status::Malformed, 4))),
            (&[(2, -1), (3, 1)], Err((Status::InsufficientFunds, 2))),
        ];
        for (of, expected) in cases {
            assert_eq!(checked(&accounts, of), *expected, "{of:?}");
        }
        accounts.set_frozen(AccountId(1), true, lsn(90));
        assert_eq!(checked(&accounts, &[(1, -1), (3, 1)]), Err((Status::Frozen, 1)));
        assert_eq!(checked(&accounts, &[(4, -1), (1, 1)]), Ok(()), "money that comes in is taken");
        let not_three = |account: &Account| account.id != AccountId(4);
        let refused = accounts.check(HERE, &legs(&[(4, -1), (1, 1)]), &[], not_three);
        assert_eq!(refused, Err(LegsRefused { status: Status::Forbidden, account: AccountId(4) }));
        let elsewhere = accounts.check(TenantId(1), &legs(&[(4, -1), (1, 1)]), &[], |_| true);
        assert_eq!(elsewhere, Err(LegsRefused { status: Status::NotFound, account: AccountId(4) }));
    }

    #[test]
    fn what_is_held_cannot_be_spent_but_by_its_own_order() {
        let mut accounts = accounts();
        let order = legs(&[(1, -70), (3, 70)]);
        accounts.hold(&order);
        assert_eq!(accounts.find(AccountId(1), HERE).unwrap().account.available(), 30);
        assert_eq!(checked(&accounts, &[(1, -31), (3, 31)]), Err((Status::InsufficientFunds, 1)));
        assert_eq!(accounts.check(HERE, &legs(&[(1, -100), (3, 100)]), &order, |_| true), Ok(()));
        let more = accounts.check(HERE, &legs(&[(1, -101), (3, 101)]), &order, |_| true);
        assert_eq!(more.unwrap_err().status, Status::InsufficientFunds);
        accounts.release(&order);
        assert_eq!(checked(&accounts, &[(1, -100), (3, 100)]), Ok(()));
    }

    #[test]
    fn two_legs_on_one_account_are_one_entry_of_it() {
        let mut accounts = accounts();
        let first = post(&mut accounts, &[(4, -50), (1, 20), (1, 30)], 50);
        assert_eq!(
            first.iter().map(|leg| (leg.balance, leg.prev)).collect::<Vec<_>>(),
            [(-50, None), (50, None), (50, None)]
        );
        let second = post(&mut accounts, &[(1, -5), (3, 5)], 60);
        assert_eq!((second[0].balance, second[0].prev), (45, Some(lsn(50))));
        accounts.check_all().unwrap();
        // Another one's chain is not continued.
        let strange = [PostedLeg { prev: Some(lsn(50)), ..second[0] }];
        assert_eq!(accounts.post(&strange, lsn(70)), Err(AccountId(1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Post(Vec<Leg>),
        Hold(Vec<Leg>),
        Release(usize),
        Settle(usize),
        Freeze(u32, bool),
    }

    fn some_legs() -> impl Strategy<Value = Vec<Leg>> {
        // The last leg mostly balances the rest.
        (prop::collection::vec((1..=4_u32, -60..=60_i64), 1..5), 1..=4_u32, 0..10_u8).prop_map(
            |(mut of, last, odd)| {
                let sum: Money = of.iter().map(|(_, amount)| amount).sum();
                of.push((last, if odd == 0 { 1 } else { -sum }));
                legs(&of)
            },
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => some_legs().prop_map(Step::Post),
            3 => some_legs().prop_map(Step::Hold),
            1 => (0..8_usize).prop_map(Step::Release),
            2 => (0..8_usize).prop_map(Step::Settle),
            1 => (1..=4_u32, any::<bool>()).prop_map(|(id, frozen)| Step::Freeze(id, frozen)),
        ]
    }

    proptest! {
        /// Whatever is asked: money closes, nobody is below what it may be, an order that was held can be
        /// paid, and replay from every snapshot, fuzzy or not, gives the same.
        #[test]
        fn money_closes(steps in prop::collection::vec(step(), 1..60), copied in 0..80_usize) {
            let mut accounts = accounts();
            let mut open: Vec<Vec<Leg>> = Vec::new();
            let mut log = Vec::new();
            let mut rows: Vec<AccountRow> = Vec::new();
            let mut begun = None;
            for (at, step) in steps.into_iter().enumerate() {
                let place = lsn(100 + at as u64);
                if at >= copied {
                    // A snapshot copies one account at a time while the rest goes on.
                    begun.get_or_insert(place);
                    rows.extend(accounts.rows(rows.len(), 1));
                }
                match step {
                    Step::Post(legs) if accounts.check(HERE, &legs, &[], |_| true).is_ok() => {
                        let mut posted = Vec::new();
                        accounts.posted(&legs, &mut posted);
                        accounts.post(&posted, place).unwrap();
                        log.push((place, posted));
                    }
                    Step::Hold(legs) if accounts.check(HERE, &legs, &[], |_| true).is_ok() => {
                        accounts.hold(&legs);
                        open.push(legs);
                    }
                    Step::Release(which) if which < open.len() => accounts.release(&open.remove(which)),
                    Step::Settle(which) if which < open.len() => {
                        let legs = open.remove(which);
                        let frozen = |leg: &Leg| accounts.find(leg.account, HERE).unwrap().account.frozen;
                        let checked = accounts.check(HERE, &legs, &legs, |_| true);
                        prop_assert!(checked.is_ok() || legs.iter().any(frozen), "{checked:?}");
                        accounts.release(&legs);
                        if checked.is_ok() {
                            let mut posted = Vec::new();
                            accounts.posted(&legs, &mut posted);
                            accounts.post(&posted, place).unwrap();
                            log.push((place, posted));
                        }
                    }
                    Step::Freeze(id, frozen) => accounts.set_frozen(AccountId(id), frozen, lsn(2)),
                    _ => {}
                }
                prop_assert_eq!(accounts.check_all(), Ok(()));
            }
            accounts.release_all();
            rows.extend(accounts.rows(rows.len(), 99));
            let mut again = Accounts::default();
            prop_assert!(again.restore(&rows));
            for (place, posted) in log.iter().filter(|(place, _)| begun.is_none_or(|begun| *place >= begun)) {
                let mut bytes = vec![0; posted.len() * crate::record::LEG_BYTES];
                PostedLeg::encode_all(posted, &mut bytes);
                let read = PostedLeg::decode_all(&bytes).unwrap();
                prop_assert_eq!(&read, posted);
                prop_assert_eq!(again.post(&read, *place), Ok(()));
            }
            let money = |accounts: &Accounts| {
                let of = |state: &AccountState| (state.account.balance, state.money_lsn);
                accounts.all().iter().map(of).collect::<Vec<_>>()
            };
            prop_assert_eq!(money(&again), money(&accounts));
        }
    }
}
