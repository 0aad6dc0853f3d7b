//! `kami serve --sandbox`: the real server on throw-away data, with a card in every state there is, for
//! whoever integrates a till or a shop and wants to see each answer once.
//!
//! Nothing is mocked. The cards are imported, sold, redeemed, frozen as they would be in a shop, before the
//! server listens; an identity of each role lies beside the keys. Codes are the same every time, so that an
//! integration's own tests can name them. Data and keys go when the server ends in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kami_engine::{
    BatchId, Caller, Command, Engine, ImportRow, ImportSpec, Lifecycle, MerchantId, OrderId, PrincipalSpec,
    ProductSpec, RequestId, Role, Session,
};
use kami_net::Authority;
use serde_json::{Value, json};

use crate::exit::{Failure, sentence};
use crate::output::table;
use crate::{keys, time};

/// How long after their import the expired cards expire: time to sell them. The server waits for it.
const EXPIRES_MS: u64 = 2000;
/// How long it waits at most.
const PATIENCE: Duration = Duration::from_secs(10);
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The directories of a sandbox.
pub struct Sandbox {
    /// Where the data lies.
    pub data: PathBuf,
    /// Where the keys and identities lie.
    pub keys: PathBuf,
}

/// A card that is shown.
struct Sample {
    code: String,
    pin: Option<&'static str>,
    state: &'static str,
    /// What REDEEM answers, the first time.
    redeem: &'static str,
}

impl Sandbox {
    /// A fresh one below the current directory.
    pub fn new() -> Result<Sandbox, Failure> {
        // Relative, as whoever tries it out will name them.
        let data = PathBuf::from("kami-sandbox");
        let sandbox = Sandbox { keys: keys::beside(&data), data };
        for directory in [&sandbox.data, &sandbox.keys] {
            fs::create_dir(directory).map_err(|error| {
                Failure::environment(format!(
                    "the sandbox needs this directory for itself: {error}; if no sandbox runs here, remove it path=`{}`",
                    directory.display()
                ))
            })?;
        }
        Ok(sandbox)
    }

    /// Takes it away. What stays behind is only named: the server did what it was for.
    pub fn remove(&self) {
        for directory in [&self.data, &self.keys] {
            if let Err(error) = fs::remove_dir_all(directory) {
                tracing::warn!("the sandbox stays behind: {error} path=`{}`", directory.display());
            }
        }
    }

    /// Where the cards are listed for programs.
    pub fn list(&self) -> PathBuf {
        self.keys.join("sandbox.json")
    }

    /// Identities of every role and cards in every state; what to print of them.
    pub fn furnish(&self, engine: &Engine) -> Result<String, Failure> {
        enrol(engine, &self.keys)?;
        let samples = cards(engine).map_err(|error| Failure::environment(sentence(&error)))?;
        let file = self.list();
        fs::write(&file, json!({ "cards": samples.iter().map(value).collect::<Vec<_>>() }).to_string())
            .map_err(|error| keys::file_failure(&file, &error))?;
        let rows = samples.iter().map(|sample| {
            let pin = sample.pin.unwrap_or_default().to_owned();
            vec![sample.code.clone(), pin, sample.state.to_owned(), sample.redeem.to_owned()]
        });
        let shown = table(&["CODE", "PIN", "STATE", "REDEEM ANSWERS"], &[], rows);
        let roles = Role::ALL.map(Role::name).join(", ");
        Ok(format!(
            "\n{shown}\nThe same as JSON: {}\nIdentities: {}/NAME for {roles}\n",
            file.display(),
            self.keys.display()
        ))
    }
}

fn value(sample: &Sample) -> Value {
    json!({ "code": sample.code, "pin": sample.pin, "state": sample.state, "redeem": sample.redeem })
}

/// A principal of each role but admin, which every store has; a directory named after it.
fn enrol(engine: &Engine, keys: &Path) -> Result<(), Failure> {
    let authority = Authority::load(&keys.join("ca"))?;
    let session = Session::new(engine, Caller::LOCAL);
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Admin) {
        let identity = authority.issue(role.name())?;
        identity.save(&keys.join(role.name()))?;
        let merchant = MerchantId(u32::from(role == Role::Redeemer));
        let spec =
            PrincipalSpec { merchant, ..PrincipalSpec::of(role.name(), role, identity.key_fingerprint()?) };
        let added = session.run(RequestId::random(), Command::PrincipalAdd(Box::new(spec))).wait();
        added.map_err(|error| Failure::environment(sentence(&error)))?;
    }
    Ok(())
}

fn cards(engine: &Engine) -> Result<Vec<Sample>, kami_engine::Failure> {
    let shop = Session::new(engine, Caller::LOCAL);
    let now_ms = time::now_ms();
    let coffee =
        shop.add_product(RequestId::random(), ProductSpec::single("coffee", *b"CNY", 2800)).wait()?.id;
    // A product of their own, so that an order for all of it takes just these.
    let samples = ProductSpec::single("samples", *b"CNY", 1000);
    let samples = shop.add_product(RequestId::random(), samples).wait()?.id;
    let import = |product, codes: &[String], pin: Option<&str>, set: &dyn Fn(&mut ImportSpec)| {
        let mut spec = ImportSpec { pins: pin.is_some(), ..ImportSpec::of(product, codes.len() as u64, 32) };
        set(&mut spec);
        let pin = pin.map(str::as_bytes);
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), pin, ..ImportRow::default() });
        shop.import(RequestId::random(), spec, rows, |_| ()).map(|batch| batch.id)
    };
    let numbered = |name: &str, count: usize| -> Vec<String> {
        (1..=count).map(|number| format!("{name}-{number:04}")).collect()
    };
    let mut all = Vec::new();
    let mut show = |codes: &[String], pin, state, redeem| {
        all.extend(codes.iter().map(|code| Sample { code: code.clone(), pin, state, redeem }));
    };

    let stock = numbered("STOCK", 1000);
    import(coffee, &stock, None, &|_| ())?;
    let voided = numbered("VOIDED", 1);
    import(coffee, &voided, None, &|_| ())?;
    shop.void(RequestId::random(), &voided[0]).wait()?;

    let good = numbered("SOLD", 20);
    import(samples, &good, None, &|_| ())?;
    let with_pin = numbered("PIN", 5);
    import(samples, &with_pin, Some("1234"), &|_| ())?;
    let [redeemed, reversed, frozen] = ["REDEEMED", "REVERSED", "FROZEN"].map(|name| numbered(name, 1));
    for codes in [&redeemed, &reversed, &frozen] {
        import(samples, codes, None, &|_| ())?;
    }
    let inactive = numbered("INACTIVE", 2);
    import(samples, &inactive, None, &|spec| spec.active = false)?;
    let early = numbered("EARLY", 1);
    import(samples, &early, None, &|spec| spec.valid_from_ms = now_ms + 365 * DAY_MS)?;
    let frozen_batch = numbered("FROZEN-BATCH", 1);
    let ice: BatchId = import(samples, &frozen_batch, None, &|_| ())?;
    let expired = numbered("EXPIRED", 1);
    import(samples, &expired, None, &|spec| spec.expires_ms = time::now_ms() + EXPIRES_MS)?;

    let count = [&good, &with_pin, &redeemed, &reversed, &frozen, &inactive, &early, &frozen_batch, &expired];
    let count = count.iter().map(|codes| codes.len() as u32).sum();
    shop.sell(RequestId::random(), OrderId(1), samples, count).wait()?;
    shop.redeem(RequestId::random(), &redeemed[0]).wait()?;
    let original = RequestId::random();
    shop.redeem(original, &reversed[0]).wait()?;
    shop.reverse(RequestId::random(), &reversed[0], original).wait()?;
    shop.freeze(RequestId::random(), &frozen[0]).wait()?;
    shop.run(RequestId::random(), Command::BatchFreeze(ice)).wait()?;
    // Time is as real as everything else here, and the engine's goes in steps.
    let patience = Instant::now() + PATIENCE;
    while shop.query(&expired[0]).wait()?.lifecycle != Lifecycle::Expired && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }

    show(&good[..3], None, "sold", "OK");
    show(&with_pin[..2], Some("1234"), "sold, with a PIN", "OK");
    show(&reversed, None, "sold; redeemed and reversed before", "OK");
    show(&redeemed, None, "redeemed", "ALREADY_REDEEMED");
    show(&frozen, None, "sold, frozen", "FROZEN");
    show(&frozen_batch, None, "sold, its batch frozen", "FROZEN");
    show(&inactive, None, "sold, its batch not active", "NOT_ACTIVE");
    show(&early, None, "sold, not valid yet", "NOT_YET_VALID");
    show(&expired, None, "sold, expired", "EXPIRED");
    show(&stock[..1], None, "in stock (product coffee, 1,000 cards)", "CARD_NOT_VALID");
    show(&voided, None, "void", "VOIDED");
    show(&["UNKNOWN-0001".to_owned()], None, "unknown", "CARD_NOT_VALID");
    Ok(all)
}
