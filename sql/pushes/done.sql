-- Deletes a push that needs no further attempt, if it is still under the lease `$3`.
delete from pushes
where subscription_id = $1::uuid
  and ride_id = $2::text
  and lease = $3::bigint
