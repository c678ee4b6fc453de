-- One row a session. What is searched by has a column; the rest is in `doc` (see row.rs), which is
-- text, because jsonb would not give a client's body back as it came.
create table session (
    id          uuid primary key,
    version     bigint not null,
    replica     text,               -- who drives it; null: nobody
    left_at     bigint,             -- when its driver retired, by this store's clock
    place       text not null,
    bot         text not null,
    state       text not null,
    created_at  bigint not null,    -- microseconds since the epoch, as all times here
    deadline_at bigint not null,
    ended_at    bigint,
    end_code    text,               -- why it ends or ended
    outcome     text,               -- how it ended
    doc         text not null
)
-- The living are few and change often; were dead rows a part of all rows before they are cleaned
-- away, ten million ended sessions would leave millions of them among the living.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
      autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);

-- The living: what a start counts by, what is without a driver, and the list that people look at.
create index session_living on session (bot, state) where ended_at is null;
create index session_driver on session (replica, place, left_at, created_at, id) where ended_at is null;
create index session_newest_living on session (created_at desc, id desc) where ended_at is null;

-- Each way in which all sessions are looked for has an index in the order of the list.
create index session_newest on session (created_at desc, id desc);
create index session_newest_of_bot on session (bot, created_at desc, id desc);
create index session_newest_of_code on session (end_code, created_at desc, id desc) where end_code is not null;
create index session_newest_failed on session (created_at desc, id desc) where outcome = 'failed';

-- For pruning: what ended first goes first, and takes its start keys and labels with it.
create index session_ended on session (ended_at) where ended_at is not null;

create table label (
    session_id  uuid not null references session (id) on delete cascade,
    key         text not null,
    value       text not null,
    created_at  bigint not null,    -- its session's
    primary key (session_id, key)
);
create index label_newest on label (key, value, created_at desc, session_id desc);

-- Which session an Idempotency-Key bought. `scope` is the API key that sent it.
create table start_key (
    scope       text not null,
    key         text not null,
    body_hash   text not null,
    session_id  uuid not null references session (id) on delete cascade,
    primary key (scope, key)
);
create index start_key_session on start_key (session_id);

create table replica (
    id          text primary key,
    place       text not null,
    url         text not null,
    beat_at     bigint not null     -- by this store's clock
);

create table api_key (
    id          text primary key,
    kind        text not null,
    name        text not null,
    hash        bytea not null,     -- SHA-256 of the secret part; the secret itself is 256 random bits
    created_at  bigint not null,
    revoked_at  bigint
);

-- One row: who we are, and what our session tokens are signed with.
create table deployment (
    only_row    integer primary key check (only_row = 1),
    id          text not null,
    secret      bytea not null
);
