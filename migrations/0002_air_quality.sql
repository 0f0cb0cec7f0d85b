-- Air-quality readings, and the generation that tells cached answers whether they still hold.
-- The constraints repeat the rules of src/air_quality/model.rs.

create table air_quality (
    -- Byte order, so that the order of stations is the same on every machine.
    id_entity text collate "C" not null,
    measured_at timestamptz not null,
    so2 double precision,
    no2 double precision,
    co double precision,
    o3 double precision,
    pm10 double precision,
    pm2_5 double precision,
    constraint air_quality_pkey primary key (id_entity, measured_at),
    constraint air_quality_id_entity check (id_entity ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$'),
    constraint air_quality_measured_at check (
        measured_at >= '0001-01-01 00:00:00+00' and measured_at < '9999-12-30 00:00:00+00'
    ),
    -- NaN and infinity compare as greater than every number in PostgreSQL, so the upper bound refuses them.
    constraint air_quality_so2 check (so2 > '-infinity' and so2 < 'infinity'),
    constraint air_quality_no2 check (no2 > '-infinity' and no2 < 'infinity'),
    constraint air_quality_co check (co > '-infinity' and co < 'infinity'),
    constraint air_quality_o3 check (o3 > '-infinity' and o3 < 'infinity'),
    constraint air_quality_pm10 check (pm10 > '-infinity' and pm10 < 'infinity'),
    constraint air_quality_pm2_5 check (pm2_5 > '-infinity' and pm2_5 < 'infinity')
);

-- For a time span over all stations.
create index air_quality_measured_at_idx on air_quality (measured_at);

-- One row whose value changes with every change of the readings, in the same transaction: whoever reads both in one
-- statement knows which state of the table was read. Random rather than counted, so that a database restored from a
-- backup never repeats a value that stood for other readings.
create table air_quality_generation (
    one_row boolean primary key default true,
    generation uuid not null,
    constraint air_quality_generation_one_row check (one_row)
);

insert into air_quality_generation (generation) values (gen_random_uuid());

-- The search path is fixed here, because a restore runs with an empty one.
create function air_quality_changed() returns trigger language plpgsql set search_path from current as $$
begin
    update air_quality_generation set generation = gen_random_uuid();
    notify air_quality_changed;
    return null;
end
$$;

create trigger air_quality_changed after insert or update or delete or truncate on air_quality
    for each statement execute function air_quality_changed();
