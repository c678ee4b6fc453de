-- Several dispatchers on one store: who drives which session, and who lives. And what sessions
-- are found by: how they ended, and their labels.
alter table session add column replica text;              -- who drives it; null: nobody
alter table session add column left_at integer;           -- when its driver retired, by this store's clock
alter table session add column place text not null default '';
alter table session add column end_code text;             -- why it ends or ended
alter table session add column outcome text;              -- how it ended

update session set end_code = doc ->> '$.end[0]' where doc ->> '$.end[0]' is not null;
update session set outcome = case
    when end_code in ('client-left', 'bot-finished', 'stopped', 'dispatcher-shutdown', 'max-duration')
    then 'completed' else 'failed' end
where ended_at is not null;

create table replica (
    id          text primary key,
    place       text not null,
    url         text not null,
    beat_at     integer not null    -- microseconds since the epoch, by this store's clock
) strict;

create table label (
    session_id  text not null references session (id) on delete cascade,
    key         text not null,
    value       text not null,
    created_at  integer not null,   -- its session's
    primary key (session_id, key)
) strict, without rowid;
create index label_newest on label (key, value, created_at desc, session_id desc);

-- The living, found without touching a row: what a start counts by, what is without a driver,
-- and the list that people look at. `ended_at` is in them, as SQLite looks at it all the same.
drop index session_living;
create index session_living on session (bot, state) where ended_at is null;
create index session_driver on session (replica, place, left_at, created_at, id, ended_at)
    where ended_at is null;
create index session_newest_living on session (created_at desc, id desc) where ended_at is null;

-- Each way in which all sessions are looked for has an index in the order of the list.
create index session_newest_of_bot on session (bot, created_at desc, id desc);
create index session_newest_of_code on session (end_code, created_at desc, id desc) where end_code is not null;
create index session_newest_failed on session (created_at desc, id desc) where outcome = 'failed';

-- For pruning: what ended first goes first, and takes its start keys with it.
create index session_ended on session (ended_at) where ended_at is not null;
create index start_key_session on start_key (session_id);
