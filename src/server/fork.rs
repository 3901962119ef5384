//! What an operator does about a forked history, on the stores that the configuration names and without a broker.
use std::sync::Arc;

use super::{ServerError, build};
use crate::config::Config;
use crate::journal::NoWitnesses;
use crate::metadata::{Choice, Mended, mend, survey};
use crate::telemetry::Metrics;
use crate::types::TimestampMs;
use crate::world::World;

/// What is known of the history, for people to read.
///
/// # Errors
/// Why the stores can't be read.
pub async fn show(config: &Config) -> Result<String, ServerError> {
    let (world, metrics) = surroundings()?;
    let (journal, bucket) = build::stores(config, &world, &metrics, |_| Arc::new(NoWitnesses)).await?;
    let survey = survey(&*journal, &*bucket).await?;
    let next = match (survey.lost.is_empty(), survey.marks.is_empty()) {
        (true, true) => "There is nothing to resolve.\n",
        (true, false) => "`strandline fork resolve` removes the mark and changes nothing else.\n",
        (false, _) => {
            "If the right journal can still be restored, restore it. Else stop all brokers, and choose what to go on from:\n\
             `strandline fork resolve --from bucket` takes the furthest State above, with all that it knows;\n\
             `strandline fork resolve --from journal` takes the journal as it is, and gives up what it lacks.\n"
        }
    };
    Ok(format!("{survey}{next}"))
}

/// Resolves a fork, and says what that meant.
///
/// # Errors
/// Why it could not be done.
pub async fn resolve(config: &Config, choice: Option<Choice>) -> Result<String, ServerError> {
    let (world, metrics) = surroundings()?;
    let (journal, bucket) = build::stores(config, &world, &metrics, |_| Arc::new(NoWitnesses)).await?;
    let Some(choice) = choice else {
        let survey = survey(&*journal, &*bucket).await?;
        if !survey.lost.is_empty() {
            return Err(ServerError::System(format!(
                "the journal lacks what was seen at {} positions: say what to go on from, --from bucket or --from journal \
                 (`strandline fork show` tells more)",
                survey.lost.len()
            )));
        }
        return Ok(told(&mend(&*journal, &*bucket, &world, Choice::Journal).await?));
    };
    Ok(told(&mend(&*journal, &*bucket, &world, choice).await?))
}

pub(super) fn surroundings() -> Result<(World, Arc<Metrics>), ServerError> {
    let world = World::real().map_err(|e| ServerError::System(format!("no random numbers: {e}")))?;
    let metrics = Arc::new(Metrics::new(TimestampMs(world.wall_ms().0)));
    Ok((world, metrics))
}

fn told(mended: &Mended) -> String {
    match mended {
        Mended::NothingLost { marks: 0 } => {
            "The journal has everything that was seen: there was nothing to do.\n".into()
        }
        Mended::NothingLost { .. } => {
            "The journal has everything that was seen: the mark is removed. Start the brokers again.\n".into()
        }
        Mended::Finished { generation, at } => format!(
            "What an earlier call had begun is finished: generation {generation} of the history begins at position {}.\n\
             Start the brokers again.\n",
            at.position
        ),
        Mended::Begun { generation, at, from, lost_entries, salvaged } => {
            let mut text = format!(
                "Generation {generation} of the history begins at position {}, with the State of position {}.\n",
                at.position, from.position
            );
            match lost_entries {
                0 => text.push_str("Nothing that was seen is missing in it.\n"),
                lost => text.push_str(&format!(
                    "Up to {lost} entries that were seen are not in it: committed offsets, groups, topics and settings are as \
                     they were before.\n"
                )),
            }
            if salvaged.records > 0 {
                text.push_str(&format!(
                    "{} records of {} objects that it did not name were added behind the ends of their partitions.\n",
                    salvaged.records, salvaged.objects
                ));
            }
            if !salvaged.left.is_empty() {
                text.push_str("Of these objects no record could be had, since they or their topics are not known:\n");
                salvaged.left.iter().for_each(|key| text.push_str(&format!("  {key}\n")));
            }
            text.push_str("Start the brokers again.\n");
            text
        }
    }
}
