//! Changes to the database itself: expired rides and failovers.

use tokio::time::sleep;

use crate::run::{IDLE_TIME, Run};
use crate::step::Replica;

impl Run<'_> {
    /// Makes a ride expired: it ended long ago, and its log and messages are deleted.
    pub(crate) async fn expire(&self, ride: usize) {
        let name = self.record.ride(ride);
        self.replicas
            .client
            .batch_execute(&format!(
                "update rides set status = 'completed', ended_at = now() - interval '2d', closed_at = now() - interval '1d',
                     log_is_trimmed = true where ride_id = '{name}';
                 update participants set is_over = true where ride_id = '{name}';
                 delete from events where topic = 'ride/{name}';"
            ))
            .await
            .unwrap();
    }

    /// Records the head of a ride's log, as of which a standby will have it.
    pub(crate) async fn detach_standby(&mut self, ride: usize) {
        let topic = format!("ride/{}", self.record.ride(ride));
        let query = "select to_jsonb(topics)::text from topics where name = $1";
        if let Some(row) = self.replicas.client.query_opt(query, &[&topic]).await.unwrap() {
            self.detached_topics.insert(ride, row.get(0));
        }
    }

    /// Fails over to the standby: deletes what was written to a ride since, and cuts all connections. Does nothing if that is more than
    /// messages, or if a session is about to write more.
    pub(crate) async fn fail_over(&mut self, ride: usize) {
        let Some(standby) = self.detached_topics.remove(&ride) else { return };
        let topic = format!("ride/{}", self.record.ride(ride));
        let client = &mut self.replicas.client;
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("set local lock_timeout = '50ms'").await.unwrap();
        let locked = transaction.execute("select from topics where name = $1 for update", &[&topic]).await;
        let last = "select coalesce(($1::text::jsonb ->> 'last_seq')::bigint, 0)";
        let Ok(1) = locked else { return };
        let last: i64 = transaction.query_one(last, &[&standby]).await.unwrap().get(0);
        let others = "select count(*) from (
                          select from events where topic = $1 and seq > $2 and type <> 'message:new'
                          union all
                          select from receipts where 'ride/' || ride_id = $1 and greatest(delivered_seq, read_seq) > $2) others";
        let others: i64 = transaction.query_one(others, &[&topic, &last]).await.unwrap().get(0);
        let lose = "delete from messages where 'ride/' || ride_id = $1 and seq > $2 returning content";
        let lost = transaction.query(lose, &[&topic, &last]).await.unwrap();
        if others > 0 || lost.is_empty() {
            return;
        }
        transaction.execute("delete from events where topic = $1 and seq > $2", &[&topic, &last]).await.unwrap();
        transaction.execute("delete from topics where name = $1", &[&topic]).await.unwrap();
        let restore = "insert into topics select (jsonb_populate_record(null::topics, $1::text::jsonb)).*";
        transaction.execute(restore, &[&standby]).await.unwrap();
        transaction.commit().await.unwrap();
        self.has_failed_over = true;
        let lost: Vec<Option<String>> = lost.iter().map(|row| row.get(0)).collect();
        for operation in self.record.operations.values_mut() {
            operation.is_lost |= lost.contains(&Some(operation.content.clone()));
        }
        Replica::BOTH.iter().for_each(|at| self.replicas.proxy(*at).cut());
        self.settle().await;
        // The listeners reconnect after a pause.
        sleep(IDLE_TIME).await;
        self.settle().await;
    }
}
