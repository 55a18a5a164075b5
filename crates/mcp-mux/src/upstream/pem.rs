//! PEM: private keys that sign, and certificates with their private key. What is wrong is said without a byte of the text.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret as _, SecretString};

const NO_KEY: &str = "must hold one private key as PEM, not encrypted (`-----BEGIN PRIVATE KEY-----`)";
const NO_SIGNING_KEY: &str = "must be a private key of RSA with at least 2048 bits, or of the curve P-256";
const NO_CERTIFICATE: &str =
    "must hold the certificate as PEM (`-----BEGIN CERTIFICATE-----`), before or behind its key";
const NO_PAIR: &str = "must hold a certificate and the private key that belongs to it";
const NO_CA: &str = "must be certificates as PEM (`-----BEGIN CERTIFICATE-----`)";

/// Most certificates in one chain or list.
const CERTIFICATES_MAX: usize = 100;

/// A private key that signs client assertions.
pub(super) enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl SigningKey {
    /// The one key in `pem`, or what it must be.
    pub(super) fn parse(pem: &SecretString) -> Result<Self, &'static str> {
        let key = one_key(pem)?;
        let rsa = match &key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            _ => None,
        };
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = match &key {
            PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(curve, der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok(),
            _ => None,
        };
        let rsa = rsa.filter(|key| key.public_modulus_len() >= KeySize::Rsa2048.len());
        rsa.map(|key| Self::Rsa(Box::new(key))).or(ec.map(|key| Self::Ec(Box::new(key)))).ok_or(NO_SIGNING_KEY)
    }

    /// What the signature is called in a JWT's header.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    /// The signature of `message`; none if the machine gives no random numbers.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::Ec(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.algorithm()).finish()
    }
}

/// Checks that `pem` holds certificates and the private key that belongs to the first of them.
pub(super) fn check_pair(pem: &SecretString) -> Result<(), &'static str> {
    let key = one_key(pem)?;
    let chain = certificates(pem.expose_secret()).ok_or(NO_CERTIFICATE)?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|_| NO_PAIR)?;
    // Nothing else is in the file that somebody could take for a part of it.
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.expose_secret().as_bytes()) {
        let (kind, _) = section.map_err(|_| NO_PAIR)?;
        if !matches!(
            kind,
            SectionKind::Certificate | SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
        ) {
            return Err(NO_PAIR);
        }
    }
    Ok(())
}

/// Checks that `pem` is a list of certificates that can vouch for a server.
pub(crate) fn check_ca(pem: &str) -> Result<(), &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).ok_or(NO_CA)? {
        roots.add(certificate).map_err(|_| NO_CA)?;
    }
    Ok(())
}

fn one_key(pem: &SecretString) -> Result<PrivateKeyDer<'static>, &'static str> {
    let mut keys = PrivateKeyDer::pem_slice_iter(pem.expose_secret().as_bytes());
    match (keys.next(), keys.next()) {
        (Some(Ok(key)), None) => Ok(key),
        _ => Err(NO_KEY),
    }
}

/// All certificates in a text; none if there is none, too many, or one that is broken.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).take(CERTIFICATES_MAX + 1);
    let found: Vec<_> = found.collect::<Result<_, _>>().ok()?;
    (1..=CERTIFICATES_MAX).contains(&found.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
        UnparsedPublicKey,
    };
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    use super::*;

    fn pem(kind: &str, der: &[u8]) -> String {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
    }

    fn parse(pem: &str) -> Result<SigningKey, &'static str> {
        SigningKey::parse(&SecretString::from(pem))
    }

    /// A key, and how it is written down.
    fn rsa() -> (RsaKeyPair, Vec<u8>) {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = key.as_der().unwrap().as_ref().to_vec();
        (key, der)
    }

    #[test]
    fn a_key_of_either_kind_in_either_wrapping_signs() {
        let (key, der) = rsa();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        // What PKCS #8 puts in front of a key of this size is 26 bytes long.
        for text in [pem("PRIVATE KEY", &der), pem("RSA PRIVATE KEY", &der[26..])] {
            let key = parse(&text).unwrap();
            assert_eq!(key.algorithm(), "RS256");
            public.verify(b"message", &key.sign(b"message").unwrap()).unwrap();
        }
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        let bare: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
        // openssl puts the name of the curve in front of such a key.
        let with_parameters = pem("EC PARAMETERS", b"curve") + &pem("EC PRIVATE KEY", bare.as_ref());
        for text in [pem("PRIVATE KEY", der.as_ref()), with_parameters] {
            let key = parse(&text).unwrap();
            assert_eq!(key.algorithm(), "ES256");
            public.verify(b"message", &key.sign(b"message").unwrap()).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_or_no_key_that_signs_is_refused_without_a_byte_of_it() {
        let random = SystemRandom::new();
        let other_curve = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let good = pem("PRIVATE KEY", &rsa().1);
        for (text, said) in [
            (String::new(), NO_KEY),
            ("CANARY-no-pem".to_owned(), NO_KEY),
            (pem("ENCRYPTED PRIVATE KEY", b"CANARY"), NO_KEY),
            (pem("CERTIFICATE", b"CANARY"), NO_KEY),
            (format!("{good}{good}"), NO_KEY),
            (good.replace("-----END", "----END"), NO_KEY),
            (pem("PRIVATE KEY", b"CANARY"), NO_SIGNING_KEY),
            (pem("PRIVATE KEY", other_curve.as_ref()), NO_SIGNING_KEY),
        ] {
            assert_eq!(parse(&text).unwrap_err(), said);
        }
        assert_eq!(check_pair(&SecretString::from(good)), Err(NO_CERTIFICATE));
        assert_eq!(check_ca(""), Err(NO_CA));
        assert_eq!(check_ca(&pem("CERTIFICATE", b"no certificate")), Err(NO_CA));
    }

    #[test]
    fn a_certificate_file_holds_its_key_its_certificates_and_nothing_else() {
        let made = rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
        let pair = made.signing_key.serialize_pem() + &made.cert.pem();
        assert_eq!(check_pair(&SecretString::from(pair.clone())), Ok(()));
        for kind in ["X509 CRL", "CERTIFICATE REQUEST", "PUBLIC KEY"] {
            let with_more = pair.clone() + &pem(kind, b"more");
            assert_eq!(check_pair(&SecretString::from(with_more)), Err(NO_PAIR), "{kind}");
        }
    }
}
