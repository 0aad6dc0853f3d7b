//! A shop that sells: buys cards under its own order number and gets the same codes however often it asks.
//!
//! ```text
//! kami serve --sandbox
//! cargo run -p kami-net --example wholesaler -- 127.0.0.1:7400 kami-sandbox.keys/seller coffee 3
//! ```

use std::error::Error;
use std::path::Path;

use kami_engine::{ChannelId, OrderId, RequestId, Status};
use kami_net::client::SellOptions;
use kami_net::{Client, ClientError, ClientOptions, Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, identity, product, count] = args.as_slice() else {
        return Err("usage: wholesaler ADDR IDENTITY PRODUCT COUNT".into());
    };
    // The channel stands in every sale's record: which shop front sold it.
    let identity = Identity::load(Path::new(identity))?;
    let options = ClientOptions { channel: ChannelId(2), ..ClientOptions::new(server.parse()?, identity) };
    let shop = Client::connect(options).await?;

    let products = shop.product_list().await?.value.rows;
    let Some(product) = products.iter().find(|known| known.spec.name == *product) else {
        return Err(format!("there is no product {product}").into());
    };
    let stock = shop.stock(Some(product.id)).await?.value.rows;
    println!("{} in stock", stock.iter().map(|line| line.sellable).sum::<u64>());

    // Both ids stand in the shop's own order row before the sale is tried. Here they are fresh.
    let order = OrderId(RequestId::random().0);
    let options = SellOptions { request: Some(RequestId::random()), ..SellOptions::default() };
    let sold = match shop.sell(order, product.id, count.parse()?, options).await {
        Ok(sold) => sold,
        Err(ClientError::Refused { status: Status::OutOfStock, .. }) => return Err("sold out".into()),
        Err(error) => return Err(error.into()),
    };
    // The same call again is the same sale: same codes, nothing sold twice.
    let again = shop.sell(order, product.id, count.parse()?, options).await?;
    assert_eq!(sold.value.cards.len(), again.value.cards.len());
    // And later, by the order alone; nobody but the principal that bought it gets them.
    let fetched = shop.order(order).await?;
    println!("order {order}: {} cards", fetched.value.cards.len());
    for card in &fetched.value.cards {
        println!("{}", String::from_utf8_lossy(&card.code));
    }
    shop.close().await;
    Ok(())
}
