//! Certificates of people and tills: for whose key, with which number, until when.
//!
//! A certificate says nothing of rights; it is the proof that a key was let in, for a time. It is issued for
//! a public key, which may be all that ever left the till: by a signing request (PKCS#10), or by the
//! certificate that is to be renewed. Names, addresses and uses that a request asks for are not read: what a
//! certificate says is the authority's to say.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use kami_engine::CertificateNote;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use crate::error::IdentityError;
use crate::tls::{self, Authority, CA_FILE, CERTIFICATE_FILE};

/// How many days a certificate is valid unless told otherwise.
pub const LIFETIME_DAYS: u32 = 365;
/// The longest lifetime. Revocation does not wait for it; it bounds how long a forgotten key is let in.
pub const LIFETIME_DAYS_MAX: u32 = 825;

/// A till's clock may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A public key that a certificate is issued for.
#[derive(Debug)]
pub struct SubjectKey {
    key: SubjectPublicKeyInfo,
    /// DER.
    info: Vec<u8>,
}

impl SubjectKey {
    /// The key of a signing request (PEM), which proves by its signature that its sender holds the private
    /// key.
    ///
    /// # Errors
    /// If it is no signing request, its signature is wrong, or its key is of a kind that is not served
    /// (served are ECDSA P-256 and P-384, Ed25519 and RSA).
    pub fn from_request(pem: &str) -> Result<SubjectKey, IdentityError> {
        let unusable = || IdentityError::Unusable { what: "signing request" };
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
        // Checks the signature.
        CertificateSigningRequestParams::from_der(&der).map_err(|_| unusable())?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unusable())?;
        SubjectKey::from_info(request.certification_request_info.subject_pki.raw, "signing request")
    }

    /// The key of a certificate (PEM).
    ///
    /// # Errors
    /// If it is no certificate, or its key is of a kind that is not served.
    pub fn from_certificate(pem: &str) -> Result<SubjectKey, IdentityError> {
        let der = tls::der(pem, CERTIFICATE_FILE)?;
        let unusable = |_| IdentityError::Unusable { what: CERTIFICATE_FILE };
        let (_, certificate) = X509Certificate::from_der(&der).map_err(unusable)?;
        SubjectKey::from_info(certificate.public_key().raw, CERTIFICATE_FILE)
    }

    fn from_info(info: &[u8], what: &'static str) -> Result<SubjectKey, IdentityError> {
        let key = SubjectPublicKeyInfo::from_der(info).map_err(|_| IdentityError::Unusable { what })?;
        // A key that would come out other than it went in would be a certificate for nobody.
        if key.subject_public_key_info() != info {
            return Err(IdentityError::Unusable { what });
        }
        Ok(SubjectKey { key, info: info.to_vec() })
    }

    /// SHA-256 of the public key: what the engine knows a principal by.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &self.info).as_ref());
        fingerprint
    }
}

/// A certificate and the authority that signed it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM, as the other.
    pub(crate) authority: String,
    pub(crate) pem: String,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it was issued to: for people.
    pub name: String,
    /// Serial number and end.
    pub note: CertificateNote,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
}

impl CertificateFacts {
    pub(crate) fn of(der: &[u8]) -> Option<CertificateFacts> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = certificate.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        let serial = certificate.raw_serial();
        let serial = serial.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let key = digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref().try_into().ok()?;
        Some(CertificateFacts { name, note: CertificateNote { serial, expires_ms: end * 1000 }, key })
    }
}

impl Certificate {
    /// What it says.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn facts(&self) -> Result<CertificateFacts, IdentityError> {
        let unusable = IdentityError::Unusable { what: CERTIFICATE_FILE };
        CertificateFacts::of(&tls::der(&self.pem, CERTIFICATE_FILE)?).ok_or(unusable)
    }

    /// The key it was issued for.
    ///
    /// # Errors
    /// As [`SubjectKey::from_certificate`].
    pub fn subject_key(&self) -> Result<SubjectKey, IdentityError> {
        SubjectKey::from_certificate(&self.pem)
    }

    /// Reads the certificate in `dir`.
    ///
    /// # Errors
    /// If a file is missing.
    pub fn load(dir: &Path) -> Result<Certificate, IdentityError> {
        let read = |file| tls::read(&dir.join(file));
        Ok(Certificate { authority: read(CA_FILE)?, pem: read(CERTIFICATE_FILE)? })
    }

    /// Writes it to `dir`, over the one it renews; a key that lies there is left alone. Each file appears
    /// as a whole.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        tls::create_dir(dir)?;
        for (file, text) in [(CA_FILE, &self.authority), (CERTIFICATE_FILE, &self.pem)] {
            let path = dir.join(file);
            let new = path.with_extension("pem.new");
            let failed = |source| tls::file_error(&path, source);
            match fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            tls::write_new(&new, text.as_bytes(), 0o644)?;
            fs::rename(&new, &path).map_err(failed)?;
        }
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| tls::file_error(dir, source))
    }
}

impl Authority {
    /// Certifies a client's key for so many days, at most [`LIFETIME_DAYS_MAX`]. The name is for people.
    ///
    /// # Errors
    /// If the lifetime is out of range, or the system gives no randomness.
    pub fn certify(&self, name: &str, key: &SubjectKey, days: u32) -> Result<Certificate, IdentityError> {
        self.certify_key(name, &key.key, days)
    }

    pub(crate) fn certify_key(
        &self,
        name: &str,
        key: &impl PublicKeyData,
        days: u32,
    ) -> Result<Certificate, IdentityError> {
        if !(1..=LIFETIME_DAYS_MAX).contains(&days) {
            return Err(IdentityError::Lifetime { days });
        }
        let unusable = || IdentityError::Unusable { what: "new certificate" };
        let now = now();
        let mut params = CertificateParams::default();
        params.distinguished_name = tls::name(name);
        params.not_before = second(now - CLOCK_SKEW).ok_or_else(unusable)?;
        params.not_after = second(now + DAY * days).ok_or_else(unusable)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial().ok_or_else(unusable)?));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(key, self.issuer()).map_err(|_| unusable())?;
        Ok(Certificate { authority: self.certificate().to_owned(), pem: certificate.pem() })
    }
}

/// Certificates begin and end by the wall clock, as everybody's do.
#[allow(clippy::disallowed_methods, reason = "not a decision about cards")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A time in whole seconds, as certificates have it.
fn second(time: SystemTime) -> Option<OffsetDateTime> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

/// A new serial number: 16 bytes of a positive number.
fn serial() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    // The first bit clear and the next one set: positive, and never shorter.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Some(bytes)
}

/// A day as people write it, `2026-11-22`, of a time in milliseconds since 1970.
pub(crate) fn day(ms: u64) -> String {
    let time = i64::try_from(ms / 1000).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.map_or_else(|| "?".to_owned(), |time| time.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Identity;
    use rcgen::KeyPair;

    fn authority() -> Authority {
        Authority::create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    #[test]
    fn a_key_that_never_left_its_till_is_certified() {
        let authority = authority();
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let mut asked = CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
            asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let request = asked.serialize_request(&pair).unwrap().pem().unwrap();
            let key = SubjectKey::from_request(&request).unwrap();
            let certificate = authority.certify("till-17", &key, 30).unwrap();
            let facts = certificate.facts().unwrap();
            assert_eq!((facts.name.as_str(), facts.key), ("till-17", key.fingerprint()));
            assert_ne!(facts.note.serial, 0);
            let days = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
            assert_eq!(facts.note.expires_ms / 86_400_000, days(now()) + 30);
            // What the request asked for is not in it, and the name in it is ours.
            let der = tls::der(&certificate.pem, "").unwrap();
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            assert!(parsed.subject_alternative_name().unwrap().is_none());
            assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
            // Renewed: the same key, another number.
            let again = SubjectKey::from_certificate(&certificate.pem).unwrap();
            let renewed = authority.certify("till-17", &again, 60).unwrap().facts().unwrap();
            assert_eq!(renewed.key, facts.key);
            assert_ne!(renewed.note.serial, facts.note.serial);
        }
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let pair = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&pair).unwrap();
        let mut der = request.der().to_vec();
        let at = der.len() / 2;
        der[at] ^= 1;
        let text: String = der.iter().map(|byte| *byte as char).collect();
        assert!(SubjectKey::from_request(&text).is_err());
        let pem = request.pem().unwrap();
        // One character of the signature.
        let mut lines: Vec<String> = pem.lines().map(str::to_owned).collect();
        let last = lines.len() - 2;
        let flipped = if lines[last].starts_with('A') { "B" } else { "A" };
        lines[last].replace_range(..1, flipped);
        assert!(SubjectKey::from_request(&lines.join("\n")).is_err());
        assert!(SubjectKey::from_request(&pem).is_ok());
        assert!(SubjectKey::from_request("").is_err());
    }

    #[test]
    fn lifetimes_are_bounded() {
        let authority = authority();
        for days in [0, LIFETIME_DAYS_MAX + 1] {
            let refused = authority.issue_for_days("x", days);
            assert!(matches!(refused, Err(IdentityError::Lifetime { .. })), "{refused:?}");
        }
        authority.issue_for_days("x", LIFETIME_DAYS_MAX).unwrap();
    }

    #[test]
    fn a_renewal_leaves_the_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority();
        let first = authority.issue("till").unwrap();
        first.save(dir.path()).unwrap();
        let key = SubjectKey::from_certificate(&Certificate::load(dir.path()).unwrap().pem).unwrap();
        authority.certify("till", &key, 10).unwrap().save(dir.path()).unwrap();
        let renewed = Identity::load(dir.path()).unwrap();
        assert_eq!(renewed.key_fingerprint().unwrap(), first.key_fingerprint().unwrap());
        assert_ne!(renewed.certificate_facts().unwrap().note, first.certificate_facts().unwrap().note);
        renewed.client_config().unwrap();
    }

    #[test]
    fn days_are_written_out() {
        assert_eq!(day(1_795_348_800_000), "2026-11-22");
    }
}
