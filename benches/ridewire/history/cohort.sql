-- A cohort: ten thousand messages of 500 concurrent rides. Most rides have few messages, and a few have hundreds. The messages of
-- different rides are interleaved.
create temp table cohort as
select row_number() over (order by message, number) as place, message, number
from generate_series(0, 499) as number,
     generate_series(1, 505) as message
where message <= 8.6 / (1 - (number + 0.5) / 500) ^ 0.6
order by message, number
limit 10000;
create temp table numbers as
select number, max(message) as messages
from cohort
group by number;
analyze cohort, numbers;
