-- Returns the notification channel of all replicas of this schema's deployment.
select notify_channel() as channel
