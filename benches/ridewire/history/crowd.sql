-- Ten thousand messages of 500 rides that go on at the same time: as in life most rides have few, and a few have hundreds;
-- and the messages of a ride lie among those of all the others.
create temp table crowd as
select row_number() over (order by message, number) as place, message, number
from generate_series(0, 499) as number,
     generate_series(1, 505) as message
where message <= 8.6 / (1 - (number + 0.5) / 500) ^ 0.6
order by message, number
limit 10000;
create temp table numbers as
select number, max(message) as messages
from crowd
group by number;
analyze crowd, numbers;
