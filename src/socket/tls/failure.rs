//! Why TLS failed, in few words and with what to look at.
//!
//! Names and texts of a peer are shown escaped and cut: they may be anything.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, InvalidMessage, PeerIncompatible,
};

use super::verify::Refused;
use crate::error::is_end_of_connection;

/// What made a handshake fail, or a stream of TLS.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// The host is no name that a certificate could have.
    Name,
    /// The peer's bytes are no TLS.
    NotTls,
    /// The certificate was refused.
    Certificate(CertificateError),
    /// The peer said that it ends the connection, and why.
    Alert(AlertDescription),
    /// Anything else that TLS defines.
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            Some(rustls::Error::InvalidCertificate(reason)) => Self::Certificate(reason.clone()),
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(other) => Self::Tls(other.clone()),
            None => Self::Io(error),
        }
    }
}

/// Whether this error of a stream is one of TLS, such as an alert, rather than one of the transport.
pub(crate) fn is_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// What TLS says about an error of a stream; the error as it is, if it comes from the transport.
pub(crate) fn tls_failure(error: io::Error) -> Result<TlsFailure, io::Error> {
    if is_tls(&error) {
        Ok(error.into())
    } else {
        Err(error)
    }
}

impl TlsFailure {
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// Whether the handshake ended because the connection did, so that another one may do.
    pub(crate) fn is_broken_off(&self) -> bool {
        self.io_kind().is_some_and(is_end_of_connection)
    }
}

// The reasons are in the line already, so `source` stays None.
impl std::error::Error for TlsFailure {}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => {
                f.write_str("the host is no name that a certificate can be checked against")
            }
            Self::NotTls => f.write_str(
                "the peer does not speak TLS on this port; if it speaks plain HTTP use http://",
            ),
            Self::Certificate(reason) => certificate(reason, f),
            Self::Alert(alert) => write_alert(*alert, f),
            Self::Tls(rustls::Error::PeerIncompatible(reason)) => incompatible(reason, f),
            Self::Tls(rustls::Error::InvalidCertRevocationList(reason)) => {
                revocation_list(reason, f)
            }
            Self::Tls(error) => cut(&error.to_string(), f),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the peer closed the connection during the handshake")
            }
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

fn certificate(reason: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use CertificateError as Reason;
    f.write_str(match reason {
        Reason::ExpiredContext { time, not_after } => {
            return write!(
                f,
                "the certificate has expired: it was valid until {}, and the clock of this machine says {}",
                Date(*not_after),
                Date(*time)
            );
        }
        Reason::NotValidYetContext { time, not_before } => {
            return write!(
                f,
                "the certificate is not valid yet: it will be from {}, and the clock of this machine says {}",
                Date(*not_before),
                Date(*time)
            );
        }
        Reason::NotValidForNameContext { presented, .. } => {
            f.write_str("the certificate is for another host")?;
            return names(presented, f);
        }
        Reason::ExpiredRevocationListContext { time, next_update } => {
            return write!(
                f,
                "a certificate revocation list is too old: it was valid until {}, and the clock of this machine says {}",
                Date(*next_update),
                Date(*time)
            );
        }
        Reason::Expired => "the certificate has expired",
        Reason::NotValidYet => "the certificate is not valid yet",
        Reason::NotValidForName => "the certificate is for another host",
        Reason::UnknownIssuer => {
            "the certificate's issuer is not trusted: a private CA (see TlsConfig::builder().add_root_pem), a server that \
             does not send its intermediate certificates, or someone in between"
        }
        Reason::Revoked => "the certificate is revoked",
        Reason::UnknownRevocationStatus => {
            "nobody says whether the certificate is revoked: TlsConfigBuilder::crls needs a list of each issuer of its chain \
             (or see allow_unknown_revocation)"
        }
        Reason::ExpiredRevocationList => "a certificate revocation list is too old",
        Reason::BadSignature => {
            "the certificate's signature is wrong (another issuer of the same name?), its key is too weak, or the server does \
             not have its key"
        }
        Reason::BadEncoding => "the certificate is malformed",
        Reason::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not understood"
        }
        Reason::UnsupportedSignatureAlgorithmContext { .. }
        | Reason::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed with an algorithm that is not accepted, such as SHA-1"
        }
        Reason::InvalidPurpose | Reason::InvalidPurposeContext { .. } => {
            "the certificate is not meant for servers (extended key usage)"
        }
        Reason::Other(other) => return other_reason(other, f),
        other => {
            f.write_str("the certificate is refused: ")?;
            return cut(&format!("{other:?}"), f);
        }
    })
}

fn other_reason(other: &rustls::OtherError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(refused) = other.0.downcast_ref::<Refused>() {
        write!(f, "{refused}")?;
        return match refused {
            Refused::SelfSigned => f.write_str(
                " and not trusted (see TlsConfig::builder().add_root_pem, or there is someone in between)",
            ),
            Refused::Unpinned { .. } => Ok(()),
        };
    }
    f.write_str(match other.0.downcast_ref::<webpki::Error>() {
        Some(webpki::Error::CaUsedAsEndEntity) => {
            "the server shows the certificate of an authority as its own, such as one of `openssl req -x509`: make it with \
             `-addext basicConstraints=CA:FALSE`"
        }
        Some(webpki::Error::EndEntityUsedAsCa) => {
            "an issuer of the certificate is no authority (basic constraints)"
        }
        Some(webpki::Error::NameConstraintViolation) => {
            "an issuer of the certificate may not issue for its names (name constraints)"
        }
        Some(webpki::Error::PathLenConstraintViolated) => {
            "the certificate's chain is longer than one of its issuers allows (path length)"
        }
        Some(webpki::Error::MalformedDnsIdentifier) => "a name of the certificate is malformed",
        Some(webpki::Error::UnsupportedCertVersion) => "the certificate is not of X.509 version 3",
        Some(webpki::Error::UnsupportedCriticalExtension) => {
            "the certificate has a critical extension that is not understood"
        }
        Some(error) => {
            f.write_str("the certificate is refused: ")?;
            return cut(&error.to_string(), f);
        }
        None => {
            f.write_str("the certificate is refused: ")?;
            return cut(&other.0.to_string(), f);
        }
    })
}

/// The names that a certificate is for, as many as fit a line.
fn names(presented: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if presented.is_empty() {
        return f.write_str(
            ": it names none as a subject alternative name (its common name does not count)",
        );
    }
    f.write_str(": it names ")?;
    for (at, name) in presented.iter().take(MAX_NAMES).enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        // rustls says `DnsName("a.test")`, `IpAddress(192.0.2.1)`.
        let name = name
            .strip_prefix("DnsName(\"")
            .and_then(|name| name.strip_suffix("\")"))
            .or_else(|| {
                let name = name.strip_prefix("IpAddress(")?;
                name.strip_suffix(')')
            })
            .unwrap_or(name);
        let shown: String = name.chars().take(MAX_NAME).collect();
        write!(f, "{}", shown.escape_debug())?;
        if shown.len() < name.len() {
            f.write_str("...")?;
        }
    }
    match presented.len().saturating_sub(MAX_NAMES) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

fn revocation_list(reason: &CertRevocationListError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match reason {
        CertRevocationListError::BadSignature => {
            f.write_str("the signature of a certificate revocation list is wrong")
        }
        CertRevocationListError::IssuerInvalidForCrl => {
            f.write_str("the issuer of a certificate revocation list may not issue any (key usage)")
        }
        other => {
            f.write_str("a certificate revocation list cannot be used: ")?;
            cut(&format!("{other:?}"), f)
        }
    }
}

fn incompatible(reason: &PeerIncompatible, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(match reason {
        PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            "the server speaks no version of TLS that is allowed here (see TlsConfigBuilder::min_version)"
        }
        other => {
            f.write_str("the server and this client have nothing in common: ")?;
            return cut(&format!("{other:?}"), f);
        }
    })
}

/// What an alert of the peer means, and what it usually comes from.
fn write_alert(alert: AlertDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use AlertDescription as Alert;
    let hint = match alert {
        Alert::ProtocolVersion => {
            "it speaks no version of TLS that is allowed here: 1.2 is the oldest"
        }
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "it has no cipher suite, key exchange or signature in common with this client, or wants a client certificate"
        }
        Alert::NoApplicationProtocol => {
            "it speaks none of the HTTP versions that were offered (ALPN)"
        }
        Alert::UnrecognisedName => "it knows no host of that name (SNI)",
        Alert::CertificateRequired | Alert::NoCertificate => {
            "it wants a client certificate (see TlsConfigBuilder::client_identity_pem)"
        }
        Alert::DecryptError => {
            "it could not check a signature, perhaps the one under the client's certificate"
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => "it refuses the client's certificate, or the lack of one",
        _ => "",
    };
    match alert {
        Alert::Unknown(number) => write!(f, "the server ended TLS with the alert {number}")?,
        known => write!(
            f,
            "the server ended TLS with the alert {}",
            known.as_str().unwrap_or("of an unknown kind")
        )?,
    }
    if hint.is_empty() {
        return Ok(());
    }
    write!(f, ": {hint}")
}

/// Some of rustls' texts run to a kilobyte.
fn cut(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let shown: String = text.chars().take(MAX_TEXT).collect();
    f.write_str(&shown)?;
    if shown.len() < text.len() {
        f.write_str("...")?;
    }
    Ok(())
}

/// A date as HTTP writes it.
struct Date(UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        // The formatter has four digits for the year.
        if seconds > LAST_SECOND {
            return f.write_str("a date after the year 9999");
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        write!(f, "{}", httpdate::HttpDate::from(time))
    }
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Names of a certificate that are shown, and characters of each.
const MAX_NAMES: usize = 5;
const MAX_NAME: usize = 80;

/// Characters of a text of rustls that are shown.
const MAX_TEXT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_escaped() {
        let shown = |presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            let expected = rustls::pki_types::ServerName::try_from("a.test").unwrap();
            let reason = CertificateError::NotValidForNameContext {
                expected,
                presented,
            };
            TlsFailure::Certificate(reason).to_string()
        };
        let other = "the certificate is for another host";
        assert_eq!(
            shown(&["DnsName(\"b.test\")", "IpAddress(192.0.2.1)"]),
            format!("{other}: it names b.test, 192.0.2.1")
        );
        assert_eq!(
            shown(&["odd\x1b[31m"]),
            format!("{other}: it names odd\\u{{1b}}[31m")
        );
        assert!(shown(&[]).contains("common name does not count"));
        let many = vec!["DnsName(\"x.test\")"; 1000];
        assert!(shown(&many).ends_with("x.test and 995 more"));
        let long = "y".repeat(5000);
        assert!(shown(&[&long]).len() < 200);
    }

    #[test]
    fn dates_beyond_the_calendar_are_no_panic() {
        for seconds in [0, LAST_SECOND, LAST_SECOND + 1, u64::MAX] {
            let date = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            assert!(!Date(date).to_string().is_empty());
        }
    }
}
