-- Which batch wrote what: a number that the writer draws for each attempt to commit one.
--
-- An event is told by it from another that has taken its place in the log, whatever the event says by now. (Not by the number
-- of the transaction: after a crash, or on a standby that takes over, Postgres gives out again what had not reached the disk.)
-- Null on what older versions write.
alter table events add column batch bigint;

-- The batch that wrote the last event: a log that ends at the same place with another event is another log.
alter table topics add column last_batch bigint not null default 0;

-- What must be stored as a whole cannot be: ends the transaction, as what may succeed when it is tried again.
create function refuse_part() returns text[] language plpgsql as
$$
begin
    raise exception 'a topic that was locked has moved' using errcode = 'serialization_failure';
end
$$;
