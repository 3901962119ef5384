//! From a URL to one connection setting per host. What the client library has no word for (`verify-full`, `sslrootcert`)
//! is taken out of the URL here; the hosts are separated, so that one that hangs does not keep us from the next.
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::OpenError;

/// A peer that is silent is asked whether it lives after this long. Every call has a time limit of its own; this ends the
/// connections of calls that were given up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Sent bytes may go unacknowledged for this long.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

/// How far the server's certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// Not looked at: an eavesdropper sees nothing, whoever sits in between sees all.
    Nothing,
    /// It must be signed by one of the roots.
    Issuer,
    /// It must be the host's.
    Host,
}

#[derive(Debug)]
pub(super) struct Address {
    pub hosts: Vec<Target>,
    pub verify: Verify,
    pub root_certificates: Option<PathBuf>,
}

/// One host.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host:port`, for messages.
    pub name: String,
    pub config: Config,
    /// The connection leaves this machine.
    pub is_remote: bool,
}

/// Reads `url`; `password` and `roots` replace what it says of them.
pub(super) fn parse(url: &str, password: Option<&str>, roots: Option<PathBuf>) -> Result<Address, OpenError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut mode = "prefer".to_owned();
    let mut root_certificates = roots;
    let (mut all, mut without_hosts) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = url::form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        match &*key {
            "sslmode" => mode = value.into_owned(),
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => root_certificates = root_certificates.or(Some(PathBuf::from(&*value))),
            // Always the one that takes writes, and each of them in its order.
            "target_session_attrs" | "load_balance_hosts" => {}
            "host" | "hostaddr" | "port" => all.push(pair),
            _ => {
                all.push(pair);
                without_hosts.push(pair);
            }
        }
    }
    let (ssl, verify) = ssl_mode(&mode, root_certificates.is_some())?;
    let read = |url: String| url.parse::<Config>().map_err(|e| OpenError::Url { reason: with_cause(&e) });
    let whole = read(format!("{base}?{}", all.join("&")))?;
    let mut common = read(format!("{}?{}", without_host(base), without_hosts.join("&")))?;
    common.target_session_attrs(TargetSessionAttrs::ReadWrite).load_balance_hosts(LoadBalanceHosts::Disable);
    common.keepalives_idle(KEEPALIVE_IDLE).tcp_user_timeout(UNACKNOWLEDGED_MAX);
    if common.get_application_name().is_none() {
        common.application_name("strandline");
    }
    if let Some(password) = password {
        common.password(password);
    }
    Ok(Address { hosts: targets(&whole, &common, ssl)?, verify, root_certificates })
}

/// libpq's meaning of `sslmode`: `require` verifies the issuer where roots are given.
fn ssl_mode(mode: &str, has_roots: bool) -> Result<(SslMode, Verify), OpenError> {
    match mode {
        "disable" => Ok((SslMode::Disable, Verify::Nothing)),
        "prefer" => Ok((SslMode::Prefer, Verify::Nothing)),
        "require" if !has_roots => Ok((SslMode::Require, Verify::Nothing)),
        "require" | "verify-ca" => Ok((SslMode::Require, Verify::Issuer)),
        "verify-full" => Ok((SslMode::Require, Verify::Host)),
        _ => Err(OpenError::Url {
            reason: format!("sslmode {mode:?} is none of disable, prefer, require, verify-ca, verify-full"),
        }),
    }
}

/// `postgres://user:password@a,b/database` without `a,b`.
fn without_host(base: &str) -> String {
    let (scheme, rest) = base.split_at(base.find("://").map_or(0, |at| at + 3));
    let (user, rest) = rest.split_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}{user}{at}{path}")
}

fn targets(whole: &Config, common: &Config, ssl: SslMode) -> Result<Vec<Target>, OpenError> {
    let (hosts, addresses, ports) = (whole.get_hosts(), whole.get_hostaddrs(), whole.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |len: usize| len == 0 || len == count;
    if count == 0 || !fits(hosts.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        let reason = format!("{} hosts, {} hostaddrs and {} ports", hosts.len(), addresses.len(), ports.len());
        return Err(OpenError::Url { reason });
    }
    let target = |i: usize| {
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        let mut config = common.clone();
        config.port(port).ssl_mode(ssl);
        let mut name = format!("port {port}");
        let mut is_remote = true;
        match hosts.get(i) {
            Some(Host::Tcp(host)) => {
                config.host(host);
                name = format!("{host}:{port}");
                is_remote = !(host == "localhost" || host.starts_with("127.") || host == "::1");
            }
            // A socket of this machine needs no encryption, and has no name to verify.
            Some(Host::Unix(path)) => {
                config.host_path(path).ssl_mode(SslMode::Disable);
                (name, is_remote) = (format!("{}:{port}", path.display()), false);
            }
            None => {}
        }
        if let Some(address) = addresses.get(i) {
            config.hostaddr(*address);
            if hosts.is_empty() {
                (name, is_remote) = (format!("{address}:{port}"), !address.is_loopback());
            }
        }
        Target { name, config, is_remote }
    };
    Ok((0..count).map(target).collect())
}

/// The library keeps what really happened in the cause.
pub(super) fn with_cause(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map_or(String::new(), |detail| format!(" ({detail})"));
        return format!("{}{detail} [{}]", db.message(), db.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<String> {
        parse(url, None, None).unwrap().hosts.into_iter().map(|host| host.name).collect()
    }

    #[test]
    fn hosts_come_as_libpq_writes_them() {
        assert_eq!(names("postgres://u@a,b:6000/d"), ["a:5432", "b:6000"]);
        assert_eq!(names("postgresql://a/"), ["a:5432"]);
        assert_eq!(names("postgres:///d?host=a&host=b&port=1,2"), ["a:1", "b:2"]);
        assert_eq!(names("postgres://u:p@[::1]:7/d"), ["::1:7"]);
        assert_eq!(names("postgres:///d?host=/run/postgresql&user=x"), ["/run/postgresql:5432"]);
        assert_eq!(names("postgres:///d?hostaddr=10.0.0.1,10.0.0.2&port=5"), ["10.0.0.1:5", "10.0.0.2:5"]);
    }

    #[test]
    fn every_host_gets_what_the_url_says_of_all() {
        let address =
            parse("postgres://u:p@a,b/d?options=-cx&connect_timeout=3&target_session_attrs=any", Some("q"), None);
        for host in address.unwrap().hosts {
            let config = host.config;
            assert_eq!(
                (config.get_user(), config.get_dbname(), config.get_options()),
                (Some("u"), Some("d"), Some("-cx"))
            );
            assert_eq!(config.get_password(), Some(&b"q"[..]));
            assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
            assert_eq!(config.get_hosts().len(), 1);
        }
    }

    #[test]
    fn ssl_modes_mean_what_they_mean_to_libpq() {
        let modes: [(&str, SslMode, Verify); 8] = [
            ("", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("?sslmode=prefer", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=require", SslMode::Require, Verify::Nothing),
            ("?sslmode=require&sslrootcert=/r.pem", SslMode::Require, Verify::Issuer),
            ("?sslmode=verify-ca", SslMode::Require, Verify::Issuer),
            ("?sslmode=verify-full&sslrootcert=system", SslMode::Require, Verify::Host),
            ("?sslrootcert=%2Fx%20y.pem", SslMode::Prefer, Verify::Nothing),
        ];
        for (query, ssl, verify) in modes {
            let address = parse(&format!("postgres://a/d{query}"), None, None).unwrap();
            assert_eq!((address.hosts[0].config.get_ssl_mode(), address.verify), (ssl, verify), "{query}");
        }
        let roots = parse("postgres://a/d?sslrootcert=%2Fx%20y.pem", None, None).unwrap().root_certificates;
        assert_eq!(roots, Some(PathBuf::from("/x y.pem")));
        let own = parse("postgres://a/d?sslrootcert=/x", None, Some("/y".into())).unwrap().root_certificates;
        assert_eq!(own, Some(PathBuf::from("/y")));
        let unix = parse("postgres:///d?host=/run/pg&sslmode=require", None, None).unwrap();
        assert_eq!(unix.hosts[0].config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in
            ["postgres:///d", "postgres://a,b/d?port=1,2,3", "postgres://a/?sslmode=always", "postgres://a/?colour=1"]
        {
            assert!(matches!(parse(url, None, None), Err(OpenError::Url { .. })), "{url}");
        }
    }
}
