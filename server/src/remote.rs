//! Which server a command talks to, and as whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kami_engine::{CardKind, Grounds, Product, ProductId, ProposalId, TerminalId, WHY_BYTES_MAX};
use kami_net::{Client, ClientError, ClientOptions, Identity};

use crate::exit::{Exit, Failure};

/// Options of every command that talks to a server.
#[derive(Args)]
#[command(next_help_heading = "Server")]
pub struct Remote {
    /// Where the server listens.
    #[arg(long, global = true, env = "KAMI_SERVER", value_name = "ADDR", default_value = "127.0.0.1:7400")]
    server: String,
    /// Directory with ca.pem, cert.pem and key.pem; the default is the admin of `kami serve --data
    /// kami-data` started in the same directory.
    #[arg(
        long,
        global = true,
        env = "KAMI_IDENTITY",
        value_name = "DIR",
        default_value = "kami-data.keys/admin"
    )]
    pub identity: PathBuf,
    /// The name in the server's certificate, if it is not the host of --server.
    #[arg(long, global = true, value_name = "HOST")]
    server_name: Option<String>,
    /// How many seconds to try.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Remote {
    /// Connects, has something done, and closes the connection whatever came of it: a server that is
    /// told so does not wait for us when it is taken down.
    pub async fn talk<T>(&self, talk: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Result<T, Failure> {
        self.talk_at(TerminalId(0), talk).await
    }

    /// The same, with the grounds of what is changed.
    pub async fn talk_on<T>(
        &self,
        why: &Why,
        talk: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.talk(async |client| talk(&why.handle(client)).await).await
    }

    /// The same as a till.
    pub async fn talk_at<T>(
        &self,
        terminal: TerminalId,
        talk: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let client = self.connect(terminal).await?;
        let result = talk(&client).await;
        client.close().await;
        result
    }

    async fn connect(&self, terminal: TerminalId) -> Result<Client, Failure> {
        let identity = Identity::load(&self.identity)?;
        let (address, host) = self.resolve().await?;
        let options = ClientOptions {
            server_name: self.server_name.clone().unwrap_or(host),
            timeout: Duration::from_secs(self.timeout),
            terminal,
            ..ClientOptions::new(address, identity)
        };
        Ok(Client::connect(options).await?)
    }

    async fn resolve(&self) -> Result<(SocketAddr, String), Failure> {
        let wrong = || Failure::usage(format!("--server is HOST:PORT, not `{}`", self.server));
        let (host, _) = self.server.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found = tokio::net::lookup_host(&self.server).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(addresses) => addresses.collect(),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Err(wrong()),
            Err(error) => {
                let message = format!("the server's name cannot be looked up: {host}: {error}");
                return Err(Failure::new(Exit::Unreachable, message));
            }
        };
        // A name with both kinds of address: servers listen on IPv4 unless told otherwise.
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *address
            .ok_or_else(|| Failure::new(Exit::Unreachable, format!("the server has no address: {host}")))?;
        Ok((address, host))
    }
}

/// Why a change is made, which is kept with it.
#[derive(Args, Default)]
#[command(next_help_heading = "Grounds of a change")]
pub struct Why {
    /// Why the change is made, in at most 255 bytes; `kami history` and `kami changes` show it.
    #[arg(long, global = true, value_name = "TEXT", value_parser = parse_why)]
    why: Option<String>,
}

fn parse_why(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > WHY_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a reason is 1 to {WHY_BYTES_MAX} bytes, without line breaks"));
    }
    Ok(text.to_owned())
}

impl Why {
    /// Whether a reason was given.
    pub fn is_given(&self) -> bool {
        self.why.is_some()
    }

    /// A client that says so with every change, and under which proposal it is made.
    pub fn under(&self, client: &Client, proposal: Option<ProposalId>) -> Client {
        if proposal.is_none() {
            return self.handle(client);
        }
        let why = self.why.clone().unwrap_or_default();
        client.on_grounds(Grounds { why, approval: proposal, approver: None })
    }

    /// A client that says so with every change.
    pub fn handle(&self, client: &Client) -> Client {
        match &self.why {
            Some(why) => client.on_grounds(Grounds::because(why)),
            None => client.clone(),
        }
    }
}

/// The products, as far as the caller may read them.
pub struct Catalogue(Vec<Product>);

impl Catalogue {
    /// Asks for the products.
    pub async fn read(client: &Client) -> Result<Catalogue, Failure> {
        Ok(Catalogue(client.product_list().await?.value.rows))
    }

    /// Asks for the products; a caller who may not read them goes without names and currencies.
    pub async fn read_if_allowed(client: &Client) -> Result<Catalogue, Failure> {
        match client.product_list().await {
            Ok(products) => Ok(Catalogue(products.value.rows)),
            Err(ClientError::Refused { .. }) => Ok(Catalogue(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }

    /// The product with this name, or else with this number.
    pub fn find(&self, name: &str) -> Result<&Product, Failure> {
        let by_name = self.0.iter().find(|product| product.spec.name == name);
        let by_number = || {
            let id: u32 = name.parse().ok()?;
            self.get(ProductId(id))
        };
        by_name.or_else(by_number).ok_or_else(|| Failure {
            status: Some(kami_engine::Status::NotFound),
            ..Failure::refused(format!("there is no product `{name}`; `kami product list` shows them"))
        })
    }

    pub fn get(&self, id: ProductId) -> Option<&Product> {
        self.0.iter().find(|product| product.id == id)
    }

    /// What to call a product.
    pub fn name(&self, id: ProductId) -> String {
        self.get(id).map_or_else(|| format!("#{id}"), |product| product.spec.name.clone())
    }

    /// An amount of a product's currency.
    pub fn amount(&self, id: ProductId, money: kami_engine::Money) -> String {
        match self.get(id) {
            Some(product) => crate::money::show_with(money, product.spec.currency),
            None => format!("{money} minor units"),
        }
    }

    /// What is on a card of a product or moved of it: an amount, or uses.
    pub fn worth(&self, id: ProductId, value: kami_engine::Money) -> String {
        match self.get(id) {
            Some(product) if matches!(product.spec.kind, CardKind::MultiUse | CardKind::Shared) => {
                format!("{value} {}", if value == 1 { "use" } else { "uses" })
            }
            _ => self.amount(id, value),
        }
    }

    pub fn all(&self) -> &[Product] {
        &self.0
    }
}
