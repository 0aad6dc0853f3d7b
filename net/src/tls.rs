//! Who is who: a small certificate authority of the store's own, and TLS as both sides use it.
//!
//! Every peer shows a certificate from the store's authority. What a peer may do does not stand in
//! the certificate: the SHA-256 of its public key names a principal in the engine, and without one
//! there, or with a revoked one, a valid certificate opens nothing. So revocation needs no lists.
//!
//! * TLS 1.3 only, by aws-lc; AES-GCM first because it is the faster one on servers.
//! * 0-RTT is off on both sides, and so are session tickets, which it would need: data sent with
//!   0-RTT can be replayed by anyone who saw it.
//! * Certificates say whether they are a server's or a client's; one does not pass for the other.
//! * No key logging.
//! * A server's certificate may end, and the running server changes it for a new one: whoever connects
//!   from then on is shown the new one, and connections that exist go on.
//!
//! On disk an identity is a directory with `ca.pem`, `cert.pem` and `key.pem`; the authority's has
//! `ca.pem` and `ca-key.pem`. Keys are created 0600 and refused if others may read them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::{digest, hkdf, hmac};
use kami_engine::planted;
use parking_lot::RwLock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, CertificateFacts, LIFETIME_DAYS};
use crate::error::IdentityError;
use crate::frame::ALPN;

pub(crate) const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
pub(crate) const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

/// From when to when a certificate is valid, in milliseconds since 1970; whole seconds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment; 0 is 1970 or before.
    pub from_ms: u64,
    /// The last.
    pub until_ms: u64,
}

/// The store's certificate authority.
pub struct Authority {
    /// PEM.
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority and writes it to `dir`, which must not hold one.
    ///
    /// # Errors
    /// If a file exists or cannot be written.
    pub fn create(dir: &Path) -> Result<Authority, IdentityError> {
        Authority::create_with(dir, None)
    }

    /// The same with an end, after which nothing it issued is accepted any more.
    ///
    /// # Errors
    /// As [`Authority::create`]; if a date cannot stand in a certificate.
    pub fn create_within(dir: &Path, validity: Validity) -> Result<Authority, IdentityError> {
        Authority::create_with(dir, Some(validity))
    }

    fn create_with(dir: &Path, validity: Option<Validity>) -> Result<Authority, IdentityError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        limit(&mut params, validity)?;
        params.distinguished_name = name("Kami authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate =
            params.self_signed(&key).map_err(|_| IdentityError::Unusable { what: "new authority" })?;
        create_dir(dir)?;
        // The key first: a certificate without its key would look like a finished authority.
        write_new(&dir.join(CA_KEY_FILE), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        write_new(&dir.join(CA_FILE), certificate.pem().as_bytes(), 0o644)?;
        Ok(Authority { certificate: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// Reads the authority in `dir`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or the key may be read by others.
    pub fn load(dir: &Path) -> Result<Authority, IdentityError> {
        let certificate = read(&dir.join(CA_FILE))?;
        let pem = read_key(&dir.join(CA_KEY_FILE))?;
        let key = KeyPair::from_pem(&pem).map_err(|_| IdentityError::Unusable { what: CA_KEY_FILE })?;
        let issuer = Issuer::from_ca_cert_der(&der(&certificate, CA_FILE)?, key)
            .map_err(|_| IdentityError::Unusable { what: CA_FILE })?;
        Ok(Authority { certificate, issuer })
    }

    /// Issues an identity for a client, for [`LIFETIME_DAYS`]. Its name is for people; its key is what
    /// counts.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn issue(&self, name: &str) -> Result<Identity, IdentityError> {
        self.issue_for_days(name, LIFETIME_DAYS)
    }

    /// The same for so many days.
    ///
    /// # Errors
    /// As [`Authority::certify`].
    pub fn issue_for_days(&self, name: &str, days: u32) -> Result<Identity, IdentityError> {
        let key = new_key()?;
        let Certificate { authority, pem } = self.certify_key(name, &key, days)?;
        Ok(Identity { authority, certificate: pem, key: Zeroizing::new(key.serialize_pem()) })
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    pub(crate) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Issues the identity of a server that is reached under these names or addresses; without any,
    /// under `localhost` and its addresses. It does not end.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, or the system gives no randomness.
    pub fn issue_server(&self, names: &[String]) -> Result<Identity, IdentityError> {
        self.issue_server_with(names, None, new_key()?)
    }

    /// The same with an end. With the identity that it follows the key stays: a restarted server is then
    /// still the same one to its peers.
    ///
    /// # Errors
    /// As [`Authority::issue_server`]; if a date cannot stand in a certificate.
    pub fn issue_server_within(
        &self,
        names: &[String],
        validity: Validity,
        follows: Option<&Identity>,
    ) -> Result<Identity, IdentityError> {
        let key = match follows {
            Some(identity) => {
                KeyPair::from_pem(&identity.key).map_err(|_| IdentityError::Unusable { what: KEY_FILE })?
            }
            None => new_key()?,
        };
        self.issue_server_with(names, Some(validity), key)
    }

    fn issue_server_with(
        &self,
        names: &[String],
        validity: Option<Validity>,
        key: KeyPair,
    ) -> Result<Identity, IdentityError> {
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let names = if names.is_empty() { &local } else { names };
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Kami server");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        limit(&mut params, validity)?;
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    name.as_str().try_into().map_err(|_| IdentityError::Unusable { what: "server name" })?,
                ),
            });
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|_| IdentityError::Unusable { what: "new certificate" })?;
        Ok(Identity {
            authority: self.certificate.clone(),
            certificate: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// A key, its certificate, and the authority that both sides trust.
#[derive(Clone)]
pub struct Identity {
    /// PEM, like the other two.
    authority: String,
    certificate: String,
    key: Zeroizing<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// Writes the identity to `dir`, which must not hold one.
    ///
    /// # Errors
    /// If a file exists or cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        create_dir(dir)?;
        write_new(&dir.join(KEY_FILE), self.key.as_bytes(), 0o600)?;
        write_new(&dir.join(CERTIFICATE_FILE), self.certificate.as_bytes(), 0o644)?;
        write_new(&dir.join(CA_FILE), self.authority.as_bytes(), 0o644)
    }

    /// Reads the identity in `dir`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or the key may be read by others.
    pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
        let key = read_key(&dir.join(KEY_FILE))?;
        let identity = Identity {
            authority: read(&dir.join(CA_FILE))?,
            certificate: read(&dir.join(CERTIFICATE_FILE))?,
            key,
        };
        identity.key_fingerprint()?;
        Ok(identity)
    }

    /// SHA-256 of the public key (DER `SubjectPublicKeyInfo`): what the engine knows a principal by.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub fn key_fingerprint(&self) -> Result<[u8; 32], IdentityError> {
        key_fingerprint(&self.certificate()?).ok_or(IdentityError::Unusable { what: CERTIFICATE_FILE })
    }

    /// What its certificate says.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn certificate_facts(&self) -> Result<CertificateFacts, IdentityError> {
        let unusable = IdentityError::Unusable { what: CERTIFICATE_FILE };
        CertificateFacts::of(&self.certificate()?).ok_or(unusable)
    }

    /// When the certificate begins and ends.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        validity(&self.certificate()?, CERTIFICATE_FILE)
    }

    /// When the authority that both sides trust begins and ends.
    ///
    /// # Errors
    /// If its certificate cannot be read.
    pub fn authority_validity(&self) -> Result<Validity, IdentityError> {
        validity(&der(&self.authority, CA_FILE)?, CA_FILE)
    }

    /// Whether this is the same certificate of the same authority.
    #[must_use]
    pub fn is_same(&self, other: &Identity) -> bool {
        self.certificate == other.certificate && self.authority == other.authority
    }

    /// The certificate and its key, as a handshake uses them.
    fn certified(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        let chain = vec![self.certificate()?];
        let certified = CertifiedKey::from_der(chain, self.private_key()?, &crypto_provider());
        certified.map(Arc::new).map_err(IdentityError::Tls)
    }

    /// TLS for a server that demands a client certificate of the same authority. What it shows of itself
    /// can be changed while it runs.
    pub(crate) fn server_config(&self) -> Result<(QuicServerConfig, Arc<Shown>), IdentityError> {
        let shown = Arc::new(Shown(RwLock::new(self.certified()?)));
        let provider = Arc::new(crypto_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                .build()
                .map_err(|_| IdentityError::Unusable { what: CA_FILE })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        if planted("accept-0rtt") {
            (config.max_early_data_size, config.send_tls13_tickets) = (u32::MAX, 2);
        }
        config.ignore_client_order = true;
        let config = QuicServerConfig::try_from(config)
            .map_err(|_| IdentityError::Unusable { what: "cipher suites" })?;
        Ok((config, shown))
    }

    /// TLS for a client that trusts this authority alone.
    pub(crate) fn client_config(&self) -> Result<QuicClientConfig, IdentityError> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(vec![self.certificate()?], self.private_key()?)
            .map_err(IdentityError::Tls)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = false;
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|_| IdentityError::Unusable { what: "cipher suites" })
    }

    /// Keys that make a restarted server the same one to its peers.
    pub(crate) fn transport_keys(&self) -> Result<TransportKeys, IdentityError> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"kami/1 transport keys");
        let secret = self.private_key()?;
        let root = salt.extract(secret.secret_der());
        let derive = |purpose: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            let unusable = |_| IdentityError::Unusable { what: KEY_FILE };
            root.expand(&[purpose], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut key[..]))
                .map_err(unusable)?;
            Ok::<_, IdentityError>(key)
        };
        let mut connection_id = [0; 8];
        connection_id.copy_from_slice(&derive(b"connection id")?[..8]);
        Ok(TransportKeys {
            reset: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"stateless reset")?[..]),
            token: hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&derive(b"retry token")?[..]),
            connection_id: u64::from_le_bytes(connection_id),
        })
    }

    fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.authority, CA_FILE)?).map_err(IdentityError::Tls)?;
        Ok(roots)
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, IdentityError> {
        der(&self.certificate, CERTIFICATE_FILE)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| IdentityError::Unusable { what: KEY_FILE })
    }
}

/// The certificate that a running server shows. Its lock is held for the copy of a pointer.
#[derive(Debug)]
pub(crate) struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Shows another one from now on.
    ///
    /// # Errors
    /// If it is not of the authority of `present`: peers that trust that one would be shut out, and theirs
    /// be refused.
    pub(crate) fn change(&self, present: &Identity, new: &Identity) -> Result<(), IdentityError> {
        if der(&present.authority, CA_FILE)? != der(&new.authority, CA_FILE)? {
            return Err(IdentityError::OtherAuthority);
        }
        *self.0.write() = new.certified()?;
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// Keys of QUIC itself, derived from the server's private key. A restarted server so recognises the
/// connection ids of its predecessor and answers them with stateless resets: its clients learn at
/// once that they must connect again, instead of waiting out the idle time.
pub(crate) struct TransportKeys {
    pub(crate) reset: hmac::Key,
    pub(crate) token: hkdf::Prk,
    pub(crate) connection_id: u64,
}

/// SHA-256 of a certificate's public key (DER `SubjectPublicKeyInfo`); `None` if it cannot be read.
#[must_use]
pub fn key_fingerprint(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let key = parsed.subject_public_key_info();
    digest::digest(&digest::SHA256, key.as_ref()).as_ref().try_into().ok()
}

fn validity(certificate: &CertificateDer<'_>, file: &'static str) -> Result<Validity, IdentityError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| IdentityError::Unusable { what: file })?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1000;
    let validity = parsed.validity();
    Ok(Validity {
        from_ms: ms(validity.not_before.timestamp()),
        until_ms: ms(validity.not_after.timestamp()),
    })
}

/// Without a validity, a certificate does not end.
fn limit(params: &mut CertificateParams, validity: Option<Validity>) -> Result<(), IdentityError> {
    if let Some(Validity { from_ms, until_ms }) = validity {
        let date = |ms: u64| {
            OffsetDateTime::from_unix_timestamp((ms / 1000).cast_signed())
                .map_err(|_| IdentityError::Unusable { what: "end of validity" })
        };
        (params.not_before, params.not_after) = (date(from_ms)?, date(until_ms)?);
    }
    Ok(())
}

fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(|_| IdentityError::Unusable { what: "new key" })
}

fn crypto_provider() -> CryptoProvider {
    use provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    }
}

pub(crate) fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), IdentityError> {
    fs::create_dir_all(dir).map_err(|source| file_error(dir, source))
}

/// Creates a file that must not exist, with its permissions from the first moment on, and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    result.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.to_owned() },
        _ => file_error(path, source),
    })
}

pub(crate) fn der(pem: &str, file: &'static str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Unusable { what: file })
}

pub(crate) fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn read_key(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    check_private(path)?;
    read(path).map(Zeroizing::new)
}

/// Refuses a key file that others than its owner may read or write.
///
/// # Errors
/// If they may, or it is not there.
pub fn check_private(path: &Path) -> Result<(), IdentityError> {
    let metadata = fs::metadata(path).map_err(|source| file_error(path, source))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned() });
    }
    Ok(())
}

pub(crate) fn file_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { path: PathBuf::from(path), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca")).unwrap();
        let till = authority.issue("till-17").unwrap();
        till.save(&dir.path().join("till")).unwrap();
        let read = Identity::load(&dir.path().join("till")).unwrap();
        assert_eq!(read.key_fingerprint().unwrap(), till.key_fingerprint().unwrap());
        assert_eq!(read.authority, till.authority);
        // The reloaded authority signs what the first one's peers accept.
        let again = Authority::load(&dir.path().join("ca")).unwrap();
        assert_eq!(again.issue("x").unwrap().authority, till.authority);
        read.client_config().unwrap();
        authority.issue_server(&[]).unwrap().server_config().unwrap();
    }

    #[test]
    fn the_fingerprint_is_that_of_the_whole_public_key_info() {
        use rcgen::PublicKeyData;
        let dir = tempfile::tempdir().unwrap();
        let identity = Authority::create(dir.path()).unwrap().issue("x").unwrap();
        let key = KeyPair::from_pem(&identity.key).unwrap();
        let expected = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        assert_eq!(identity.key_fingerprint().unwrap(), expected.as_ref());
    }

    #[test]
    fn an_identity_is_never_overwritten_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        assert!(matches!(Authority::create(dir.path()), Err(IdentityError::Exists { .. })));
        let home = dir.path().join("a");
        authority.issue("a").unwrap().save(&home).unwrap();
        assert!(matches!(authority.issue("a").unwrap().save(&home), Err(IdentityError::Exists { .. })));
        let key = home.join(KEY_FILE);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load(&home), Err(IdentityError::Exposed { .. })));
    }

    #[test]
    fn transport_keys_are_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Authority::create(dir.path()).unwrap().issue_server(&[]).unwrap();
        let sign = |identity: &Identity| {
            hmac::sign(&identity.transport_keys().unwrap().reset, b"x").as_ref().to_vec()
        };
        identity.save(&dir.path().join("s")).unwrap();
        assert_eq!(sign(&identity), sign(&Identity::load(&dir.path().join("s")).unwrap()));
        assert_ne!(sign(&identity), sign(&Authority::load(dir.path()).unwrap().issue_server(&[]).unwrap()));
    }
}
