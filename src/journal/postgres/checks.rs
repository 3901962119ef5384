//! What the server says of itself, and whether a journal may rest on it. Pure: rows of `pg_settings` in, a verdict and the
//! session's settings out.
use std::collections::BTreeMap;

use super::UnsafeServer;
use super::schema::quoted;
use crate::config::PostgresDurability;

/// What speaks PostgreSQL's protocol. The others replicate by themselves, and lack some things (`docs/journals.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    Cockroach,
    Yugabyte,
}

impl Engine {
    /// By what `version()` says.
    pub(super) fn of(version: &str) -> Self {
        match version {
            v if v.contains("CockroachDB") => Self::Cockroach,
            v if v.contains("-YB-") || v.contains("YugabyteDB") => Self::Yugabyte,
            _ => Self::Postgres,
        }
    }

    /// Whether the append function may call `pg_notify`. YugabyteDB takes it in all versions, and ignores it in old ones.
    pub(super) fn has_notify(self) -> bool {
        self != Self::Cockroach
    }

    /// CockroachDB has the functions, and they do nothing.
    pub(super) fn has_advisory_locks(self) -> bool {
        self == Self::Postgres
    }
}

/// The rows of `pg_settings` that the server knows of those in [`ASKED`].
pub(super) type ServerSettings = BTreeMap<String, String>;

pub(super) const ASKED: &[&str] = &[
    "client_min_messages",
    "default_transaction_isolation",
    "enable_seqscan",
    "fsync",
    "full_page_writes",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "server_encoding",
    "statement_timeout",
    "synchronous_commit",
    "synchronous_standby_names",
    "transaction_timeout",
];

/// The session's own settings, as one text of statements. What the server doesn't know is left out.
pub(super) fn session_settings(engine: Engine, schema: &str, server: &ServerSettings) -> String {
    let mut wanted = vec![
        // An append waits as long as it takes: a time-out would give up a commit that may have happened (H18).
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("transaction_timeout", "0"),
        // A warning says that a commit was not waited for.
        ("client_min_messages", "warning"),
        // Plans are made while the tables are empty, and kept.
        ("enable_seqscan", "off"),
        ("jit", "off"),
    ];
    if matches!(server.get("synchronous_commit").map(String::as_str), Some("off" | "local" | "remote_write")) {
        wanted.push(("synchronous_commit", "on"));
    }
    // Each statement of the append function must see what was committed while it waited for the head's row. CockroachDB
    // runs whatever was disturbed again.
    if engine != Engine::Cockroach {
        wanted.push(("default_transaction_isolation", "'read committed'"));
    }
    let known = wanted.into_iter().filter(|(name, _)| server.contains_key(*name));
    let mut text: String = known.map(|(name, value)| format!("SET {name} = {value};")).collect();
    text.push_str(&format!("SET search_path = {};", quoted(schema)));
    text
}

/// What is not refused, and should be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What it commits is on one machine, as far as its settings say.
    pub unreplicated: bool,
    /// Messages may not arrive as they are; entries do.
    pub encoding: Option<String>,
}

/// Judges a server by its settings.
pub(super) fn judge(
    wanted: PostgresDurability,
    engine: Engine,
    server: &ServerSettings,
) -> Result<Found, UnsafeServer> {
    let encoding = server.get("server_encoding").filter(|encoding| *encoding != "UTF8").cloned();
    if wanted == PostgresDurability::Trusted || engine != Engine::Postgres {
        return Ok(Found { unreplicated: false, encoding });
    }
    let is_off = |name: &str| server.get(name).is_none_or(|value| value == "off");
    let refuse = |setting, what, remedy| Err(UnsafeServer { setting, what, remedy });
    if is_off("fsync") {
        return refuse(
            "fsync",
            "is off: what it commits is lost, and the database perhaps with it, when its machine stops",
            ON,
        );
    }
    if is_off("full_page_writes") {
        return refuse(
            "full_page_writes",
            "is off: a page that was half written when its machine stopped stays so",
            ON,
        );
    }
    let unreplicated = server.get("synchronous_standby_names").is_none_or(|names| names.trim().is_empty());
    if unreplicated && wanted == PostgresDurability::Standby {
        let what = "is empty: it commits without a standby, and a fail-over loses what had not arrived there";
        return refuse("synchronous_standby_names", what, "name the standbys, as in `ANY 1 (a, b)`");
    }
    Ok(Found { unreplicated, encoding })
}

const ON: &str = "turn it on in postgresql.conf and reload";

#[cfg(test)]
mod tests {
    use super::*;

    fn server(changes: &[(&str, &str)]) -> ServerSettings {
        let usual = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("synchronous_standby_names", "ANY 1 (a, b)"),
            ("server_encoding", "UTF8"),
            ("statement_timeout", "30000"),
        ];
        usual.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refused(wanted: PostgresDurability, changes: &[(&str, &str)]) -> Option<&'static str> {
        judge(wanted, Engine::Postgres, &server(changes)).err().map(|refused| refused.setting)
    }

    #[test]
    fn what_is_unsafe_is_refused_by_name() {
        use PostgresDurability::{Disk, Standby, Trusted};
        assert_eq!(refused(Standby, &[]), None);
        assert_eq!(refused(Disk, &[("fsync", "off")]), Some("fsync"));
        assert_eq!(refused(Disk, &[("full_page_writes", "off")]), Some("full_page_writes"));
        assert_eq!(refused(Disk, &[("synchronous_standby_names", "")]), None);
        assert_eq!(refused(Standby, &[("synchronous_standby_names", " ")]), Some("synchronous_standby_names"));
        assert_eq!(refused(Trusted, &[("fsync", "off"), ("full_page_writes", "off")]), None);
        let silent = judge(Disk, Engine::Postgres, &ServerSettings::new());
        assert_eq!(silent.unwrap_err().setting, "fsync", "a server that does not say is not believed");
        assert!(judge(Standby, Engine::Cockroach, &ServerSettings::new()).is_ok());
    }

    #[test]
    fn a_missing_standby_and_an_odd_encoding_are_found() {
        let alone = server(&[("synchronous_standby_names", ""), ("server_encoding", "SQL_ASCII")]);
        let found = judge(PostgresDurability::Disk, Engine::Postgres, &alone).unwrap();
        assert_eq!(found, Found { unreplicated: true, encoding: Some("SQL_ASCII".into()) });
    }

    #[test]
    fn synchronous_commit_is_only_raised() {
        for (given, raised) in
            [("off", true), ("local", true), ("remote_write", true), ("on", false), ("remote_apply", false)]
        {
            let text = session_settings(Engine::Postgres, "s", &server(&[("synchronous_commit", given)]));
            assert_eq!(text.contains("SET synchronous_commit = on;"), raised, "{given}: {text}");
        }
    }

    #[test]
    fn only_what_the_server_knows_is_set() {
        let text = session_settings(Engine::Postgres, "s", &server(&[]));
        assert_eq!(text, "SET statement_timeout = 0;SET search_path = \"s\";");
    }

    #[test]
    fn engines_are_known_by_their_version() {
        let version = |text| Engine::of(text);
        assert_eq!(version("PostgreSQL 15.9 on x86_64-pc-linux-gnu"), Engine::Postgres);
        assert_eq!(version("CockroachDB CCL v24.3.1 (x86_64-pc-linux-gnu)"), Engine::Cockroach);
        assert_eq!(version("PostgreSQL 11.2-YB-2.20.0.0-b0 on x86_64"), Engine::Yugabyte);
    }
}
