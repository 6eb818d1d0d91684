//! TLS in front of the server, with a certificate authority of its own.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::host::{Result, Subject};

/// The first byte of a TLS handshake record (RFC 8446, 5.1); no HTTP method begins so.
const HANDSHAKE: u8 = 22;

/// Of the Gregorian calendar, on the average.
const SECONDS_A_YEAR: i64 = 31_556_952;

/// A new authority, as DER, and a server that it vouches for.
pub fn config() -> Result<(Arc<ServerConfig>, Vec<u8>)> {
    let mut params = CertificateParams::new(Vec::new()).on("the authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    since_last_year(&mut params);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().on("a key")?).on("the authority")?;

    let key = KeyPair::generate().on("a key")?;
    let names = ["10.0.2.2".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).on("the server's certificate")?;
    since_last_year(&mut params);
    let certificate = params.signed_by(&key, &authority).on("the server's certificate")?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).on("the server's key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .on("TLS")?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .on("the server's certificate")?;
    Ok((Arc::new(config), authority.der().to_vec()))
}

/// As certificates in use are: neither from today nor for ever.
fn since_last_year(params: &mut CertificateParams) {
    let year = 1970 + (jiff::Timestamp::now().as_second() / SECONDS_A_YEAR) as i32;
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + 1, 12, 31);
}

/// Whether the client begins with a handshake.
pub fn speaks_it(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first)? == 1 && first[0] == HANDSHAKE)
}

/// Both directions of one connection, for one thread.
pub struct Half(Rc<RefCell<StreamOwned<ServerConnection, TcpStream>>>);

pub fn accept(stream: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<(Half, Half)> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let both = Rc::new(RefCell::new(StreamOwned::new(connection, stream)));
    Ok((Half(Rc::clone(&both)), Half(both)))
}

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.borrow_mut().flush()
    }
}
