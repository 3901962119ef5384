//! Connections, answers and servers that are lost in the middle of appends: every append ends as one entry, and nothing
//! that was answered is gone.
use super::proxy::{Mode, Proxy};
use super::*;

/// Appends `count` entries, each after the one before; gives what was acknowledged.
async fn append_for(journal: Arc<dyn Journal>, incarnation: u64, count: u64) -> Vec<(Position, Proposal)> {
    let mut acknowledged = Vec::new();
    let mut head = Head::default();
    for counter in 1..=count {
        let proposal = entry(incarnation, counter, &vec![b'p'; usize::try_from(counter * 37 % 4000).unwrap()]);
        let appended = append_until_known(&journal, &proposal, head).await;
        head = head_of(&appended, &proposal);
        acknowledged.push((appended.position, proposal));
    }
    acknowledged
}

/// Each acknowledged entry stands where it was acknowledged, each counter is there once, and nothing else is.
async fn check(journal: &Arc<dyn Journal>, acknowledged: &[Vec<(Position, Proposal)>]) {
    let all = everything(journal).await;
    for (position, proposal) in acknowledged.iter().flatten() {
        let there = all.get(usize::try_from(position.0).unwrap() - 1).map(|stored| &stored.proposal);
        assert!(there == Some(proposal), "position {position} was acknowledged");
    }
    assert_eq!(all.len(), acknowledged.iter().map(Vec::len).sum::<usize>(), "entries that nobody was told of");
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn every_acknowledged_entry_survives_kill_9_of_the_server() {
    const ROUNDS: u64 = 8;
    let mut server = Server::new().await;
    let world = World::real().unwrap();
    let mut appenders = Vec::new();
    for incarnation in 1..=2 {
        let journal = deadlined(server.url(), Duration::from_secs(3)).await;
        appenders.push(world.spawn("appender", append_for(journal, incarnation, 2500)));
    }
    for round in 0..ROUNDS {
        world.sleep(Duration::from_millis(100 + world.random_below(300))).await;
        assert!(!appenders.iter().all(|a| a.is_finished()), "nothing is appended in round {round}; raise the count");
        server.kill9();
        server.start().await;
    }
    let mut acknowledged = Vec::new();
    for appender in appenders {
        acknowledged.push(appender.await.unwrap());
    }
    check(&deadlined(server.url(), Duration::from_secs(3)).await, &acknowledged).await;
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn calls_and_answers_that_are_lost_leave_one_entry_each() {
    let server = Server::new().await;
    let proxy = Proxy::before(server.port()).await;
    let journal = deadlined(server::url(&[proxy.port]), Duration::from_millis(500)).await;
    let beside = deadlined(server.url(), Duration::from_secs(5)).await;
    let world = World::real().unwrap();
    let (mut head, mut unknown) = (Head::default(), 0);
    for counter in 1..=60 {
        let proposal = entry(1, counter, b"once");
        let mode = [Mode::Pass, Mode::LoseAnswers, Mode::LoseCalls, Mode::Hold][usize::try_from(counter % 4).unwrap()];
        proxy.set(mode);
        let first = journal.append(proposal.clone(), head).await;
        proxy.set(Mode::Pass);
        let done = beside.head().await.unwrap().position.0 == counter;
        match (&first, mode) {
            (Ok(_), Mode::Pass) => assert!(done),
            (Err(JournalError::Unknown(_)), Mode::LoseAnswers) => unknown += u64::from(done),
            (Err(JournalError::Unknown(_)), Mode::LoseCalls | Mode::Hold) => {}
            // The tail's connection was cut before, and this call had to connect first.
            (Err(JournalError::NotDone(_)), _) => assert!(!done),
            _ => panic!("{first:?}"),
        }
        world.sleep(Duration::from_millis(20)).await;
        let appended = append_until_known(&journal, &proposal, head).await;
        assert_eq!(appended.position, Position(counter));
        head = head_of(&appended, &proposal);
    }
    assert!(unknown > 5, "only {unknown} answers were lost after their commit");
    assert_eq!(everything(&journal).await.len(), 60);
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn a_terminated_backend_is_unknown_and_the_same_bytes_find_out() {
    let server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_secs(10)).await;
    let first = entry(1, 1, b"first");
    let head = head_of(&journal.append(first.clone(), Head::default()).await.unwrap(), &first);
    let admin = server.client().await;
    // Somebody holds the head's row, so that the append is in the middle of its function.
    admin.batch_execute("BEGIN; SELECT * FROM journal FOR UPDATE").await.unwrap();
    let other = server.client().await;
    let second = entry(1, 2, b"second");
    let terminate = async {
        let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%append_1%'";
        let row = loop {
            if let Some(row) = other.query_opt(waits, &[]).await.unwrap() {
                break row;
            }
        };
        other.execute("SELECT pg_terminate_backend($1)", &[&row.get::<_, i32>(0)]).await.unwrap();
    };
    let (ended, ()) = tokio::join!(journal.append(second.clone(), head), terminate);
    assert!(matches!(ended, Err(JournalError::Unknown(_))), "{ended:?}");
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(append_until_known(&journal, &second, head).await.position, Position(2));
    assert_eq!(everything(&journal).await.len(), 2);
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn a_hung_append_is_given_up_and_does_not_happen_twice() {
    let server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_millis(300)).await;
    let admin = server.client().await;
    admin.batch_execute("BEGIN; SELECT * FROM journal FOR UPDATE").await.unwrap();
    let proposal = entry(1, 1, b"hung");
    for _ in 0..3 {
        let hung = journal.append(proposal.clone(), Head::default()).await;
        assert!(matches!(hung, Err(JournalError::Unknown(_))), "{hung:?}");
    }
    // The attempts that were given up wait on in the server, and go on before or after this one.
    admin.batch_execute("COMMIT").await.unwrap();
    assert_eq!(append_until_known(&journal, &proposal, Head::default()).await.position, Position(1));
    assert_eq!(everything(&journal).await.len(), 1);
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn what_the_server_refuses_is_certain_not_to_have_happened() {
    let server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_secs(5)).await;
    let admin = server.client().await;
    admin.batch_execute("ALTER TABLE entries ADD CONSTRAINT small CHECK (octet_length(payload) < 10)").await.unwrap();
    let refused = journal.append(entry(1, 1, &[0; 10]), Head::default()).await;
    assert!(matches!(refused, Err(JournalError::NotDone(_))), "{refused:?}");
    assert_eq!(journal.append(entry(1, 1, b"small"), Head::default()).await.unwrap().position, Position(1));
}

#[tokio::test]
#[ignore = "starts a PostgreSQL server"]
async fn a_damaged_entry_is_told_by_its_position() {
    let server = Server::new().await;
    let journal = deadlined(server.url(), Duration::from_secs(5)).await;
    append_for(journal.clone(), 1, 3).await;
    let admin = server.client().await;
    admin.batch_execute("UPDATE entries SET payload = payload || '\\x00' WHERE position = 2").await.unwrap();
    let damaged = journal.read(Position(1)).await.unwrap_err();
    assert!(matches!(damaged, JournalError::Damaged { position: Position(2), .. }), "{damaged}");
    assert_eq!(journal.read(Position(3)).await.unwrap().len(), 1);
    admin.batch_execute("DELETE FROM entries WHERE position = 2").await.unwrap();
    for from in [1, 2] {
        let damaged = journal.read(Position(from)).await.unwrap_err();
        assert!(matches!(damaged, JournalError::Damaged { position: Position(2), .. }), "{damaged}");
    }
}
