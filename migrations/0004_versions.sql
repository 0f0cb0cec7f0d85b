-- A version per passenger, which its ETag names: whoever changes a passenger can say which state they have seen.
--
-- Versions come from one sequence, so none is ever given twice: not to another state of the passenger, and not to one
-- that was deleted and imported again. Rows from before all begin at 1, which the column's default states without
-- rewriting the table. Each session draws 32 numbers at a time; gaps mean nothing.

create sequence passengers_version_seq minvalue 2 cache 32;

alter table passengers add column version bigint not null default 1;
alter table passengers alter column version set default nextval('passengers_version_seq');
alter sequence passengers_version_seq owned by passengers.version;

-- The service draws the new version in its own statements. This is for everybody else: the previous release during an
-- upgrade, and whoever repairs a row by hand. The condition is judged without calling the function.
create function passengers_draw_version() returns trigger language plpgsql set search_path from current as $$
begin
    new.version := nextval('passengers_version_seq');
    return new;
end
$$;

create trigger passengers_version before update on passengers
    for each row when (new.version = old.version) execute function passengers_draw_version();
