//! `kami principal`: who may connect, and as what.
//!
//! Adding one certifies a key by the store's authority and tells the server the public key. The key is made
//! here, or it never leaves the till, which sends a signing request instead. The directory that comes out of
//! it is what that person or machine needs. The authority's key is needed here, and by a server for its
//! own certificate and the local admin's; it issues no other, but in a sandbox. The key stays with the house, whoever adds
//! people: with it somebody could pass for the server. The admin of a tenant registers certificates that the house made of signing requests.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kami_engine::{
    CertificateNote, MISSES_PER_MINUTE_MAX, MerchantId, Principal, PrincipalId, PrincipalSpec, ProductId,
    Renewal, Role,
};
use kami_net::{
    Authority, Certificate, CertificateFacts, Client, Identity, LIFETIME_DAYS, LIFETIME_DAYS_MAX, SubjectKey,
};
use serde_json::{Value, json};

use crate::exit::{Failure, sentence};
use crate::output::{Output, table};
use crate::product::parse_numbers;
use crate::remote::{Catalogue, Remote, Why};
use crate::time;

/// Add, list, renew and revoke principals.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami principal add till-17 --role redeemer --merchant 3 --out till-17\n  kami principal add till-18 --role redeemer --csr till-18.csr --out till-18\n  kami principal renew till-17 --out till-17\n  kami principal list\n  kami principal revoke till-17"
)]
pub struct PrincipalCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make an identity and register it. Run again with the same directory, it registers what is there.
    #[command(
        after_help = "Examples:\n  kami principal add till-17 --role redeemer --merchant 3 --out till-17\n  kami principal add till-18 --role redeemer --csr till-18.csr --out till-18"
    )]
    Add {
        /// What it is called: 1 to 64 bytes, new.
        name: String,
        /// What it may do: admin, issuer, seller, redeemer, operator, finance or auditor.
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// The merchant it redeems for.
        #[arg(long, value_name = "N", default_value_t = 0)]
        merchant: u32,
        /// A product it may touch; may be given more than once. Without any it may touch all.
        #[arg(long = "product", value_name = "PRODUCT")]
        products: Vec<String>,
        /// The store it stands in.
        #[arg(long, value_name = "N", default_value_t = 0)]
        store: u32,
        /// The classes of products, 0 to 63, that its cards may be of: 0,3; all.
        #[arg(long, value_name = "LIST", default_value = "all", value_parser = parse_classes)]
        classes: Classes,
        /// Wrong codes a minute it may send on average [default: the server's usual].
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(..=i64::from(MISSES_PER_MINUTE_MAX)))]
        misses_per_minute: u32,
        /// The tenant it belongs to; only the house adds principals of others [default: one's own].
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        #[command(flatten)]
        issue: Issue,
    },
    /// List the principals.
    #[command(after_help = "Example:\n  kami principal list")]
    List,
    /// Issue a new certificate to a principal, which stays who it is.
    ///
    /// Without --csr, for the key of the certificate in --out, which is replaced. With a request for another
    /// key, the old key opens nothing from then on.
    #[command(after_help = "Example:\n  kami principal renew till-17 --out till-17")]
    Renew {
        /// Its name or number.
        principal: String,
        /// The certificate in --out is a new one, of `kami principal certify`: register that.
        #[arg(long, conflicts_with = "csr")]
        certified: bool,
        #[command(flatten)]
        issue: Issue,
    },
    /// Certify a signing request, and tell no server: the store's authority, for people whom others add.
    ///
    /// The authority's key is never given away: who has it can pass for the server. So a tenant's admin sends the
    /// request, the house certifies it, and the admin registers what came back: `kami principal add NAME --role ROLE
    /// --out DIR` takes the certificate that lies in DIR, and needs no authority.
    #[command(
        after_help = "Example:\n  kami principal certify north-till-1 --csr till.csr --out north-till-1"
    )]
    Certify {
        /// What it will be called.
        name: String,
        /// The signing request (PKCS#10, PEM).
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// Where the certificate goes: a directory to give back.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long the certificate is valid.
        #[arg(long, value_name = "DAYS", default_value_t = LIFETIME_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIFETIME_DAYS_MAX)))]
        lifetime: u32,
        /// Where the authority's key lies [default: `ca` beside the directory of --identity].
        #[arg(long, value_name = "DIR")]
        authority: Option<PathBuf>,
    },
    /// Withdraw a principal for good and close its connections.
    #[command(after_help = "Example:\n  kami principal revoke till-17")]
    Revoke {
        /// Its name or number.
        principal: String,
    },
}

/// How a certificate is made and where it goes.
#[derive(Args)]
struct Issue {
    /// Where the certificate goes, with its key unless that stays at the till.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A signing request (PKCS#10, PEM) made where the key is; the key stays there.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// How long the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = LIFETIME_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIFETIME_DAYS_MAX)))]
    lifetime: u32,
    /// Where the authority's key lies [default: `ca` beside the directory of --identity].
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
}

fn parse_role(text: &str) -> Result<Role, String> {
    let names = Role::ALL.map(Role::name).join(", ");
    Role::ALL.into_iter().find(|role| role.name() == text).ok_or(format!("a role is one of {names}"))
}

/// Classes of products, a bit each; none is all.
#[derive(Clone, Copy)]
struct Classes(u64);

fn parse_classes(text: &str) -> Result<Classes, String> {
    let numbers = parse_numbers(text)?;
    let bit = |number: u32| 1_u64.checked_shl(number).ok_or_else(|| format!("class {number} is not 0 to 63"));
    Ok(Classes(numbers.into_iter().map(bit).try_fold(0, |bits, bit| Ok::<_, String>(bits | bit?))?))
}

pub async fn run(command: PrincipalCommand, output: &Output) -> Result<(), Failure> {
    let PrincipalCommand { remote, why, action } = command;
    match action {
        Action::Add { name, role, merchant, products, store, classes, misses_per_minute, tenant, issue } => {
            remote
                .talk_on(&why, async |client| {
                    let products = scope(client, &products).await?;
                    let tenant = match &tenant {
                        Some(name) => crate::tenant::find(client, name).await?,
                        None => client.welcome().await?.tenant,
                    };
                    let facts = issue.issue(&remote.identity, &name)?;
                    let spec = PrincipalSpec {
                        tenant,
                        merchant: MerchantId(merchant),
                        certificate: facts.note,
                        products,
                        misses_per_minute,
                        store,
                        classes: classes.0,
                        ..PrincipalSpec::of(&name, role, facts.key)
                    };
                    show(&client.principal_add(spec).await?.value, output)
                })
                .await
        }
        Action::List => {
            remote
                .talk_on(&why, async |client| {
                    let principals = client.principal_list().await?.value.rows;
                    let rows: Vec<Value> = principals.iter().map(value).collect();
                    output.result(&json!({ "principals": rows }), || lines(&principals))
                })
                .await
        }
        Action::Renew { principal, certified, issue } => {
            remote
                .talk_on(&why, async |client| {
                    let principal = find(client, &principal).await?;
                    if principal.revoked {
                        return Err(Failure::refused(format!(
                            "`{}` was revoked for good; add a new principal",
                            principal.spec.name
                        )));
                    }
                    let certificate = match certified {
                        true => Certificate::load(&issue.out)?,
                        false => issue.renew(&remote.identity, &principal)?,
                    };
                    let facts = certificate.facts()?;
                    let renewal =
                        Renewal { principal: principal.id, key: facts.key, certificate: facts.note };
                    let renewed = client.principal_renew(renewal).await?.value;
                    // Not before: a refusal would leave a certificate of a key that opens nothing in the place of
                    // one that does. If it is not written now, the same command makes another.
                    if !certified {
                        certificate.save(&issue.out)?;
                    }
                    show(&renewed, output)
                })
                .await
        }
        Action::Certify { name, csr, out, lifetime, authority } => {
            if out.join("cert.pem").exists() {
                return Err(Failure::usage(format!(
                    "there is a certificate already: choose another directory path=`{}`",
                    out.display()
                )));
            }
            let issue = Issue { out, csr: Some(csr), lifetime, authority };
            let facts = issue.issue(&remote.identity, &name)?;
            output.result(&certified_value(&name, &issue.out, &facts), || {
                format!(
                    "certified  {name}, until {}\nwritten    {}",
                    time::day(facts.note.expires_ms),
                    issue.out.display()
                )
            })
        }
        Action::Revoke { principal } => {
            remote
                .talk_on(&why, async |client| {
                    let id = find(client, &principal).await?.id;
                    show(&client.principal_revoke(id).await?.value, output)
                })
                .await
        }
    }
}

/// The principal with this name, or else with this number.
async fn find(client: &Client, name: &str) -> Result<Principal, Failure> {
    let mut principals = client.principal_list().await?.value.rows;
    // The house sees those of all tenants, whose names are their own; its own come first.
    let named: Vec<usize> = (0..principals.len()).filter(|at| principals[*at].spec.name == name).collect();
    let house = named.iter().find(|at| principals[**at].spec.tenant == kami_engine::TenantId(0)).copied();
    let named = match (house, &named[..]) {
        (None, [_, _, ..]) => {
            let ids: Vec<String> = named.iter().map(|at| principals[*at].id.to_string()).collect();
            return Err(Failure::usage(format!(
                "several tenants have a principal `{name}`: say which by its number, {}",
                ids.join(" or ")
            )));
        }
        (house, named) => house.or(named.first().copied()),
    };
    let numbered = || {
        let id = PrincipalId(name.parse().ok()?);
        principals.iter().position(|known| known.id == id)
    };
    let place = named.or_else(numbered);
    let place = place.ok_or_else(|| {
        Failure::refused(format!("there is no principal `{name}`; `kami principal list` shows them"))
    })?;
    Ok(principals.swap_remove(place))
}

async fn scope(client: &Client, names: &[String]) -> Result<Vec<ProductId>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let catalogue = Catalogue::read(client).await?;
    names.iter().map(|name| Ok(catalogue.find(name)?.id)).collect()
}

impl Issue {
    fn authority(&self, identity: &Path) -> Result<Authority, Failure> {
        let beside = || identity.parent().unwrap_or(Path::new(".")).join("ca");
        Authority::load(&self.authority.clone().unwrap_or_else(beside)).map_err(|error| {
            let text = sentence(&error);
            Failure::environment(format!("{text}; --authority says where the store's `ca` directory is"))
        })
    }

    /// The key of the signing request, if there is one.
    fn requested(&self) -> Result<Option<SubjectKey>, Failure> {
        let Some(path) = &self.csr else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::environment(format!(
                "the signing request cannot be read path=`{}`: {error}",
                path.display()
            ))
        })?;
        let key = SubjectKey::from_request(&text).map_err(|error| {
            Failure::usage(format!(
                "{}; make one with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                 -keyout key.pem -out till.csr -subj /CN=till`",
                sentence(&error)
            ))
        })?;
        Ok(Some(key))
    }

    /// The certificate in the directory, or a new one there.
    fn issue(&self, identity: &Path, name: &str) -> Result<CertificateFacts, Failure> {
        let requested = self.requested()?;
        if self.out.join("cert.pem").exists() {
            let facts = Certificate::load(&self.out)?.facts()?;
            return match &requested {
                Some(key) if key.fingerprint() != facts.key => Err(Failure::environment(format!(
                    "there is a certificate of another key already path=`{}`; choose another directory",
                    self.out.display()
                ))),
                _ => Ok(facts),
            };
        }
        let authority = self.authority(identity)?;
        match requested {
            Some(key) => {
                let certificate = authority.certify(name, &key, self.lifetime)?;
                certificate.save(&self.out)?;
                Ok(certificate.facts()?)
            }
            None => {
                let identity = authority.issue_for_days(name, self.lifetime)?;
                identity.save(&self.out)?;
                Ok(identity.certificate_facts()?)
            }
        }
    }

    /// A new certificate, for the key that is asked for or that of the certificate in the directory.
    fn renew(&self, identity: &Path, principal: &Principal) -> Result<Certificate, Failure> {
        let authority = self.authority(identity)?;
        let key = match self.requested()? {
            Some(key) => key,
            None => {
                let present = Certificate::load(&self.out)?;
                if present.facts()?.key != principal.spec.key {
                    return Err(Failure::environment(format!(
                        "the certificate is not of `{}`; --out is its directory, or --csr names a request of \
                         its key path=`{}`",
                        principal.spec.name,
                        self.out.display()
                    )));
                }
                present.subject_key()?
            }
        };
        Ok(authority.certify(&principal.spec.name, &key, self.lifetime)?)
    }
}

/// Gives an identity that ends within so many days a new certificate for its key; whether it did.
pub fn renew_early(home: &Path, authority: &Path, days: u64) -> Result<Option<CertificateFacts>, Failure> {
    let identity = Identity::load(home)?;
    let present = identity.certificate_facts()?;
    // One that is not valid yet was issued while the clock was ahead.
    if state_of(present.note, days) == State::Valid && identity.validity()?.from_ms <= time::now_ms() {
        return Ok(None);
    }
    let key = Certificate::load(home)?.subject_key()?;
    let certificate = Authority::load(authority)?.certify(&present.name, &key, LIFETIME_DAYS)?;
    certificate.save(home)?;
    Ok(Some(certificate.facts()?))
}

fn show(principal: &Principal, output: &Output) -> Result<(), Failure> {
    output.result(&value(principal), || lines(std::slice::from_ref(principal)))
}

fn certified_value(name: &str, out: &Path, facts: &CertificateFacts) -> Value {
    let key: String = facts.key.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "name": name,
        "directory": out.display().to_string(),
        "key_sha256": key,
        "serial": serial(facts.note),
        "expires_ms": facts.note.expires_ms,
    })
}

/// How a certificate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Valid,
    EndsSoon,
    Expired,
}

fn state_of(note: CertificateNote, soon_days: u64) -> State {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let now = time::now_ms();
    match note.expires_ms {
        0 => State::Valid,
        end if end <= now => State::Expired,
        end if end <= now + soon_days * DAY_MS => State::EndsSoon,
        _ => State::Valid,
    }
}

fn state(principal: &Principal) -> &'static str {
    match state_of(principal.spec.certificate, 30) {
        _ if principal.revoked => "revoked",
        State::Expired => "expired",
        State::EndsSoon => "expires soon",
        State::Valid => "active",
    }
}

fn value(principal: &Principal) -> Value {
    let spec = &principal.spec;
    let key: String = spec.key.iter().map(|byte| format!("{byte:02x}")).collect();
    let products: Vec<u32> = spec.products.iter().map(|product| product.0).collect();
    json!({
        "id": principal.id.0,
        "name": spec.name,
        "role": spec.role.name(),
        "tenant": spec.tenant.0,
        "merchant": spec.merchant.0,
        "products": products,
        "misses_per_minute": spec.misses_per_minute,
        "store": spec.store,
        "classes": classes(spec.classes),
        "key_sha256": key,
        "serial": serial(spec.certificate),
        "expires_ms": spec.certificate.expires_ms,
        "state": state(principal),
        "revoked": principal.revoked,
    })
}

/// The numbers of the classes in a set of them.
fn classes(bits: u64) -> Vec<u32> {
    (0..64).filter(|class| bits >> class & 1 == 1).collect()
}

fn serial(note: CertificateNote) -> String {
    if note.serial == 0 { String::new() } else { format!("{:x}", note.serial) }
}

fn lines(principals: &[Principal]) -> String {
    let rows = principals.iter().map(|principal| {
        let spec = &principal.spec;
        let products: Vec<String> = spec.products.iter().map(ToString::to_string).collect();
        vec![
            principal.id.to_string(),
            spec.name.clone(),
            spec.role.name().to_owned(),
            spec.merchant.to_string(),
            if products.is_empty() { "all".to_owned() } else { products.join(" ") },
            state(principal).to_owned(),
            match spec.certificate.expires_ms {
                0 => String::new(),
                end => time::day(end),
            },
            serial(spec.certificate),
        ]
    });
    let header = ["ID", "NAME", "ROLE", "MERCHANT", "PRODUCTS", "STATE", "EXPIRES", "SERIAL"];
    table(&header, &[0, 3], rows)
}
