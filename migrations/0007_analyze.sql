-- ANALYZE for whoever adds many rows at once. PostgreSQL lets a table's owner alone analyse it, and requests need not work
-- as the owner; autovacuum would do it a minute later, or never where it is off.
--
-- Only growth by a tenth is worth it, which is autovacuum's own measure. A table that somebody else is analysing is left
-- to them. The search path is fixed to the schema of the tables, because the function has its owner's rights.

do $do$
begin
    execute format($f$
        create function pycrudapi_analyze(changed text, added bigint) returns boolean
        language plpgsql security definer set search_path to %I, pg_temp as $$
        declare
            known double precision;
        begin
            if changed not in ('passengers', 'air_quality') then
                raise exception 'no such table: %%', changed using errcode = 'undefined_table';
            end if;
            select greatest(reltuples, 0) into known from pg_class where oid = format('%%I', changed)::regclass;
            if added <= known / 10 then
                return false;
            end if;
            execute format('analyze (skip_locked) %%I', changed);
            return true;
        end
        $$ $f$, current_schema());
end
$do$;
