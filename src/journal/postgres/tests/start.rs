//! What is looked at before a server is used, and how the tables come into it.
use std::process::Command;

use super::*;

async fn refused(settings: PostgresSettings) -> OpenError {
    match open(settings).await {
        Ok(_) => panic!("it should have been refused"),
        Err(refused) => refused,
    }
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_server_that_may_lose_commits_is_refused() {
    let server = Server::with("fsync = off").await;
    let own = settings(server.url(), "strandline");
    let said = refused(own.clone()).await.to_string();
    assert!(said.starts_with("journal.postgres_durability: ") && said.contains("fsync is off"), "{said}");
    open(PostgresSettings { durability: PostgresDurability::Trusted, ..own.clone() }).await.unwrap();
    server.configure("fsync = on\nfull_page_writes = off");
    server.reload().await;
    assert!(refused(own.clone()).await.to_string().contains("full_page_writes is off"));
    server.configure("full_page_writes = on\nsynchronous_commit = off");
    server.reload().await;
    let alone = refused(PostgresSettings { durability: PostgresDurability::Standby, ..own.clone() }).await.to_string();
    assert!(alone.contains("synchronous_standby_names is empty"), "{alone}");
    // The session's own synchronous_commit is raised.
    let journal = open(own).await.unwrap();
    assert_eq!(journal.connector.metrics.journal.unreplicated.get(), 1);
    let shown = async |session: &mut Session| -> Result<_, Failure> {
        Ok(session.client.query_one("SHOW synchronous_commit", &[]).await?)
    };
    assert_eq!(journal.appends.with(shown).await.unwrap().get::<_, &str>(0), "on");
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_server_that_became_unsafe_is_left() {
    let mut server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_secs(2)).await;
    journal.append(entry(1, 1, b"x"), Head::default()).await.unwrap();
    server.stop();
    server.configure("fsync = off");
    server.start().await;
    let refused = journal.append(entry(1, 2, b"x"), Head::default()).await;
    assert!(matches!(&refused, Err(JournalError::NotDone(why)) if why.contains("fsync is off")), "{refused:?}");
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_standby_alone_is_no_server_to_write_to() {
    let primary = Server::new().await;
    let standby = primary.standby().await;
    let said = refused(settings(standby.url(), "strandline")).await.to_string();
    assert!(said.contains("does not allow writes") && said.contains("primary"), "{said}");
    let nobody = refused(settings("postgres://test@127.0.0.1:1/postgres".into(), "strandline")).await.to_string();
    assert!(nobody.contains("127.0.0.1:1: ") && nobody.contains("refused"), "{nobody}");
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn brokers_that_start_at_once_make_one_journal() {
    let server = Server::new().await;
    for round in 0..5 {
        let schema = format!("at_once{round}");
        let opened = (0..8).map(|_| open(settings(server.url(), &schema)));
        for (i, journal) in (1..).zip(futures::future::join_all(opened).await) {
            let journal = journal.unwrap();
            journal.append(entry(i, 1, b"x"), Head::default()).await.unwrap();
            assert_eq!(journal.head().await.unwrap().position, Position(i));
        }
    }
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn schemas_are_made_used_and_refused() {
    let server = Server::new().await;
    let admin = server.client().await;
    admin
        .batch_execute(
            "CREATE ROLE poor LOGIN; CREATE SCHEMA given AUTHORIZATION poor; CREATE SCHEMA strange;
             CREATE TABLE strange.journal (colour TEXT)",
        )
        .await
        .unwrap();
    let poor = server.url().replace("test@", "poor@");
    let said = refused(settings(poor.clone(), "own")).await.to_string();
    assert!(
        said.starts_with("journal.postgres_schema: own ") && said.contains("CREATE SCHEMA own AUTHORIZATION"),
        "{said}"
    );
    let journal = open(settings(poor.clone(), "given")).await.unwrap();
    journal.append(entry(1, 1, b"x"), Head::default()).await.unwrap();
    // One of SQL's own words is a schema like any other.
    open(settings(server.url(), "table")).await.unwrap().append(entry(1, 1, b"x"), Head::default()).await.unwrap();
    let said = refused(settings(server.url(), "strange")).await.to_string();
    assert!(said.contains("choose a schema of the journal's own"), "{said}");
    admin.batch_execute("INSERT INTO given.migrations (format, made_by) VALUES (2, 'the future')").await.unwrap();
    assert!(matches!(refused(settings(poor, "given")).await, OpenError::Newer { found: 2, .. }));
    admin
        .batch_execute("DELETE FROM given.migrations WHERE format = 2; UPDATE given.journal SET token = 7")
        .await
        .unwrap();
    assert!(matches!(refused(settings(server.url(), "given")).await, OpenError::Corrupt { .. }));
}

/// A root, and a certificate for `localhost` that it has signed; both in the server's directory.
fn certificates(server: &Server) {
    let at = |name: &str| server.data().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let (root, root_key, other) = (at("root.pem"), at("root.key"), at("other.pem"));
    let (certificate, key, request, names) = (at("server.crt"), at("server.key"), at("server.csr"), at("names"));
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let with = |rest: &[&str]| openssl(&[&new[..], rest].concat());
    with(&["-x509", "-subj", "/CN=root", "-days", "2", "-keyout", &root_key, "-out", &root]);
    with(&["-x509", "-subj", "/CN=other", "-days", "2", "-keyout", &at("other.key"), "-out", &other]);
    with(&["-subj", "/CN=localhost", "-keyout", &key, "-out", &request]);
    std::fs::write(&names, "subjectAltName = DNS:localhost\nbasicConstraints = CA:FALSE\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &root,
        "-CAkey",
        &root_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
    server::own(certificate.as_ref());
    server::own(key.as_ref());
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn ssl_modes_verify_what_they_say() {
    let mut server = Server::new().await;
    let plain = settings(format!("{}?sslmode=require", server.url()), "strandline");
    assert!(refused(plain).await.to_string().contains("does not support TLS"));
    certificates(&server);
    server.stop();
    server.configure("ssl = on\npassword_encryption = 'scram-sha-256'");
    // Whoever comes without TLS is turned away, and a password is asked for.
    let rules = "local all all trust\nhostssl all secret all scram-sha-256\nhostssl all all all trust\nhost all test 127.0.0.1/32 trust\n";
    std::fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    server.start().await;
    server.client().await.batch_execute("CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'right'").await.unwrap();
    let (root, other) = (server.data().join("root.pem"), server.data().join("other.pem"));
    let with = |host: &str, mode: &str, roots: Option<&PathBuf>, password: &str| {
        let url = format!("postgres://secret:wrong@{host}:{}/postgres?sslmode={mode}", server.port());
        let password = Some(password.to_owned());
        PostgresSettings { password, root_certificates: roots.cloned(), ..settings(url, "strandline") }
    };
    for (host, mode, roots) in [
        ("127.0.0.1", "prefer", None),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "require&channel_binding=require", None),
        ("127.0.0.1", "verify-ca", Some(&root)),
        ("localhost", "verify-full", Some(&root)),
    ] {
        let journal = open(with(host, mode, roots, "right")).await;
        let shown = async |session: &mut Session| -> Result<_, Failure> {
            let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok(session.client.query_one(ssl, &[]).await?)
        };
        let encrypted = journal.unwrap().appends.with(shown).await.unwrap();
        assert!(encrypted.get::<_, bool>(0), "{mode}");
    }
    for (host, mode, roots, password, why) in [
        ("127.0.0.1", "disable", None, "right", "no pg_hba.conf entry"),
        ("127.0.0.1", "require", None, "worse", "28P01"),
        ("127.0.0.1", "verify-full", Some(&root), "right", "certificate"),
        ("localhost", "verify-full", Some(&other), "right", "certificate"),
        ("127.0.0.1", "verify-ca", Some(&other), "right", "certificate"),
        ("127.0.0.1", "require", Some(&other), "right", "certificate"),
    ] {
        let said = refused(with(host, mode, roots, password)).await.to_string();
        assert!(said.contains(why) && !said.contains("right"), "{mode}: {said}");
    }
    let missing = refused(with("localhost", "verify-full", Some(&"/nowhere.pem".into()), "right")).await.to_string();
    assert!(missing.starts_with("journal.postgres_root_certificates: /nowhere.pem"), "{missing}");
}
