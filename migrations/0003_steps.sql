-- Deployment steps: what happened when to which version of which component. Rows are only ever added.
-- The constraints repeat the rules of src/steps/model.rs. Texts compare by bytes, so the indexes hold whatever the
-- operating system's locale data says.

create table steps (
    id bigint generated always as identity primary key,
    ts timestamptz not null,
    component text collate "C" not null,
    version text collate "C" not null,
    owner text collate "C" not null,
    status text collate "C" not null,
    constraint steps_ts check (ts >= '0001-01-01 00:00:00+00' and ts < '9999-12-30 00:00:00+00'),
    constraint steps_component check (char_length(component) between 1 and 128),
    constraint steps_version check (char_length(version) between 1 and 128),
    constraint steps_owner check (char_length(owner) between 1 and 128),
    constraint steps_status check (char_length(status) between 1 and 128)
);

-- Lists are in order of time, for everything, one component or one owner; each begins anywhere without a sort.
create index steps_by_time on steps (ts, id);
create index steps_by_component on steps (component, ts, id);
create index steps_by_owner on steps (owner, ts, id);

-- Durations are read from this index alone. Four texts of 128 characters of four bytes each stay below the 2,704 bytes
-- that an entry may have.
create index steps_by_version on steps (component, version, ts, id) include (status, owner);

create function steps_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'steps are append-only: % is refused', lower(tg_op) using errcode = 'restrict_violation';
end
$$;

create trigger steps_append_only before update or delete or truncate on steps
    for each statement execute function steps_refuse_change();
