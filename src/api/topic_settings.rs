//! The settings in force on each topic, worked out once per change of its configuration.
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{Config, TopicSettings};
use crate::planted::{Defect, planted};
use crate::state::Topic;
use crate::types::TopicId;

/// Topics that are remembered; at the limit all are forgotten, and worked out again as they are used.
const TOPICS_MAX: usize = 100_000;

/// A cache in front of [`TopicSettings::resolve`]. A lock, held for a map lookup: every produce request asks.
pub struct TopicSettingsCache {
    config: Arc<Config>,
    known: RwLock<BTreeMap<TopicId, (u64, Arc<TopicSettings>)>>,
}

impl TopicSettingsCache {
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, known: RwLock::default() }
    }

    /// What is in force on `topic`.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Arc<TopicSettings> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&topic.id).cloned();
        if let Some((version, settings)) = known
            && (version == topic.config_version || planted(Defect::SettingsNotReloaded))
        {
            return settings;
        }
        let settings = Arc::new(TopicSettings::resolve(&topic.configs, &self.config));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOPICS_MAX {
            known.clear();
        }
        known.insert(topic.id, (topic.config_version, settings.clone()));
        settings
    }
}
