-- One row a session. What is searched by has a column; the rest is in `doc` (see row.rs).
create table session (
    id          text primary key,
    version     integer not null,
    bot         text not null,
    state       text not null,
    created_at  integer not null,   -- microseconds since the epoch
    deadline_at integer not null,
    ended_at    integer,
    doc         text not null
) strict;
-- The living are few: a start and a restart look only at them, however many have ended.
create index session_living on session (bot) where ended_at is null;
create index session_newest on session (created_at desc, id desc);

-- Which session an Idempotency-Key bought. `scope` is the API key that sent it.
create table start_key (
    scope       text not null,
    key         text not null,
    body_hash   text not null,
    session_id  text not null references session (id) on delete cascade,
    primary key (scope, key)
) strict;

create table api_key (
    id          text primary key,
    kind        text not null,
    name        text not null,
    hash        blob not null,      -- SHA-256 of the secret part; the secret itself is 256 random bits
    created_at  integer not null,
    revoked_at  integer
) strict;

-- One row: who we are, and what our session tokens are signed with.
create table deployment (
    only_row    integer primary key check (only_row = 1),
    id          text not null,
    secret      blob not null
) strict;
