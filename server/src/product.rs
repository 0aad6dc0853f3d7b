//! `kami product`: what cards are worth, how long, and how long a redemption can be taken back.

use clap::{Args, Subcommand, ValueEnum};
use kami_engine::{CardKind, MerchantId, Product, ProductSpec, ProductTerms, ValidFrom};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::{money, time};

/// Add, list and change products.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami product add coffee --face 28 --currency CNY --valid-days 365\n  kami product set coffee --face 30\n  kami product add gift --face 100 --currency CNY --kind value --max 500\n  kami product add swim --face 200 --currency CNY --kind uses --uses 10\n  kami product add pass --face 99 --currency CNY --valid-days 30 --valid-from sale\n  kami product set coffee --reserve 30m --listed false\n  kami product list\n  kami product freeze coffee\n  kami product unfreeze coffee"
)]
pub struct ProductCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add a product; its name is new.
    #[command(after_help = "Example:\n  kami product add coffee --face 28 --currency CNY --valid-days 365")]
    Add {
        /// What it is called: 1 to 64 bytes.
        name: String,
        /// What a card is worth, in the currency's main unit: 28 or 28.50.
        #[arg(long, value_name = "AMOUNT")]
        face: String,
        /// Three letters, such as CNY.
        #[arg(long, value_name = "CUR", value_parser = money::parse_currency)]
        currency: [u8; 3],
        /// Days from import, or from what --valid-from says, until a card expires; 0 is never.
        #[arg(long, value_name = "N", default_value_t = 0)]
        valid_days: u32,
        /// Hours in which a redemption can be reversed.
        #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        reversal_hours: u32,
        /// How its cards are used: once and as a whole, a number of times, or in parts until nothing is left.
        #[arg(long, value_enum, default_value_t = Kind::Single)]
        kind: Kind,
        /// How often a card can be used; with --kind uses.
        #[arg(long, value_name = "N", required_if_eq("kind", "uses"))]
        uses: Option<u32>,
        #[command(flatten)]
        terms: Terms,
    },
    /// List the products.
    #[command(after_help = "Example:\n  kami product list")]
    List,
    /// Change a product; what is not given stays as it is, and so do the cards imported before.
    #[command(after_help = "Example:\n  kami product set coffee --face 30")]
    Set {
        /// Its name.
        name: String,
        /// What a card is worth, in the currency's main unit.
        #[arg(long, value_name = "AMOUNT")]
        face: Option<String>,
        /// Days from import, or from what --valid-from says, until a card expires; 0 is never.
        #[arg(long, value_name = "N")]
        valid_days: Option<u32>,
        /// Hours in which a redemption can be reversed.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        reversal_hours: Option<u32>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Freeze all cards of a product: nothing is sold or redeemed.
    #[command(after_help = "Example:\n  kami product freeze coffee")]
    Freeze {
        /// Its name.
        name: String,
    },
    /// End the freeze of a product.
    #[command(after_help = "Example:\n  kami product unfreeze coffee")]
    Unfreeze {
        /// Its name.
        name: String,
    },
}

/// How cards are used.
#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Once, as a whole.
    Single,
    /// A number of times: --uses.
    Uses,
    /// In parts, until nothing is left (储值).
    Value,
}

/// From when the days of a card count.
#[derive(Clone, Copy, ValueEnum)]
enum From {
    /// From its import.
    Import,
    /// From its activation.
    Activation,
    /// From its sale.
    Sale,
    /// From its first use; a card that is used once is not in use before.
    FirstUse,
}

/// What else is agreed about a product's cards.
#[derive(Args)]
struct Terms {
    /// From when --valid-days counts, for batches that are imported from now on [default: import].
    #[arg(long, value_enum, value_name = "WHEN")]
    valid_from: Option<From>,
    /// The most a card can hold, in the currency's main unit; with --kind value. 0: nothing can be loaded.
    #[arg(long, value_name = "AMOUNT")]
    max: Option<String>,
    /// Whether a redemption for more than what is left takes what is left.
    #[arg(long, value_name = "YES")]
    partial: Option<bool>,
    /// How long a hold stands that is neither captured nor released: 90s, 5m [default: 5m].
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds)]
    hold: Option<u32>,
    /// How long cards stay reserved for an order that is not paid: 15m, 2h [default: 15m].
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds)]
    reserve: Option<u32>,
    /// Whether it can be sold (上架); what was sold can be redeemed all the same [default: true].
    #[arg(long, value_name = "YES")]
    listed: Option<bool>,
    /// What you want to keep with it, as you like: at most 255 bytes.
    #[arg(long, value_name = "TEXT")]
    attributes: Option<String>,
    /// Its class, 0 to 63, by which tills are allowed whole groups of products.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..64))]
    class: Option<u8>,
    /// The merchants that may redeem it, at most 64: 3,7; or all.
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    merchants: Option<List>,
    /// The stores that may redeem it, at most 64: 17,18; or all.
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    stores: Option<List>,
}

/// Numbers; none is all.
#[derive(Clone)]
struct List(Vec<u32>);

fn parse_list(text: &str) -> Result<List, String> {
    let numbers = parse_numbers(text)?;
    if numbers.len() > 64 { Err("that is more than 64".to_owned()) } else { Ok(List(numbers)) }
}

/// Numbers with commas between them, or `all`, which is none.
pub fn parse_numbers(text: &str) -> Result<Vec<u32>, String> {
    if text == "all" {
        return Ok(Vec::new());
    }
    let wrong = |part: &str| format!("`{part}` is no number; give numbers with commas between them, or all");
    text.split(',').map(|part| part.trim().parse().map_err(|_| wrong(part))).collect()
}

impl Terms {
    /// Changes what was said.
    fn apply(self, spec: &mut ProductSpec) -> Result<(), Failure> {
        if let Some(max) = self.max {
            let wrong = |wrong| Failure::usage(format!("--max `{max}`: {wrong}"));
            spec.terms.value_max = money::parse(&max, spec.currency).map_err(wrong)?;
        }
        spec.terms.valid_from = match self.valid_from {
            None => spec.terms.valid_from,
            Some(From::Import) => ValidFrom::Import,
            Some(From::Activation) => ValidFrom::Activation,
            Some(From::Sale) => ValidFrom::Sale,
            Some(From::FirstUse) => ValidFrom::FirstUse,
        };
        spec.terms.partial = self.partial.unwrap_or(spec.terms.partial);
        spec.terms.hold_s = self.hold.unwrap_or(spec.terms.hold_s);
        spec.terms.reserve_s = self.reserve.unwrap_or(spec.terms.reserve_s);
        spec.terms.listed = self.listed.unwrap_or(spec.terms.listed);
        if let Some(attributes) = self.attributes {
            spec.terms.attributes = attributes;
        }
        spec.terms.class = self.class.unwrap_or(spec.terms.class);
        if let Some(List(merchants)) = self.merchants {
            spec.terms.merchants = merchants.into_iter().map(MerchantId).collect();
        }
        if let Some(List(stores)) = self.stores {
            spec.terms.stores = stores;
        }
        Ok(())
    }
}

pub async fn run(command: ProductCommand, output: &Output) -> Result<(), Failure> {
    let ProductCommand { remote, why, action } = command;
    let amount = |text: &str, currency| {
        money::parse(text, currency).map_err(|wrong| Failure::usage(format!("--face `{text}`: {wrong}")))
    };
    // Read before anybody is asked: what is typed wrongly needs no server.
    let new = match &action {
        Action::Add { name, face, currency, valid_days, reversal_hours, kind, uses, .. } => {
            Some(ProductSpec {
                name: name.clone(),
                kind: match kind {
                    Kind::Single => CardKind::Single,
                    Kind::Uses => CardKind::MultiUse,
                    Kind::Value => CardKind::StoredValue,
                },
                currency: *currency,
                face: amount(face, *currency)?,
                valid_days: *valid_days,
                reversal_s: reversal_hours * 3600,
                terms: ProductTerms { uses: uses.unwrap_or(0), ..ProductTerms::default() },
            })
        }
        _ => None,
    };
    remote
        .talk_on(&why, async |client| {
            let product = match action {
                Action::Add { terms, .. } => {
                    let Some(mut spec) = new else { return Ok(()) };
                    terms.apply(&mut spec)?;
                    client.product_add(spec).await?.value
                }
                Action::List => {
                    let catalogue = Catalogue::read(client).await?;
                    let rows: Vec<Value> = catalogue.all().iter().map(value).collect();
                    return output.result(&json!({ "products": rows }), || listing(catalogue.all()));
                }
                Action::Set { name, face, valid_days, reversal_hours, terms } => {
                    let catalogue = Catalogue::read(client).await?;
                    let mut spec = catalogue.find(&name)?.spec.clone();
                    if let Some(face) = face {
                        spec.face = amount(&face, spec.currency)?;
                    }
                    spec.valid_days = valid_days.unwrap_or(spec.valid_days);
                    spec.reversal_s = reversal_hours.map_or(spec.reversal_s, |hours| hours * 3600);
                    terms.apply(&mut spec)?;
                    client.product_set(spec).await?.value
                }
                Action::Freeze { name } => {
                    let id = Catalogue::read(client).await?.find(&name)?.id;
                    client.product_freeze(id).await?.value
                }
                Action::Unfreeze { name } => {
                    let id = Catalogue::read(client).await?.find(&name)?.id;
                    client.product_unfreeze(id).await?.value
                }
            };
            output.result(&value(&product), || listing(std::slice::from_ref(&product)))
        })
        .await
}

fn value(product: &Product) -> Value {
    let spec = &product.spec;
    json!({
        "id": product.id.0,
        "name": spec.name,
        "currency": money::name(spec.currency),
        "face": money::show(spec.face, spec.currency),
        "face_minor": spec.face,
        "valid_days": spec.valid_days,
        "valid_from": from_name(spec.terms.valid_from),
        "reversal_s": spec.reversal_s,
        "kind": kind_name(spec.kind),
        "uses": spec.terms.uses,
        "value_max_minor": spec.terms.value_max,
        "partial": spec.terms.partial,
        "hold_s": spec.terms.hold_s,
        "reserve_s": spec.terms.reserve_s,
        "listed": spec.terms.listed,
        "attributes": spec.terms.attributes,
        "class": spec.terms.class,
        "merchants": spec.terms.merchants.iter().map(|merchant| merchant.0).collect::<Vec<_>>(),
        "stores": spec.terms.stores,
        "frozen": product.frozen,
    })
}

const fn from_name(from: ValidFrom) -> &'static str {
    match from {
        ValidFrom::Import => "import",
        ValidFrom::Activation => "activation",
        ValidFrom::Sale => "sale",
        ValidFrom::FirstUse => "first-use",
    }
}

const fn kind_name(kind: CardKind) -> &'static str {
    match kind {
        CardKind::Single => "single",
        CardKind::MultiUse => "uses",
        CardKind::StoredValue => "value",
        CardKind::Shared => "shared",
    }
}

fn listing(products: &[Product]) -> String {
    let rows = products.iter().map(|product| {
        let spec = &product.spec;
        vec![
            product.id.to_string(),
            spec.name.clone(),
            money::show_with(spec.face, spec.currency),
            match (spec.valid_days, spec.terms.valid_from) {
                (0, _) => "-".to_owned(),
                (days, ValidFrom::Import) => format!("{days} days"),
                (days, from) => format!("{days} days from {}", from_name(from)),
            },
            format!("{} h", spec.reversal_s / 3600),
            match (product.frozen, spec.terms.listed) {
                (true, _) => "frozen",
                (false, true) => "",
                (false, false) => "not listed",
            }
            .to_owned(),
        ]
    });
    table(&["ID", "NAME", "FACE", "VALID", "REVERSAL", ""], &[0, 2], rows)
}
