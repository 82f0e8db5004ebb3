-- Where an event is traced: the `traceparent` of the request that it came of, where that is recorded.
alter table events add column trace text;
