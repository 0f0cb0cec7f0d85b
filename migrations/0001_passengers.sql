-- Passengers, and the memory of which data sets this database was seeded with.
-- The constraints repeat the rules of src/passengers/model.rs; their names are how a violation finds its field.

create table passengers (
    uuid uuid primary key,
    survived boolean not null,
    passenger_class smallint not null,
    name text not null,
    sex text not null,
    age double precision,
    siblings_or_spouses_aboard integer not null,
    parents_or_children_aboard integer not null,
    fare double precision not null,
    constraint passengers_passenger_class check (passenger_class between 1 and 3),
    constraint passengers_name check (char_length(name) between 1 and 150),
    constraint passengers_sex check (sex in ('male', 'female')),
    constraint passengers_age check (age between 0 and 130),
    constraint passengers_siblings_or_spouses_aboard check (siblings_or_spouses_aboard >= 0),
    constraint passengers_parents_or_children_aboard check (parents_or_children_aboard >= 0),
    -- NaN and infinity compare as greater than every number in PostgreSQL, so the upper bound refuses them.
    constraint passengers_fare check (fare >= 0 and fare < 'infinity')
);

create table seeds (
    name text primary key,
    seeded_at timestamptz not null default now()
);
