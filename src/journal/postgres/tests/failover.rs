//! Standbys: one that has everything takes over, one that lagged is a fork, and a commit that was not waited for is none.
use super::*;

async fn fill(journal: &Arc<dyn Journal>, counters: std::ops::RangeInclusive<u64>, mut head: Head) -> Head {
    for counter in counters {
        let proposal = entry(1, counter, b"x");
        head = head_of(&append_until_known(journal, &proposal, head).await, &proposal);
    }
    head
}

/// Until the standby has all of what the primary has.
async fn caught_up(primary: &Server) {
    let admin = primary.client().await;
    let behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    while admin.query_one(behind, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        World::real().unwrap().sleep(Duration::from_millis(10)).await;
    }
}

/// Entries 11 and 12 are acknowledged while the standby is away, which then takes over without them; the last one.
async fn lose_two(primary: &mut Server, standby: &mut Server, journal: &Arc<dyn Journal>, head: Head) -> Head {
    standby.stop();
    let head = fill(journal, 11..=12, head).await;
    primary.kill9();
    standby.start().await;
    standby.promote();
    head
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_promoted_standby_with_everything_goes_on() {
    let mut primary = Server::new().await;
    let mut standby = primary.standby().await;
    // The standby stands first, so that it is asked and passed over.
    let journal = deadlined(server::url(&[standby.port(), primary.port()]), Duration::from_secs(3)).await;
    let head = fill(&journal, 1..=20, Head::default()).await;
    caught_up(&primary).await;
    primary.kill9();
    standby.promote();
    let head = fill(&journal, 21..=30, head).await;
    assert_eq!(head.position, Position(30));
    assert_eq!(everything(&journal).await.len(), 30);
    // The old primary comes back as if nothing had been: it is left behind.
    primary.start().await;
    let head = fill(&journal, 31..=35, head).await;
    assert_eq!(journal.head().await.unwrap(), head);
    standby.kill9();
    let mut refused = journal.append(entry(1, 36, b"x"), head).await;
    if matches!(refused, Err(JournalError::Unknown(_))) {
        // The connection was there still when the call was made.
        refused = journal.append(entry(1, 36, b"x"), head).await;
    }
    assert!(matches!(&refused, Err(JournalError::NotDone(why)) if why.contains("left behind")), "{refused:?}");
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_promoted_standby_that_lagged_is_a_fork() {
    let mut primary = Server::new().await;
    let mut standby = primary.standby().await;
    let journal = deadlined(server::url(&[primary.port(), standby.port()]), Duration::from_secs(3)).await;
    let head = fill(&journal, 1..=10, Head::default()).await;
    caught_up(&primary).await;
    let head = lose_two(&mut primary, &mut standby, &journal, head).await;
    // Who only waits hears of it too.
    journal.changed(head.position).await;
    let mut last = Vec::new();
    for _ in 0..100 {
        last = vec![
            journal.append(entry(1, 13, b"x"), head).await.map(drop),
            journal.read(head.position.next()).await.map(drop),
            journal.head().await.map(drop),
        ];
        if last.iter().all(|answer| matches!(answer, Err(JournalError::Forked { after, .. }) if *after == head)) {
            return;
        }
    }
    panic!("{last:?}");
}

/// H2: the broker itself lags as much as the standby did. It may not go on there, since others had seen more.
#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_broker_that_lagged_too_is_told_by_what_others_have_seen() {
    let mut primary = Server::new().await;
    let mut standby = primary.standby().await;
    let urls = server::url(&[primary.port(), standby.port()]);
    let journal = deadlined(urls.clone(), Duration::from_secs(3)).await;
    let head = fill(&journal, 1..=10, Head::default()).await;
    caught_up(&primary).await;
    // The last of these is what other brokers will have seen; its token is known already.
    let seen = head_of(&Appended { position: Position(12), missed: Vec::new() }, &entry(1, 12, b"x"));
    let lagging = open_beside(settings(urls, "strandline"), Seen(vec![seen])).await.unwrap();
    assert_eq!(lagging.read(Position(1)).await.unwrap().len(), 10);
    assert_eq!(lose_two(&mut primary, &mut standby, &journal, head).await, seen);
    let forked = loop {
        match lagging.append(entry(2, 1, b"x"), head).await {
            Err(JournalError::Unknown(_) | JournalError::NotDone(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(&forked, Err(JournalError::Forked { after, .. }) if *after == seen), "{forked:?}");
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn an_entry_that_only_another_broker_had_seen_is_guarded_by_after() {
    let mut primary = Server::new().await;
    let mut standby = primary.standby().await;
    let urls = server::url(&[primary.port(), standby.port()]);
    let journal = deadlined(urls.clone(), Duration::from_secs(3)).await;
    let head = fill(&journal, 1..=10, Head::default()).await;
    caught_up(&primary).await;
    let head = lose_two(&mut primary, &mut standby, &journal, head).await;
    // A fresh process knows nothing of positions 11 and 12 but what its snapshot says.
    let fresh = deadlined(urls, Duration::from_secs(3)).await;
    assert_eq!(fresh.head().await.unwrap().position, Position(10));
    let forked = fresh.append(entry(2, 1, b"x"), head).await.unwrap_err();
    assert!(matches!(forked, JournalError::Forked { .. }), "{forked}");
}

/// Waits until a backend waits for the standby; its id.
async fn waiting_for_standby(admin: &tokio_postgres::Client) -> i32 {
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 1";
    loop {
        if let Some(row) = admin.query_opt(waits, &[]).await.unwrap() {
            return row.get(0);
        }
        World::real().unwrap().sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "starts PostgreSQL servers"]
async fn a_commit_that_its_standby_does_not_have_is_never_acknowledged() {
    let primary = Server::new().await;
    let mut standby = primary.standby().await;
    primary.configure("synchronous_standby_names = '*'");
    primary.reload().await;
    let journal = deadlined(primary.url(), Duration::from_millis(800)).await;
    let head = fill(&journal, 1..=3, Head::default()).await;
    standby.stop();
    let admin = primary.client().await;
    let proposal = entry(1, 4, b"x");
    for give_up in ["pg_cancel_backend", "pg_terminate_backend"] {
        let interrupt = async {
            let pid = waiting_for_standby(&admin).await;
            admin.execute(&format!("SELECT {give_up}($1)"), &[&pid]).await.unwrap();
        };
        let (ended, ()) = tokio::join!(journal.append(proposal.clone(), head), interrupt);
        assert!(matches!(ended, Err(JournalError::Unknown(_))), "after {give_up}: {ended:?}");
    }
    // It is visible by now, and the same bytes again are still no acknowledgement.
    let visible = admin.query_one("SELECT position FROM journal", &[]).await.unwrap();
    assert_eq!(visible.get::<_, i64>(0), 4);
    let again = journal.append(proposal.clone(), head).await;
    assert!(matches!(again, Err(JournalError::Unknown(_))), "{again:?}");
    // Nor does a server in that state say where the journal ends (H10).
    let ended = journal.head().await;
    assert!(matches!(ended, Err(JournalError::Unknown(_))), "{ended:?}");
    standby.start().await;
    assert_eq!(append_until_known(&journal, &proposal, head).await.position, Position(4));
    assert_eq!(journal.head().await.unwrap().position, Position(4));
}
