//! `kami principal`: who may connect, and as what.
//!
//! Adding one makes its key and certificate on this machine, signed by the store's authority, and tells
//! the server the public key. The directory that comes out of it is what that person or machine needs.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kami_engine::{MerchantId, Principal, PrincipalId, PrincipalSpec, Role, TenantId};
use kami_net::{Authority, Identity};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::Remote;

/// Add, list and revoke principals.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami principal add till-17 --role redeemer --merchant 3 --out till-17\n  kami principal list\n  kami principal revoke till-17"
)]
pub struct PrincipalCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make an identity and register it. Run again with the same directory, it registers what is there.
    Add {
        /// What it is called: 1 to 64 bytes, new.
        name: String,
        /// What it may do: admin, issuer, seller, redeemer, operator, finance or auditor.
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// Where its key and certificate go.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The merchant it redeems for.
        #[arg(long, value_name = "N", default_value_t = 0)]
        merchant: u32,
        /// Where the authority's key lies [default: `ca` beside the directory of --identity].
        #[arg(long, value_name = "DIR")]
        authority: Option<PathBuf>,
    },
    /// List the principals.
    List,
    /// Withdraw a principal for good and close its connections.
    Revoke {
        /// Its name or number.
        principal: String,
    },
}

fn parse_role(text: &str) -> Result<Role, String> {
    let names = Role::ALL.map(Role::name).join(", ");
    Role::ALL.into_iter().find(|role| role.name() == text).ok_or(format!("a role is one of {names}"))
}

pub async fn run(command: PrincipalCommand, output: &Output) -> Result<(), Failure> {
    let PrincipalCommand { remote, action } = command;
    match action {
        Action::Add { name, role, out, merchant, authority } => {
            let beside = || remote.identity.parent().unwrap_or(Path::new(".")).join("ca");
            let authority = authority.unwrap_or_else(beside);
            remote
                .talk(async |client| {
                    let identity = identity(&out, &authority, &name)?;
                    let key = identity.key_fingerprint()?;
                    let spec = PrincipalSpec {
                        name,
                        role,
                        tenant: TenantId(0),
                        merchant: MerchantId(merchant),
                        key,
                    };
                    let principal = client.principal_add(spec).await?.value;
                    show(&principal, output)
                })
                .await
        }
        Action::List => {
            remote
                .talk(async |client| {
                    let principals = client.principal_list().await?.value.rows;
                    let rows: Vec<Value> = principals.iter().map(value).collect();
                    output.result(&json!({ "principals": rows }), || lines(&principals))
                })
                .await
        }
        Action::Revoke { principal } => {
            remote
                .talk(async |client| {
                    let principals = client.principal_list().await?.value.rows;
                    let named =
                        principals.iter().find(|known| known.spec.name == principal).map(|known| known.id);
                    let numbered = || principal.parse().ok().map(PrincipalId);
                    let id = named.or_else(numbered).ok_or_else(|| {
                        Failure::refused(format!(
                            "there is no principal `{principal}`; `kami principal list` shows them"
                        ))
                    })?;
                    show(&client.principal_revoke(id).await?.value, output)
                })
                .await
        }
    }
}

/// The identity in `out`, or a new one there.
fn identity(out: &Path, authority: &Path, name: &str) -> Result<Identity, Failure> {
    if out.join("cert.pem").exists() {
        return Ok(Identity::load(out)?);
    }
    let authority = Authority::load(authority).map_err(|error| {
        Failure::environment(format!(
            "{}; --authority says where the store's `ca` directory is",
            crate::exit::sentence(&error)
        ))
    })?;
    let identity = authority.issue(name)?;
    identity.save(out)?;
    Ok(identity)
}

fn show(principal: &Principal, output: &Output) -> Result<(), Failure> {
    output.result(&value(principal), || lines(std::slice::from_ref(principal)))
}

fn value(principal: &Principal) -> Value {
    let key: String = principal.spec.key.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "id": principal.id.0,
        "name": principal.spec.name,
        "role": principal.spec.role.name(),
        "merchant": principal.spec.merchant.0,
        "key_sha256": key,
        "revoked": principal.revoked,
    })
}

fn lines(principals: &[Principal]) -> String {
    let rows = principals.iter().map(|principal| {
        vec![
            principal.id.to_string(),
            principal.spec.name.clone(),
            principal.spec.role.name().to_owned(),
            principal.spec.merchant.to_string(),
            if principal.revoked { "revoked" } else { "" }.to_owned(),
        ]
    });
    table(&["ID", "NAME", "ROLE", "MERCHANT", ""], &[0, 3], rows)
}
