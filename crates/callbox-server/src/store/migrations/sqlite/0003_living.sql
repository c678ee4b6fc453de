-- How many live, by bot: a start looks at this and not at the living, so that it takes as long
-- beside ten thousand as beside ten. Kept by triggers, in the transaction that changes the row:
-- nobody can forget it.
create table living (
    bot         text primary key,
    total       integer not null,
    queued      integer not null
) strict, without rowid;

insert into living (bot, total, queued)
    select bot, count(*), sum(state = 'queued') from session where ended_at is null group by bot;

create trigger session_comes after insert on session when new.ended_at is null
begin
    insert into living (bot, total, queued) values (new.bot, 1, new.state = 'queued')
        on conflict (bot) do update set total = total + 1, queued = queued + excluded.queued;
end;

create trigger session_moves after update of state, ended_at on session
when (old.ended_at is null) <> (new.ended_at is null)
  or (old.state = 'queued') <> (new.state = 'queued')
begin
    update living set
        total = total - (old.ended_at is null) + (new.ended_at is null),
        queued = queued - (old.ended_at is null and old.state = 'queued')
                        + (new.ended_at is null and new.state = 'queued')
        where bot = new.bot;
end;

create trigger session_goes after delete on session when old.ended_at is null
begin
    update living set total = total - 1, queued = queued - (old.state = 'queued')
        where bot = old.bot;
end;

-- Nobody counts by it any more.
drop index session_living;
