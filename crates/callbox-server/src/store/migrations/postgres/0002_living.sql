-- How many live, by bot: a start looks at this and not at the living, so that it takes as long
-- beside ten thousand as beside ten. Kept by triggers, in the transaction that changes the row:
-- nobody can forget it. Each transaction comes here last, and for one bot only.
create table living (
    bot         text primary key,
    total       bigint not null,
    queued      bigint not null
)
with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

insert into living (bot, total, queued)
    select bot, count(*), count(*) filter (where state = 'queued')
    from session where ended_at is null group by bot;

create function session_counts() returns trigger language plpgsql as $$
declare
    total_change  bigint := 0;
    queued_change bigint := 0;
    of_bot        text;
begin
    if tg_op <> 'INSERT' and old.ended_at is null then
        total_change := total_change - 1;
        queued_change := queued_change - (old.state = 'queued')::int;
        of_bot := old.bot;
    end if;
    if tg_op <> 'DELETE' and new.ended_at is null then
        total_change := total_change + 1;
        queued_change := queued_change + (new.state = 'queued')::int;
        of_bot := new.bot;
    end if;
    if total_change <> 0 or queued_change <> 0 then
        insert into living (bot, total, queued) values (of_bot, total_change, queued_change)
        on conflict (bot) do update set total = living.total + excluded.total,
                                        queued = living.queued + excluded.queued;
    end if;
    return null;
end
$$;

create trigger session_counts after insert or delete or update of state, ended_at on session
    for each row execute function session_counts();

-- Nobody counts by it any more.
drop index session_living;
