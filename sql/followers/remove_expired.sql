-- Removes the topics of replicas that have no lease any more.
delete from followers
where not exists (select from replicas where replicas.replica = followers.replica)
