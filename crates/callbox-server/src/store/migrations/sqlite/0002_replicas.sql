-- Several dispatchers on one store: who drives which session, and who lives.
alter table session add column replica text;              -- who drives it; null: nobody
alter table session add column left_at integer;           -- when its driver retired, by this store's clock
alter table session add column place text not null default '';

create table replica (
    id          text primary key,
    place       text not null,
    url         text not null,
    beat_at     integer not null    -- microseconds since the epoch, by this store's clock
) strict;

-- What a start counts by, and what a look for sessions without a driver needs, both without
-- touching the rows themselves.
drop index session_living;
create index session_living on session (bot, state) where ended_at is null;
create index session_driver on session (replica, place, left_at, created_at, id) where ended_at is null;

-- For pruning: what ended first goes first, and takes its start keys with it.
create index session_ended on session (ended_at) where ended_at is not null;
create index start_key_session on start_key (session_id);
