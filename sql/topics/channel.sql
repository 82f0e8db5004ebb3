-- Returns the notification channel of this schema's deployment.
select notify_channel() as channel
