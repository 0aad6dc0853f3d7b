//! The calls about accounts, postings and limits.

use kami_wal::Lsn;

use crate::account::{Account, AccountPut, AccountSpec, Posting};
use crate::command::{ACCOUNTS_PER_LIST, Command};
use crate::identity::{AccountId, RequestId};
use crate::limit::{Limit, LimitSpec};
use crate::record::PostedLeg;
use crate::reply::{ReplyBody, ReplyFlags, Statement};

use super::{Call, Failure, Receipt, Session, receipt, told};

/// Accounts, in order of number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<Account>,
    /// Whether there are more behind the last of them.
    pub more: bool,
}

impl Session {
    /// Adds an account.
    pub fn add_account(&self, id: RequestId, spec: AccountSpec) -> Call<Account> {
        self.account_call(id, Command::AccountPut(Box::new(AccountPut { spec, new: true })))
    }

    /// Changes the credit limit or the owner of an account.
    pub fn set_account(&self, id: RequestId, spec: AccountSpec) -> Call<Account> {
        self.account_call(id, Command::AccountPut(Box::new(AccountPut { spec, new: false })))
    }

    /// Freezes an account: nothing is paid from it.
    pub fn freeze_account(&self, id: RequestId, account: AccountId) -> Call<Account> {
        self.account_call(id, Command::AccountFreeze(account))
    }

    /// Ends the freeze of an account.
    pub fn unfreeze_account(&self, id: RequestId, account: AccountId) -> Call<Account> {
        self.account_call(id, Command::AccountUnfreeze(account))
    }

    /// Reads an account by its number.
    pub fn account(&self, account: AccountId) -> Call<Account> {
        self.account_call(RequestId::default(), Command::AccountQuery { account, name: String::new() })
    }

    /// Reads an account by its name.
    pub fn account_named(&self, name: &str) -> Call<Account> {
        let command = Command::AccountQuery { account: AccountId(0), name: name.to_owned() };
        self.account_call(RequestId::default(), command)
    }

    /// Lists accounts with numbers above `after`, up to [`ACCOUNTS_PER_LIST`] of them.
    pub fn accounts(&self, after: AccountId) -> Call<AccountPage> {
        let command = Command::AccountList { after, count: ACCOUNTS_PER_LIST };
        self.call(RequestId::default(), Ok(command), |_, reply| {
            let more = reply.flags.contains(ReplyFlags::PARTIAL);
            told(reply, accounts).map(|accounts| AccountPage { accounts, more })
        })
    }

    /// Reads one page of an account's statement, newest first: at most
    /// [`STATEMENT_LINES_MAX`](crate::STATEMENT_LINES_MAX) entries from `from` on, which the page before says, or the
    /// newest.
    pub fn statement(&self, account: AccountId, from: Option<Lsn>, count: u32) -> Call<Statement> {
        let command = Command::AccountStatement { account, from, count };
        self.call(RequestId::default(), Ok(command), |_, reply| {
            told(reply, |body| match body {
                ReplyBody::Statement(statement) => Some(*statement),
                _ => None,
            })
        })
    }

    /// Moves money between accounts: a top-up, a withdrawal, a correction.
    pub fn post(&self, id: RequestId, posting: Posting) -> Call<Receipt<Vec<PostedLeg>>> {
        self.call(id, Ok(Command::Post(Box::new(posting))), |_, reply| {
            receipt(reply, |body| match body {
                ReplyBody::Posted(legs) => Some(legs),
                _ => None,
            })
        })
    }

    /// Sets, changes or takes away a limit.
    pub fn put_limit(&self, id: RequestId, spec: LimitSpec) -> Call<Limit> {
        self.call(id, Ok(Command::LimitPut(Box::new(spec))), |_, reply| {
            let refused = Failure::of(&reply);
            told(reply, limits)?.pop().ok_or(refused)
        })
    }

    /// Lists the limits that stand.
    pub fn limits(&self) -> Call<Vec<Limit>> {
        self.call(RequestId::default(), Ok(Command::LimitList), |_, reply| told(reply, limits))
    }

    fn account_call(&self, id: RequestId, command: Command) -> Call<Account> {
        self.call(id, Ok(command), |_, reply| {
            let refused = Failure::of(&reply);
            told(reply, accounts)?.pop().ok_or(refused)
        })
    }
}

fn accounts(body: ReplyBody) -> Option<Vec<Account>> {
    match body {
        ReplyBody::Accounts(accounts) => Some(accounts),
        _ => None,
    }
}

fn limits(body: ReplyBody) -> Option<Vec<Limit>> {
    match body {
        ReplyBody::Limits(limits) => Some(limits),
        _ => None,
    }
}
