//! The tables and the append function (`docs/formats/journal-postgres.md` specifies them), and how they come into a
//! database: by whichever broker finds them missing, under a lock.
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::OpenError;
use super::address::with_cause;
use super::checks::Engine;
use crate::world::World;

/// Raised when the tables change.
pub(super) const FORMAT: i32 = 1;

/// Two brokers that make the tables at once can disturb each other where there is no lock to take.
const ATTEMPTS: u64 = 6;

/// The channel on which appends notify.
pub(super) fn channel(schema: &str) -> String {
    format!("strandline_{schema}")
}

/// As it stands in SQL; its characters are checked by the configuration, and it may still be one of SQL's words.
pub(super) fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// Makes or raises the tables, if that is needed.
pub(super) async fn migrate(client: &Client, engine: Engine, schema: &str, world: &World) -> Result<(), OpenError> {
    for attempt in 1.. {
        let failed = match found(client, schema).await {
            Ok(FORMAT) => return Ok(()),
            Ok(found) if found > FORMAT => {
                return Err(OpenError::Newer { schema: schema.to_owned(), found, known: FORMAT });
            }
            Ok(_) => match make(client, engine, schema).await {
                Ok(()) => continue,
                Err(failed) => failed,
            },
            Err(failed) => failed,
        };
        if attempt >= ATTEMPTS || !was_disturbed(&failed) {
            return Err(refused(schema, &failed));
        }
        world.sleep(Duration::from_millis(20 * attempt + world.random_below(100))).await;
    }
    Ok(())
}

/// The format of the tables; 0 if there are none.
async fn found(client: &Client, schema: &str) -> Result<i32, Error> {
    let there = client
        .query_one(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1 AND table_name = 'migrations'",
            &[&schema],
        )
        .await?;
    if there.try_get::<_, i64>(0)? == 0 {
        return Ok(0);
    }
    let newest = client.query_one(&format!("SELECT max(format) FROM {}.migrations", quoted(schema)), &[]).await?;
    Ok(newest.try_get::<_, Option<i32>>(0)?.unwrap_or(0))
}

/// One transaction where the engine can do that; every statement may be repeated, for where it can't.
async fn make(client: &Client, engine: Engine, schema: &str) -> Result<(), Error> {
    let result = make_inside(client, engine, schema).await;
    if result.is_err() {
        // The connection is as before; what happened is told by the first error.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

async fn make_inside(client: &Client, engine: Engine, schema: &str) -> Result<(), Error> {
    client.batch_execute("BEGIN").await?;
    if engine.has_advisory_locks() {
        // Held until the commit. Whoever waited here finds everything made.
        client.execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&channel(schema)]).await?;
    }
    if found(client, schema).await? < FORMAT {
        let there = client.query_opt("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", &[&schema]).await?;
        if there.is_none() {
            // Only where it is missing: even IF NOT EXISTS asks for the right to make one.
            client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))).await?;
        }
        client.batch_execute(&tables(engine, schema)).await?;
        client.batch_execute(&append_function(engine, schema)).await?;
        client.batch_execute(&first_rows(schema)).await?;
    }
    client.batch_execute("COMMIT").await
}

fn was_disturbed(error: &Error) -> bool {
    let disturbances = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::DUPLICATE_SCHEMA,
        &SqlState::DUPLICATE_TABLE,
        &SqlState::DUPLICATE_FUNCTION,
        &SqlState::DUPLICATE_OBJECT,
        &SqlState::INTERNAL_ERROR,
    ];
    error.code().is_some_and(|code| disturbances.contains(&code))
}

fn refused(schema: &str, error: &Error) -> OpenError {
    let (schema, reason) = (schema.to_owned(), with_cause(error));
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => OpenError::Privileges { schema, reason },
        _ => OpenError::Schema { schema, reason },
    }
}

/// The head's row is written with every append, so its page has room for its versions. Payloads are not compressed, which
/// they hardly can be, and lie beside their numbers up to 8 KiB.
fn tables(engine: Engine, schema: &str) -> String {
    let is_postgres = engine == Engine::Postgres;
    let schema = quoted(schema);
    let head = if is_postgres { " WITH (fillfactor = 10)" } else { "" };
    let entries = if is_postgres { " WITH (toast_tuple_target = 8128)" } else { "" };
    let plain = if is_postgres {
        format!("ALTER TABLE {schema}.entries ALTER COLUMN payload SET STORAGE EXTERNAL;")
    } else {
        String::new()
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {schema}.migrations (
            format INT4 PRIMARY KEY,
            made_at TIMESTAMPTZ NOT NULL DEFAULT now(),
            made_by TEXT NOT NULL
        );
        CREATE TABLE IF NOT EXISTS {schema}.journal (
            id INT4 PRIMARY KEY CHECK (id = 1),
            first INT8 NOT NULL,
            position INT8 NOT NULL,
            token INT8 NOT NULL,
            confirmed INT8 NOT NULL
        ){head};
        CREATE TABLE IF NOT EXISTS {schema}.entries (
            position INT8 PRIMARY KEY,
            incarnation INT8 NOT NULL,
            counter INT8 NOT NULL,
            token INT8 NOT NULL,
            checksum INT8 NOT NULL,
            payload BYTEA NOT NULL,
            UNIQUE (incarnation, counter)
        ){entries};
        {plain}
        CREATE TABLE IF NOT EXISTS {schema}.retired (
            incarnation INT8 PRIMARY KEY,
            counter INT8 NOT NULL,
            position INT8 NOT NULL,
            token INT8 NOT NULL
        );"
    )
}

fn first_rows(schema: &str) -> String {
    let schema = quoted(schema);
    format!(
        "INSERT INTO {schema}.journal (id, first, position, token, confirmed) VALUES (1, 1, 0, 0, 0) ON CONFLICT DO NOTHING;
        INSERT INTO {schema}.migrations (format, made_by) VALUES ({FORMAT}, 'strandline {}') ON CONFLICT DO NOTHING;",
        env!("CARGO_PKG_VERSION")
    )
}

/// One append. It holds the head's row until its commit ends, so that appends have one order. It gives what
/// `journal::rules` judges by, and adds the entry exactly where they say "new"; the caller checks that the two agree. A
/// proposal that is there already writes too: its commit is waited for like a new one's, since the first attempt's may
/// have been visible before a standby had it.
///
/// Nothing but what PL/pgSQL has on all three engines: no records, no sets, no PERFORM.
fn append_function(engine: Engine, schema: &str) -> String {
    let notify = match engine.has_notify() {
        true => format!("o_notified := pg_notify('{}', o_added::TEXT)::TEXT;", channel(schema)),
        false => String::new(),
    };
    let schema = quoted(schema);
    format!(
        "CREATE OR REPLACE FUNCTION {schema}.append_{FORMAT}(
            p_incarnation INT8, p_counter INT8, p_token INT8, p_checksum INT8, p_payload BYTEA,
            p_after INT8, p_after_token INT8,
            OUT o_first INT8, OUT o_head INT8, OUT o_head_token INT8, OUT o_after_token INT8,
            OUT o_known_counter INT8, OUT o_known_position INT8, OUT o_known_token INT8,
            OUT o_added INT8, OUT o_positions INT8[], OUT o_incarnations INT8[], OUT o_counters INT8[],
            OUT o_tokens INT8[], OUT o_checksums INT8[], OUT o_payloads BYTEA[], OUT o_notified TEXT
        ) AS $append$
        DECLARE
            v_counter INT8;
            v_position INT8;
            v_token INT8;
        BEGIN
            SELECT j.first, j.position, j.token INTO o_first, o_head, o_head_token
                FROM {schema}.journal j WHERE j.id = 1 FOR UPDATE;
            IF p_after = o_head THEN
                o_after_token := o_head_token;
            ELSE
                SELECT e.token INTO o_after_token FROM {schema}.entries e WHERE e.position = p_after;
            END IF;
            SELECT e.counter, e.position, e.token INTO o_known_counter, o_known_position, o_known_token
                FROM {schema}.entries e WHERE e.incarnation = p_incarnation AND e.counter >= p_counter
                ORDER BY e.counter LIMIT 1;
            IF o_known_counter IS NULL OR o_known_counter <> p_counter THEN
                SELECT r.counter, r.position, r.token INTO v_counter, v_position, v_token
                    FROM {schema}.retired r WHERE r.incarnation = p_incarnation AND r.counter >= p_counter;
                IF v_counter IS NOT NULL THEN
                    o_known_counter := v_counter;
                    o_known_position := v_position;
                    o_known_token := v_token;
                END IF;
            END IF;
            IF o_known_counter IS NULL
                AND ((p_after = 0 AND p_after_token = 0 AND o_first = 1)
                    OR (p_after >= o_first AND p_after <= o_head AND p_after > 0 AND o_after_token = p_after_token))
            THEN
                o_added := o_head + 1;
                INSERT INTO {schema}.entries (position, incarnation, counter, token, checksum, payload)
                    VALUES (o_added, p_incarnation, p_counter, p_token, p_checksum, p_payload);
                UPDATE {schema}.journal SET position = o_added, token = p_token WHERE id = 1;
                {notify}
                IF p_after < o_head THEN
                    SELECT array_agg(m.position ORDER BY m.position), array_agg(m.incarnation ORDER BY m.position),
                           array_agg(m.counter ORDER BY m.position), array_agg(m.token ORDER BY m.position),
                           array_agg(m.checksum ORDER BY m.position), array_agg(m.payload ORDER BY m.position)
                        INTO o_positions, o_incarnations, o_counters, o_tokens, o_checksums, o_payloads
                        FROM (SELECT e.position, e.incarnation, e.counter, e.token, e.checksum, e.payload,
                                     sum(octet_length(e.payload) + 64) OVER (ORDER BY e.position) AS bytes
                              FROM {schema}.entries e
                              WHERE e.position > p_after AND e.position <= o_head AND e.position <= p_after + {MISSED_ROWS}
                             ) m
                        WHERE m.bytes <= {MISSED_BYTES};
                END IF;
            ELSIF o_known_counter = p_counter AND o_known_token = p_token THEN
                UPDATE {schema}.journal SET confirmed = confirmed + 1 WHERE id = 1;
            END IF;
        END
        $append$ LANGUAGE plpgsql;"
    )
}

/// Of what an append missed this much is given with its answer, in rows and in bytes: the head's row is held meanwhile.
/// The rest is read.
const MISSED_ROWS: u32 = 256;
const MISSED_BYTES: u32 = 256 << 10;
