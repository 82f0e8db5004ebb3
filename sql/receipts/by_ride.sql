select ride_id, user_id, role, delivered_seq, read_seq
from receipts
where ride_id = any ($1::text[])
