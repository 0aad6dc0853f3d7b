//! A store, a server and whoever wants in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kami_engine::{
    Caller, CardKind, ChannelId, Command, Engine, EngineOptions, ImportSpec, MerchantId, OrderId,
    PrincipalSpec, ProductId, ProductSpec, Reply, Request, RequestId, Role, Status, SystemClock, TenantId,
    TerminalId, Work,
};
use kami_net::client::{ChannelSender, Row, RowList};
use kami_net::frame::request::Redeem;
use kami_net::frame::{self, Opcode, RequestHead, Secret};
use kami_net::{Authority, Client, ClientOptions, Identity, Server, ServerError, ServerOptions};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub struct House {
    dir: tempfile::TempDir,
    pub authority: Authority,
    pub engine: Engine,
    pub disk: SimMedium,
    pub server: Server,
    pub serving: JoinHandle<Result<(), ServerError>>,
    pub admin: Identity,
}

impl House {
    pub async fn open() -> House {
        House::with(Drive::Threads, |_| ()).await
    }

    pub async fn with(drive: Drive, set: impl FnOnce(&mut ServerOptions)) -> House {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca")).unwrap();
        let disk = SimMedium::new(7, SimMode::Direct);
        let options = EngineOptions {
            data: Arc::new(disk.clone()),
            keys: Arc::new(SimMedium::new(8, SimMode::Direct)),
            wal: WalOptions { segment_bytes: 4 << 20, drive, ..WalOptions::default() },
            clock: Box::new(SystemClock::new().unwrap()),
            accept_clock: false,
        };
        let engine = Engine::open(options).unwrap();
        let admin = authority.issue("admin").unwrap();
        let mut options =
            ServerOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), authority.issue_server(&[]).unwrap());
        set(&mut options);
        let server = Server::bind(engine.clone(), options).unwrap();
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve().await }
        });
        let house = House { dir, authority, engine, disk, server, serving, admin };
        house.enrol("admin", Role::Admin, &house.admin);
        house
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An identity whose certificate ends then.
    pub fn identity_until(&self, name: &str, end: time::OffsetDateTime) -> Identity {
        let ca = |file: &str| std::fs::read_to_string(self.dir().join("ca").join(file)).unwrap();
        let signer = rcgen::KeyPair::from_pem(&ca("ca-key.pem")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&ca("ca.pem"), signer).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_after = end;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let home = self.dir().join(format!("until-{name}"));
        self.authority.issue(name).unwrap().save(&home).unwrap();
        std::fs::write(home.join("cert.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(home.join("key.pem"), key.serialize_pem()).unwrap();
        Identity::load(&home).unwrap()
    }

    /// Makes an identity known to the engine.
    pub fn enrol(&self, name: &str, role: Role, identity: &Identity) {
        let key = identity.key_fingerprint().unwrap();
        self.enrol_as(PrincipalSpec { merchant: MerchantId(1), ..PrincipalSpec::of(name, role, key) });
    }

    pub fn enrol_as(&self, spec: PrincipalSpec) {
        let reply = self.ask(Command::PrincipalAdd(Box::new(spec)));
        assert!(reply.status.is_done(), "{reply:?}");
    }

    /// Asks the engine itself.
    pub fn ask(&self, command: Command) -> Reply {
        ask_by(&self.engine, Caller::LOCAL, command)
    }

    pub fn options(&self, identity: &Identity) -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(10),
            ..ClientOptions::new(self.server.local_addr().unwrap(), identity.clone())
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options(&self.admin)).await.unwrap()
    }

    pub async fn client_as(&self, name: &str, role: Role) -> Client {
        self.client_as_with(name, role, |_| ()).await
    }

    pub async fn client_as_with(
        &self,
        name: &str,
        role: Role,
        set: impl FnOnce(&mut ClientOptions),
    ) -> Client {
        let identity = self.authority.issue(name).unwrap();
        self.enrol(name, role, &identity);
        let mut options = self.options(&identity);
        set(&mut options);
        Client::connect(options).await.unwrap()
    }

    pub async fn shut_down(self) {
        self.server.shutdown();
        self.serving.await.unwrap().unwrap();
    }
}

/// Commits by hand until dropped.
pub struct Committer(JoinHandle<()>);

impl Committer {
    pub fn start(house: &House) -> Committer {
        let engine = house.engine.clone();
        Committer(tokio::spawn(async move {
            loop {
                engine.drive().unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        }))
    }

    pub async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// Asks an engine in somebody's name.
pub fn ask_by(engine: &Engine, caller: Caller, command: Command) -> Reply {
    let mut work = Work::default();
    work.requests.push(Request {
        id: RequestId::random(),
        caller,
        terminal: TerminalId(0),
        channel: ChannelId(0),
        deadline: None,
        grounds: None,
        command,
    });
    engine.execute(&mut work);
    work.replies.pop().unwrap()
}

/// A redemption of a code, to go with the next flush.
pub fn push_redeem(sender: &mut ChannelSender, code: &[u8]) {
    let body = frame::Request::Redeem(Redeem { amount: 0, code: Secret(code), pin: None });
    sender.push(&RequestHead::new(Opcode::Redeem, RequestId::random()), &body).unwrap();
}

pub fn code(n: usize) -> Vec<u8> {
    format!("KAMI-{n:08}").into_bytes()
}

/// Imports `count` cards of a new product.
pub async fn stock(client: &Client, product: &str, count: usize) -> ProductId {
    let product = client.product_add(ProductSpec::single(product, *b"CNY", 2000)).await.unwrap().value.id;
    import(client, product, 0, count).await;
    product
}

pub async fn import(client: &Client, product: ProductId, from: usize, count: usize) {
    import_codes(client, product, (from..from + count).map(code).collect()).await;
}

pub async fn import_codes(client: &Client, product: ProductId, codes: Vec<Vec<u8>>) {
    let count = codes.len();
    let rows: Vec<Row> = codes.into_iter().map(|code| Row { code: code.into(), ..Row::default() }).collect();
    let longest = rows.iter().map(|row| row.code.len()).max().unwrap_or(0);
    let spec = ImportSpec::of(product, count as u64, longest.max(16) as u8);
    let mut last = 0;
    let batch = client
        .import(RequestId::random(), &spec, &mut RowList::new(&rows), |report| last = report.rows)
        .await
        .unwrap()
        .value;
    assert_eq!(last, count as u64);
    assert_eq!(batch.counts[0], count as u64);
}

/// Imports and sells `count` cards; returns their codes in order of sale.
pub async fn sold(client: &Client, count: usize) -> Vec<Vec<u8>> {
    let product = stock(client, "coffee", count).await;
    let order = client.sell(OrderId(1), product, count as u32, Default::default()).await.unwrap();
    order.value.cards.iter().map(|card| card.code.to_vec()).collect()
}

/// A card whose value moved `times` times.
pub async fn much_used(house: &House, client: &Client, times: usize) -> Vec<u8> {
    let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
    spec.kind = CardKind::StoredValue;
    let product = client.product_add(spec).await.unwrap().value.id;
    import(client, product, 5000, 1).await;
    client.sell(OrderId(77), product, 1, Default::default()).await.unwrap();
    let card = house.engine.digest(TenantId(0), &code(5000)).unwrap();
    for _ in 0..times {
        let redeemed = house.ask(Command::Redeem { card, pin: None, amount: 1, partial: false });
        assert_eq!(redeemed.status, Status::Ok);
    }
    code(5000)
}
