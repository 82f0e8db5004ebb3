//! Notifications, and the list of the replicas that follow each topic.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::batched::FollowedTopic;
use super::batcher::Responses;
use super::hints::encode_value;
use super::pool::{Pool, Session, Store};
use super::{StoreError, sql};
use crate::domain::{StateUpdate, Topic};

/// The position of a registration in the order of the list.
pub type FollowerKey = (String, Uuid);

impl Store {
    /// Sends payloads to all replicas, and each value to the other replicas that follow its topic. The commit is
    /// asynchronous.
    pub async fn notify(&self, payloads: &[impl AsRef<str> + Sync], values: &[StateUpdate]) -> Result<(), StoreError> {
        let payloads: Vec<&str> = payloads.iter().map(AsRef::as_ref).collect();
        let (topics, values): (Vec<_>, Vec<_>) =
            values.iter().filter_map(|value| Some((value.topic.as_str(), encode_value(value)?))).unzip();
        let params: super::pool::Params<'_> = &[&payloads, &topics, &values, &self.origin.id()];
        self.session().await?.query(sql::TOPICS_NOTIFY, params).await.map(drop)
    }

    /// Returns the used fraction of the notification queue, 0 to 1.
    pub async fn notification_queue_usage(&self) -> Result<f64, StoreError> {
        let rows = self.read(sql::TOPICS_QUEUE_USAGE, &[]).await?;
        Ok(rows.first().ok_or(StoreError::Corrupt("no usage"))?.try_get("usage")?)
    }

    /// Registers a topic that has readers on a replica. A value of the topic that is committed after this is sent to
    /// the replica.
    pub async fn follow(&self, replica: Uuid, topic: Topic, generation: i64) -> Result<(), StoreError> {
        self.followed.submit(FollowedTopic { topic, replica, generation }).await
    }

    /// Like [`Self::follow`], for many topics.
    pub async fn follow_all(&self, replica: Uuid, topics: &[Topic], generation: i64) -> Result<(), StoreError> {
        let followed = topics.iter().map(|topic| FollowedTopic { topic: topic.clone(), replica, generation });
        follow(self.pool(), followed.collect()).await.map(drop)
    }

    /// Removes topics without readers on a replica, except for those that were registered again with a generation later
    /// than `generation`.
    pub async fn unfollow(&self, replica: Uuid, topics: &[Topic], generation: i64) -> Result<(), StoreError> {
        let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
        self.session().await?.execute(sql::FOLLOWERS_REMOVE, &[&topics, &replica, &generation]).await.map(drop)
    }

    /// Removes those of the next `limit` registrations after `after` whose replicas have no lease any more. Returns the last
    /// one, or `None` at the end of the list.
    pub async fn remove_expired_followers(
        &self,
        (topic, replica): &FollowerKey,
        limit: i64,
    ) -> Result<Option<FollowerKey>, StoreError> {
        let rows = self.session().await?.query(sql::FOLLOWERS_REMOVE_EXPIRED, &[topic, replica, &limit]).await?;
        rows.first().map(|row| Ok((row.try_get("topic")?, row.try_get("replica")?))).transpose()
    }
}

/// Registers a batch of topics.
pub(super) async fn follow(pool: Pool, requests: Vec<FollowedTopic>) -> Responses<()> {
    // A statement may write a row only once.
    let mut rows = BTreeMap::new();
    for FollowedTopic { topic, replica, generation } in &requests {
        let latest = rows.entry((topic.as_str(), *replica)).or_insert(*generation);
        *latest = (*latest).max(*generation);
    }
    let (keys, generations): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let (topics, replicas): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    Session::get(&pool).await?.execute(sql::FOLLOWERS_ADD, &[&topics, &replicas, &generations]).await?;
    Ok(requests.iter().map(|_| Ok(())).collect())
}
