-- Sets the closing times of rides that an older version has ended without them, by the grace period of the first replica that
-- runs this.
update rides
set rider_closes_at  = ended_at + make_interval(secs => $1::float8),
    driver_closes_at = ended_at + make_interval(secs => $1)
where ride_id = any (array (select ride_id
                            from rides
                            where ended_at <= statement_timestamp()
                              and closed_at is null
                              and rider_closes_at is null
                            order by ended_at
                            limit $2::bigint))
