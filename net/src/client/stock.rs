//! The typed calls about products and batches.

use kami_engine::{BatchId, BatchReport, Product, ProductId, ProductSpec, StockLine};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::request::{BatchExtend, BatchRows, OfProduct, OneBatch, OneProduct};
use crate::frame::{Body, Listing, Request};

impl Client {
    /// Makes all cards of a batch redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_activate(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchActivate(OneBatch { batch })).await
    }

    /// Makes the unused cards of a batch not redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_deactivate(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchDeactivate(OneBatch { batch })).await
    }

    /// Freezes all cards of a batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_freeze(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchFreeze(OneBatch { batch })).await
    }

    /// Ends the freeze of a batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_unfreeze(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchUnfreeze(OneBatch { batch })).await
    }

    /// Makes the unsold cards of a batch void for good.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_void(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchVoid(OneBatch { batch })).await
    }

    /// Moves the end of validity of a batch to a later time.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_extend(
        &self,
        batch: BatchId,
        expires_ms: u64,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchExtend(BatchExtend { batch, expires_ms })).await
    }

    /// Makes the rows of a range redeemable, counted from 0 in the order of the import.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_activate_rows(
        &self,
        batch: BatchId,
        rows: std::ops::Range<u64>,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        let (from, rows) = (rows.start, rows.end.saturating_sub(rows.start));
        self.batch(&Request::BatchActivateRows(BatchRows { batch, from, rows })).await
    }

    /// Makes the unused cards in a range of rows not redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_deactivate_rows(
        &self,
        batch: BatchId,
        rows: std::ops::Range<u64>,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        let (from, rows) = (rows.start, rows.end.saturating_sub(rows.start));
        self.batch(&Request::BatchDeactivateRows(BatchRows { batch, from, rows })).await
    }

    /// Lists the batches, of one product or all.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_list(
        &self,
        product: Option<ProductId>,
    ) -> Result<Receipt<Listing<BatchReport>>, ClientError> {
        self.list(&Request::BatchList(OfProduct { product }), batches).await
    }

    /// Adds a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_add(&self, spec: ProductSpec) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductAdd(Box::new(spec))).await
    }

    /// Changes a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_set(&self, spec: ProductSpec) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductSet(Box::new(spec))).await
    }

    /// Freezes all cards of a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_freeze(&self, product: ProductId) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductFreeze(OneProduct { product })).await
    }

    /// Ends the freeze of a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_unfreeze(&self, product: ProductId) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductUnfreeze(OneProduct { product })).await
    }

    /// Lists the products.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_list(&self) -> Result<Receipt<Listing<Product>>, ClientError> {
        self.list(&Request::ProductList, products).await
    }

    /// Counts the stock by product and batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn stock(
        &self,
        product: Option<ProductId>,
    ) -> Result<Receipt<Listing<StockLine>>, ClientError> {
        self.list(&Request::Stock(OfProduct { product }), |body| match body {
            Body::Stock(rows) => Some(rows),
            _ => None,
        })
        .await
    }

    async fn batch(&self, request: &Request<'_>) -> Result<Receipt<BatchReport>, ClientError> {
        self.list(request, batches).await?.one()
    }

    async fn product(&self, request: &Request<'_>) -> Result<Receipt<Product>, ClientError> {
        self.list(request, products).await?.one()
    }
}

pub(super) fn batches(body: Body) -> Option<Listing<BatchReport>> {
    match body {
        Body::Batches(rows) => Some(rows),
        _ => None,
    }
}

fn products(body: Body) -> Option<Listing<Product>> {
    match body {
        Body::Products(rows) => Some(rows),
        _ => None,
    }
}
