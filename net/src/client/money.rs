//! The typed calls about accounts, postings and limits.

use kami_engine::{
    Account, AccountId, AccountPut, AccountSpec, Limit, LimitSpec, Lsn, PostedLeg, Posting, RequestId,
};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::money::{AccountList, AccountQuery, AccountStatement, OneAccount, Statement};
use crate::frame::{Body, Listing, Request};

/// Accounts asked for in one ACCOUNT_LIST.
const ACCOUNTS_PER_LIST: u32 = 500;

impl Client {
    /// Adds an account. `request` makes it repeatable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_add(
        &self,
        spec: AccountSpec,
        request: RequestId,
    ) -> Result<Receipt<Account>, ClientError> {
        self.put_account(AccountPut { spec, new: true }, request).await
    }

    /// Changes the credit limit or the owner of an account. `request` makes it repeatable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_set(
        &self,
        spec: AccountSpec,
        request: RequestId,
    ) -> Result<Receipt<Account>, ClientError> {
        self.put_account(AccountPut { spec, new: false }, request).await
    }

    async fn put_account(
        &self,
        put: AccountPut,
        request: RequestId,
    ) -> Result<Receipt<Account>, ClientError> {
        self.call(request, &Request::AccountPut(Box::new(put)), accounts).await?.one()
    }

    /// Freezes an account: nothing is paid from it.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_freeze(&self, account: AccountId) -> Result<Receipt<Account>, ClientError> {
        self.list(&Request::AccountFreeze(OneAccount { account }), accounts).await?.one()
    }

    /// Ends the freeze of an account.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_unfreeze(&self, account: AccountId) -> Result<Receipt<Account>, ClientError> {
        self.list(&Request::AccountUnfreeze(OneAccount { account }), accounts).await?.one()
    }

    /// Reads an account by its number.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account(&self, account: AccountId) -> Result<Receipt<Account>, ClientError> {
        let query = AccountQuery { account, name: String::new() };
        self.list(&Request::AccountQuery(query), accounts).await?.one()
    }

    /// Reads an account by its name.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_named(&self, name: &str) -> Result<Receipt<Account>, ClientError> {
        let query = AccountQuery { account: AccountId(0), name: name.to_owned() };
        self.list(&Request::AccountQuery(query), accounts).await?.one()
    }

    /// Lists all accounts, page by page, in order of number.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_list(&self) -> Result<Vec<Account>, ClientError> {
        let mut all: Vec<Account> = Vec::new();
        loop {
            let after = all.last().map_or(AccountId(0), |account| account.id);
            let page = AccountList { after, count: ACCOUNTS_PER_LIST };
            let page = self.list(&Request::AccountList(page), accounts).await?;
            let more = page.flags.contains(kami_engine::ReplyFlags::PARTIAL);
            if page.value.rows.is_empty() {
                return Ok(all);
            }
            all.extend(page.value.rows);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Reads one page of an account's statement, newest first: at most 100 entries from `from` on, which the page
    /// before says, or the newest.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn account_statement(
        &self,
        account: AccountId,
        from: Option<Lsn>,
        count: u32,
    ) -> Result<Receipt<Statement>, ClientError> {
        let request = Request::AccountStatement(AccountStatement { account, from, count });
        self.call(RequestId::random(), &request, |body| match body {
            Body::Statement(statement) => Some(*statement),
            _ => None,
        })
        .await
    }

    /// Moves money between accounts. `request` makes it repeatable: the same again is the same posting.
    ///
    /// # Errors
    /// As [`Client::redeem`]; [`Body::Account`] in a refusal names the account that stands against it.
    pub async fn post(
        &self,
        posting: Posting,
        request: RequestId,
    ) -> Result<Receipt<Listing<PostedLeg>>, ClientError> {
        self.call(request, &Request::Post(Box::new(posting)), |body| match body {
            Body::Posted(legs) => Some(legs),
            _ => None,
        })
        .await
    }

    /// Sets, changes or takes away a limit.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn limit_put(&self, spec: LimitSpec) -> Result<Receipt<Limit>, ClientError> {
        self.list(&Request::LimitPut(Box::new(spec)), limits).await?.one()
    }

    /// Lists the limits that stand.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn limit_list(&self) -> Result<Receipt<Listing<Limit>>, ClientError> {
        self.list(&Request::LimitList, limits).await
    }
}

fn accounts(body: Body) -> Option<Listing<Account>> {
    match body {
        Body::Accounts(rows) => Some(rows),
        _ => None,
    }
}

fn limits(body: Body) -> Option<Listing<Limit>> {
    match body {
        Body::Limits(rows) => Some(rows),
        _ => None,
    }
}
