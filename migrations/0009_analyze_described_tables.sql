-- pycrudapi_analyze knew two tables by name. Tables follow descriptions now, so it takes every table of the schema that
-- belongs to its own owner.

do $do$
begin
    execute format($f$
        create or replace function pycrudapi_analyze(changed text, added bigint) returns boolean
        language plpgsql security definer set search_path to %I, pg_temp as $$
        declare
            known double precision;
        begin
            select greatest(reltuples, 0) into known from pg_class
                where relname = changed and relkind = 'r' and relnamespace = current_schema()::regnamespace
                    and relowner = current_user::regrole;
            if not found then
                raise exception 'no such table: %%', changed using errcode = 'undefined_table';
            end if;
            if added <= known / 10 then
                return false;
            end if;
            execute format('analyze (skip_locked) %%I', changed);
            return true;
        end
        $$ $f$, current_schema());
end
$do$;
