//! Order: per connection and partition and nowhere else, also when PUTs end in another order, fail or hang.
use super::*;
use crate::metadata::tests::troubled::End;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn puts_that_end_in_another_order_change_nothing() {
    let rig = Rig::new(20, AT_ONCE).await;
    rig.bucket.next([10, 1, 5, 0].map(|s| Fate::After(s * SECOND)));
    let begun = rig.world.now();
    let mut results = Vec::new();
    for value in ["a", "b", "c", "d"] {
        results.push(rig.say(1, value).await);
    }
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(placed(result).await, Ok(n as i64));
    }
    assert_eq!(rig.log(0).await, ["a", "b", "c", "d"]);
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn h17_a_slow_put_holds_up_only_what_follows_it() {
    let rig = Rig::new(21, AT_ONCE).await;
    rig.bucket.next([Fate::After(10 * SECOND)]);
    let begun = rig.world.now();
    let slow = rig.say(1, "slow").await;
    assert_eq!(placed(rig.say(2, "other connection").await).await, Ok(0));
    let other_partition = rig.send(1, vec![rig.batch(1, "other partition", None)]).await;
    assert_eq!(placed(other_partition).await, Ok(0));
    assert!(begun.elapsed() < SECOND);
    let behind = rig.say(1, "behind").await;
    assert_eq!(placed(slow).await, Ok(1));
    assert_eq!(placed(behind).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn h17_the_free_part_of_a_flush_commits_first() {
    let rig = Rig::new(22, SPACED).await;
    rig.bucket.next([Fate::After(10 * SECOND), Fate::After(SECOND)]);
    let begun = rig.world.now();
    let first = rig.say(1, "first").await;
    // These two leave together, 250 ms later.
    let bound = rig.send(1, vec![rig.batch(0, "bound", None), rig.batch(1, "free", None)]).await;
    let free = rig.say(2, "free too").await;
    assert_eq!(placed(free).await, Ok(0));
    assert!(begun.elapsed() < 2 * SECOND);
    assert_eq!(rig.log(1).await, ["free"]);
    assert_eq!(placed(first).await, Ok(1));
    let results = bound.await.unwrap();
    assert_eq!((offset(&results[..1]), offset(&results[1..])), (Ok(2), Ok(0)));
    assert_eq!(rig.log(0).await, ["free too", "first", "bound"]);
    // One object, though two entries name it.
    let state = rig.state();
    assert_eq!((state.object_count(), state.run_count()), (2, 4));
    assert_eq!(state.objects().map(|(_, meta)| meta.live_runs).collect::<Vec<_>>(), [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn h7_a_failed_flush_takes_along_what_is_behind_it() {
    let rig = Rig::new(23, SPACED).await;
    rig.bucket.next([Fate::Hangs, Fate::After(SECOND), Fate::After(2 * SECOND)]);
    let begun = rig.world.now();
    let failed = rig.say(1, "failed").await;
    let mut behind = Vec::new();
    for n in 0..3 {
        behind.push(rig.send(1, vec![rig.batch(0, "never", None), rig.batch(1, &n.to_string(), None)]).await);
        rig.world.sleep(SECOND).await;
    }
    // This one has not even left when the first one fails.
    rig.world.sleep(begun + DEADLINE - rig.world.now() - Duration::from_millis(100)).await;
    drop(rig.say(3, "takes the turn").await);
    let open = rig.send(1, vec![rig.batch(0, "never", None)]).await;
    assert_eq!(placed(failed).await, Err(KafkaError::RequestTimedOut));
    assert!(begun.elapsed() <= DEADLINE + SECOND, "before clients give up");
    assert_eq!(placed(open).await, Err(KafkaError::RequestTimedOut));
    for (n, results) in behind.into_iter().enumerate() {
        let results = results.await.unwrap();
        assert_eq!(offset(&results[..1]), Err(KafkaError::RequestTimedOut));
        assert_eq!(offset(&results[1..]), Ok(n as i64), "the other partition has nothing to do with it");
    }
    assert_eq!(placed(rig.say(1, "anew").await).await, Ok(1));
    assert_eq!(rig.log(0).await, ["takes the turn", "anew"]);
}

#[tokio::test(start_paused = true)]
async fn h7_a_refused_commit_takes_along_what_is_behind_it() {
    let rig = Rig::new(24, AT_ONCE).await;
    rig.journal.script([End::NotDone; 20]);
    let first = rig.say(1, "first").await;
    let behind = rig.say(1, "behind").await;
    assert_eq!(placed(first).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(placed(behind).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(placed(rig.say(1, "anew").await).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn h7_an_unknown_producer_begins_with_what_was_given_up() {
    let rig = Rig::new(25, AT_ONCE).await;
    let send = async |connection, sequence| {
        placed(rig.send(connection, vec![rig.batch(0, &format!("{sequence}"), Some((9, sequence)))]).await).await
    };
    // State forgot the producer, which goes on with sequence 10.
    rig.bucket.next([Fate::Hangs]);
    assert_eq!(send(1, 10).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(send(1, 11).await, Err(KafkaError::NotLeaderOrFollower));
    assert_eq!(send(2, 11).await, Err(KafkaError::NotLeaderOrFollower), "nor over another connection");
    rig.world.sleep(30 * SECOND).await;
    assert_eq!(send(2, 11).await, Err(KafkaError::OutOfOrderSequenceNumber), "its producer has left a gap, it seems");
    assert_eq!(send(2, 10).await, Ok(0));
    assert_eq!(send(2, 11).await, Ok(1));
}

/// librdkafka takes out of order as a reason for a new epoch, under which it sends again what may be in the log already.
#[tokio::test(start_paused = true)]
async fn what_is_behind_a_batch_that_was_given_up_is_told_to_try_again() {
    let rig = Rig::new(32, AT_ONCE).await;
    let send = async |connection, sequence| {
        placed(rig.send(connection, vec![rig.batch(0, &format!("{sequence}"), Some((9, sequence)))]).await).await
    };
    assert_eq!(send(1, 0).await, Ok(0), "State knows the producer");
    rig.bucket.next([Fate::Hangs]);
    assert_eq!(send(1, 1).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(send(1, 2).await, Err(KafkaError::NotLeaderOrFollower));
    assert_eq!(send(2, 2).await, Err(KafkaError::NotLeaderOrFollower), "nor over another connection");
    rig.world.sleep(30 * SECOND).await;
    assert_eq!(send(2, 2).await, Err(KafkaError::OutOfOrderSequenceNumber), "its producer has left a gap, it seems");
    assert_eq!((send(2, 1).await, send(2, 2).await), (Ok(1), Ok(2)));
}

#[tokio::test(start_paused = true)]
async fn h7_a_batch_that_came_over_another_connection_ends_the_wait() {
    let rig = Rig::new(26, AT_ONCE).await;
    let send = |connection, sequence| rig.send(connection, vec![rig.batch(0, "x", Some((9, sequence)))]);
    // The client reconnects and sends again, before the first attempt is given up.
    rig.bucket.next([Fate::Hangs]);
    let first = send(1, 10).await;
    assert_eq!(placed(send(2, 10).await).await, Ok(0));
    assert_eq!(placed(first).await, Ok(0), "it is in the log, though this attempt failed");
    assert_eq!(placed(send(2, 11).await).await, Ok(1), "what State knows it judges itself");
    // The same, when the second attempt is on its way while the first is given up.
    rig.bucket.next([Fate::Hangs, Fate::After(10 * SECOND)]);
    rig.forget(9).await;
    let first = send(1, 12).await;
    rig.world.sleep(DEADLINE - 5 * SECOND).await;
    let second = send(2, 12).await;
    assert_eq!(placed(first).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(placed(second).await, Ok(2));
    assert_eq!(placed(send(2, 13).await).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn h10_what_another_broker_has_taken_since_is_not_missed() {
    let rig = Rig::new(28, AT_ONCE).await;
    let batch = |sequence| vec![rig.batch(0, "x", Some((9, sequence)))];
    rig.bucket.next([Fate::Hangs]);
    assert_eq!(placed(rig.send(1, batch(10)).await).await, Err(KafkaError::RequestTimedOut));
    // The client goes to another broker with it, and comes back before this one has heard of that.
    rig.journal.slow_reads(SECOND);
    let (_other, producer) = rig.beside().await;
    assert_eq!(placed(rig.send_by(&producer, 1, batch(10)).await).await, Ok(0));
    assert_eq!(placed(rig.send(2, batch(11)).await).await, Ok(1));
    // Where nobody can say, it is no "no".
    rig.bucket.next([Fate::Hangs]);
    assert_eq!(
        placed(rig.send(1, vec![rig.batch(0, "x", Some((8, 5)))]).await).await,
        Err(KafkaError::RequestTimedOut)
    );
    rig.journal.fail_heads(true);
    let behind = rig.send(1, vec![rig.batch(0, "x", Some((8, 6)))]).await;
    assert_eq!(placed(behind).await, Err(KafkaError::NotLeaderOrFollower));
}

#[tokio::test(start_paused = true)]
async fn h7_nothing_overtakes_a_request_that_waits_for_a_barrier() {
    let rig = Rig::new(29, AT_ONCE).await;
    let batch = |partition, sequence: i32| rig.batch(partition, &sequence.to_string(), Some((9, sequence)));
    rig.bucket.next([Fate::Hangs]);
    assert_eq!(placed(rig.send(1, vec![batch(0, 10)]).await).await, Err(KafkaError::RequestTimedOut));
    rig.journal.slow_heads(SECOND);
    let first = rig.send(1, vec![batch(0, 11), batch(1, 0)]).await;
    let second = rig.send(1, vec![batch(1, 1)]).await;
    let results = first.await.unwrap();
    assert_eq!(offset(&results[..1]), Err(KafkaError::NotLeaderOrFollower));
    assert_eq!(offset(&results[1..]), Ok(0));
    assert_eq!(placed(second).await, Ok(1));
    assert_eq!(rig.log(1).await, ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn h7_a_producers_second_batch_does_not_overtake_its_first_over_another_connection() {
    let rig = Rig::new(30, AT_ONCE).await;
    let batch = |sequence| vec![rig.batch(0, "x", Some((9, sequence)))];
    rig.bucket.next([Fate::After(10 * SECOND)]);
    let first = rig.send(1, batch(0)).await;
    assert_eq!(placed(rig.send(2, batch(1)).await).await, Err(KafkaError::NotLeaderOrFollower), "no reason to give up");
    assert_eq!(placed(first).await, Ok(0));
    assert_eq!(placed(rig.send(2, batch(1)).await).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_before_it_is_given_up_is_not_waited_for() {
    let rig = Rig::new(33, AT_ONCE).await;
    let batch = |sequence| vec![rig.batch(0, "x", Some((9, sequence)))];
    rig.bucket.next([Fate::Hangs, Fate::After(SECOND), Fate::Hangs]);
    let (first, second) = (rig.send(1, batch(0)).await, rig.send(1, batch(1)).await);
    rig.world.sleep(DEADLINE - 5 * SECOND).await;
    let again = rig.send(2, batch(0)).await;
    assert_eq!(placed(first).await, Err(KafkaError::RequestTimedOut));
    assert_eq!(placed(second).await, Err(KafkaError::RequestTimedOut));
    let once_more = rig.send(3, batch(0)).await;
    let behind = rig.send(3, batch(1)).await;
    assert_eq!((placed(once_more).await, placed(behind).await), (Ok(0), Ok(1)));
    assert_eq!(placed(again).await, Ok(0), "it is in the log, though this attempt failed");
}

#[tokio::test(start_paused = true)]
async fn h7_what_was_refused_before_it_came_here_comes_first() {
    let rig = Rig::new(31, AT_ONCE).await;
    let batch = |sequence| rig.batch(0, "x", Some((9, sequence)));
    let behind = PartBatch { awaits: Some(Sequence(10)), ..batch(11) };
    assert_eq!(placed(rig.send(1, vec![behind]).await).await, Err(KafkaError::NotLeaderOrFollower));
    assert_eq!(placed(rig.send(1, vec![batch(10)]).await).await, Ok(0));
    assert_eq!(placed(rig.send(1, vec![batch(11)]).await).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_misread_once_is_looked_at_again() {
    let rig = Rig::new(33, AT_ONCE).await;
    rig.bucket.next([Fate::Misread(1), Fate::Misread(2)]);
    assert_eq!(placed(rig.say(1, "there").await).await, Ok(0));
    assert_eq!(placed(rig.say(1, "another's").await).await, Err(KafkaError::RequestTimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_as_old_as_its_arrival() {
    let rig = Rig::new(32, SPACED).await;
    let batch = |sequence| vec![rig.batch(0, "x", Some((9, sequence)))];
    assert_eq!(placed(rig.send(1, batch(0)).await).await, Ok(0));
    // What waits for its flush may be in the log already, and be known no more when it leaves.
    let waiting = rig.send(1, batch(5)).await;
    rig.forget(9).await;
    assert_eq!(placed(waiting).await, Err(KafkaError::NotLeaderOrFollower));
    assert_eq!(placed(rig.send(1, batch(5)).await).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn every_answer_comes_before_clients_give_up() {
    let flush = FlushRule { puts_max: 2, ..SPACED };
    let rig = Rig::new(27, flush).await;
    rig.bucket.next([Fate::Hangs; 100]);
    let mut waiting = Vec::new();
    for n in 0..200 {
        let (since, result) = (rig.world.now(), rig.say(n, &n.to_string()).await);
        let world = rig.world.clone();
        waiting.push(rig.world.spawn("client", async move {
            let result = placed(result).await;
            (result, world.now() - since)
        }));
        rig.world.sleep(Duration::from_millis(200)).await;
    }
    for waiting in waiting {
        let (result, took) = waiting.await.unwrap();
        assert_eq!(result, Err(KafkaError::RequestTimedOut));
        assert!(took < Duration::from_secs(28), "{took:?}");
    }
    // The outage ends for what comes next, without a restart.
    rig.bucket.next([]);
    assert!(rig.bucket.creates() < 100);
}
